"""Real nodes after most of them are lost for good: what is left goes on when a person says so, and not before."""

from __future__ import annotations

import subprocess
import sys

from tests.ring.nodes import ROOT, NodeProcess, RingOfProcesses, eventually
from tests.ring.test_ring_of_processes import load
from tests.ring.test_survival import KEYS, whole, write_again


def force_repair(node: NodeProcess, *words: str, says: str = "") -> subprocess.CompletedProcess[str]:
    """`ring force-repair`, typed at a node."""
    command = [sys.executable, "-m", "node.cli.ring", "force-repair", "--node", f"{node.host}:{node.port}", *words]
    return subprocess.run(command, input=says, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_three_of_five_are_lost_for_good(ring: RingOfProcesses) -> None:
    nodes = ring.of(5)
    keys = load(nodes[0], KEYS)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything")
    refused = force_repair(nodes[0], "--yes")
    assert refused.returncode == 2 and "mends itself" in refused.stderr, "not while the keepers answer"
    with nodes[0].connection() as root:
        holders = {key: {port for _, port, _ in root.replicas(key)} for key in keys}
    lost = [node for node in nodes if node.port in holders["key 1"]]
    left = [node for node in nodes if node not in lost]
    for node in lost:
        node.kill()
    there = {key: value for key, value in keys.items() if holders[key] & {node.port for node in left}}
    assert 0 < len(there) < len(keys)
    asked = force_repair(left[1], says="n\n")
    assert asked.returncode == 1 and "nothing was changed" in asked.stdout
    assert all(f":{node.port}" in asked.stdout.splitlines()[0] for node in lost) and "begins empty" in asked.stdout
    done = force_repair(left[1], "--yes")
    assert done.returncode == 0, done

    write_again(left[0], there)
    for node in left:
        with node.connection() as root:
            assert all(root.get(key) == value for key, value in there.items())
            assert all(root.get(key) is None for key in keys if key not in there)
    for node in lost:
        node.start(wait=False)
    for node in lost:
        assert node.process is not None and node.process.wait(30) == 1
        assert "given up" in node.directory.with_suffix(".log").read_text()
    newcomer = ring.node(first=left[0])
    eventually(lambda: whole(newcomer), what="three replicas of everything, again")
    with newcomer.connection() as root:
        assert all(root.get(key) == value for key, value in there.items())
