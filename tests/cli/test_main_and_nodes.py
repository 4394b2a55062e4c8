"""`main.py` on a ring whose nodes leave and sleep while it works: it goes on with another and loses nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.ring.nodes import ROOT, NodeProcess, RingOfProcesses, eventually

KEYS = 4_000


def started(tmp_path: Path, node: NodeProcess) -> subprocess.Popen[str]:
    """main.py in the middle of a long file, through this node."""
    script = tmp_path / "long.txt"
    script.write_text("".join(f"put key{n} {n}\nget key{n}\nput key{n} {n}x\n" for n in range(KEYS)))
    command = [sys.executable, str(ROOT / "main.py"), str(script), "--node", f"{node.host}:{node.port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def under_way() -> bool:
        with node.connection() as root:
            return bool(root.get("key500") is not None)

    eventually(under_way, what="some of the file done")
    assert process.poll() is None
    return process


def assert_all_done(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert f"{2 * KEYS:,} put, {KEYS:,} got, 0 deleted; {KEYS:,} keys verified" in out


def test_the_node_it_talks_to_leaves(ring: RingOfProcesses, tmp_path: Path) -> None:
    nodes = ring.of(4)
    process = started(tmp_path, nodes[1])
    assert nodes[1].terminate() == 0
    assert_all_done(process)


def test_a_node_sleeps_for_a_while(ring: RingOfProcesses, tmp_path: Path) -> None:
    nodes = ring.of(4)
    process = started(tmp_path, nodes[1])
    nodes[2].signal(signal.SIGSTOP)
    time.sleep(1.5)
    nodes[2].signal(signal.SIGCONT)
    assert_all_done(process)
