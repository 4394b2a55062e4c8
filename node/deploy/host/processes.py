"""The processes of this host, as /proc shows them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

SCRIPT = "server.py"


def nodes_in(releases: Path) -> list[int]:
    """The processes that run the `server.py` of an installation."""
    return [pid for pid in _all() if SCRIPT in _words(pid) and _works_in(pid, releases)]


def used(releases: Path) -> set[str]:
    """The names of the releases that a process of ours works in."""
    found = set()
    for pid in _all():
        where = _directory(pid)
        if where is not None and where.is_relative_to(releases) and where != releases:
            found.add(where.relative_to(releases).parts[0])
    return found


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def age(pid: int) -> float:
    """Seconds since it was started; none if it has ended meanwhile."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0.0
    return max(0.0, host_uptime() - ticks / os.sysconf("SC_CLK_TCK"))


def host_uptime() -> float:
    """Seconds since this host was started."""
    return float(Path("/proc/uptime").read_text().split()[0])


def tell(pids: Iterable[int], number: int) -> None:
    """Send a signal to those that still run."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def gone(pids: Iterable[int], patience: float) -> list[int]:
    """Wait until these have ended; those that have not in time."""
    deadline = time.monotonic() + patience
    left = [pid for pid in pids if alive(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if alive(pid)]
    return left


def end(pids: Iterable[int], number: int, patience: float) -> list[int]:
    """Have them end by a signal; kill, and return, those that did not in time."""
    pids = list(pids)
    tell(pids, number)
    stubborn = gone(pids, patience)
    tell(stubborn, signal.SIGKILL)
    gone(stubborn, 5.0)
    return stubborn


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _directory(pid: int) -> Path | None:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None


def _works_in(pid: int, releases: Path) -> bool:
    where = _directory(pid)
    return where is not None and where.is_relative_to(releases) and alive(pid)
