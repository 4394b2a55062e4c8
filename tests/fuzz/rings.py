"""The nodes that are attacked: real processes, run by `tests.fuzz.witness`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.ring.nodes import NodeProcess
from tests.trust.test_processes import SecureProcess

RINGS = {
    "open": (NodeProcess, ()),
    "certified": (SecureProcess, ("--secure",)),
    "certified, eventual": (SecureProcess, ("--secure", "--consistency", "eventual")),
}
"""By name: what it is talked to as, and the words it is started with."""
WATCHED = [sys.executable, "-m", "tests.fuzz.witness"]


def started(ring: str, directory: Path, watched: list[str] = WATCHED) -> NodeProcess:
    """A ring of one node."""
    kind, words = RINGS[ring]
    node = kind(directory / "node", "--durability", "os", *words)
    node.prefix = watched
    node.start()
    return node
