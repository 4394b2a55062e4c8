"""Both kinds of loop that a node may run on, and hosts."""

from __future__ import annotations

from tests.remote.conftest import loops
from tests.ring.conftest import hosts

__all__ = ["hosts", "loops"]
