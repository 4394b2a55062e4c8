"""A local ring that goes on when the command that started it has ended, one for each person."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from node.cli.places import state_home
from node.cli.processes import ready_at, start_detached
from node.errors import BadUsage

PATIENCE = 15.0
"""Seconds that nodes have to end before they are killed."""


def _note() -> Path:
    """Where it is written down what runs."""
    return state_home() / "local.json"


def start_ring(count: int) -> Iterator[str]:
    """Start the nodes, yield their ready lines. Raises BadUsage if one is left running, Unavailable if a node does not
    start; then none is left."""
    note = _note()
    if note.exists():
        raise BadUsage("a local ring was left running: end it with `ring local --stop` first")
    directory = Path(tempfile.mkdtemp(prefix="rpychord-"))
    note.parent.mkdir(parents=True, exist_ok=True)
    pids: list[int] = []
    first: list[str] = []
    try:
        for number in range(count):
            words = [*first, "0"] if first else ["--port", "0"]
            data = directory / f"node{number}"
            pid, ready = start_detached([*words, "--data", str(data)], data.with_suffix(".log"))
            pids.append(pid)
            note.write_text(json.dumps({"directory": str(directory), "pids": pids}))
            if not first and (address := ready_at(ready)) is not None:
                first = [address.host, str(address.port)]
            yield ready
    except BaseException:
        note.write_text(json.dumps({"directory": str(directory), "pids": pids}))
        stop_ring()
        raise


def stop_ring() -> int:
    """End all nodes of the ring left running, remove its data; how many ended. Raises BadUsage if there is none."""
    note = _note()
    try:
        left = json.loads(note.read_text())
    except FileNotFoundError:
        raise BadUsage("no local ring was left running") from None
    running = [pid for pid in left["pids"] if _is_of(pid, left["directory"])]
    ended = len(running)
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        running = [pid for pid in running if _is_of(pid, left["directory"])]
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(left["directory"], ignore_errors=True)
    note.unlink()
    return ended


def _is_of(pid: int, directory: str) -> bool:
    """Whether this process is a node of that ring, and not another that has got its number since."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.startswith(directory.encode() + b"/") for word in words)
