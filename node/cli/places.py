"""Where things of a person are kept, by the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def data_home() -> Path:
    """Below it nodes keep their data."""
    return _home("XDG_DATA_HOME", ".local/share")


def state_home() -> Path:
    """Below it is what is worth keeping for the next time, such as what was typed."""
    return _home("XDG_STATE_HOME", ".local/state")


def _home(variable: str, otherwise: str) -> Path:
    wanted = Path(os.environ.get(variable) or ".")
    return (wanted if wanted.is_absolute() else Path.home() / otherwise) / "rpychord"
