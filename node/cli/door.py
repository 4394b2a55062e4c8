"""How the scripts at the top of the tree enter: with the project's own environment, or with a word on how to get it.

Imports nothing but the standard library, so that it runs under any Python.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

NEEDED = ("rpyc", "msgspec", "rocksdict", "click")


def enter(module: str) -> None:
    """Run `main()` of a module, in `.venv` if this Python lacks what the project needs."""
    name = Path(sys.argv[0]).name
    if sys.version_info < (3, 11):
        sys.exit(f"{name}: needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    if any(importlib.util.find_spec(each) is None for each in NEEDED):
        ours = Path(sys.argv[0]).resolve().parent / ".venv" / "bin" / "python"
        if ours.exists() and Path(sys.executable) != ours:
            os.execv(ours, [str(ours), *sys.argv])
        sys.exit(f"{name}: what the project needs is not installed: run `make setup` first")
    _open_standard_streams()
    try:
        main = importlib.import_module(module).main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())


def ring() -> None:
    """The command `ring`."""
    enter("node.cli.ring")


def _open_standard_streams() -> None:
    """Those that are closed lead nowhere: what is opened next would take their numbers, which libraries do not bear."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
