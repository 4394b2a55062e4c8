"""What commands do with odd surroundings: streams that lead nowhere, a narrow terminal, nodes that are silent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from node import Ring
from node.errors import BadUsage, VersionConflict
from tests.ring.nodes import ROOT, RingOfProcesses, eventually

RING = f'{sys.executable} -P -c "from node.cli.door import ring; ring()"'
"""The command as it is installed."""


def typed(line: str, node: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RPYCHORD_NODE": node, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, check=False
    )


@pytest.fixture
def node(ring: RingOfProcesses) -> str:
    return f"127.0.0.1:{ring.node().port}"


def test_streams_that_are_closed_or_full_end_a_command_with_a_line_at_most(node: str) -> None:
    assert typed(f"{RING} put k v", node).returncode == 0
    for words, code, said in (
        ("get k >/dev/full", 1, "No space left on device"),
        ("--help >/dev/full", 1, "No space left on device"),
        ("get k >&-", 0, ""),
        ("get k <&-", 0, ""),
        ("get nothing 2>&-", 3, ""),
        ("shell <&-", 0, ""),
    ):
        done = typed(f"{RING} {words}", node)
        assert (done.returncode, done.stderr.strip().removeprefix("ring: ")) == (code, said), words


def test_a_table_that_is_too_wide_for_the_terminal_loses_nothing(node: str) -> None:
    environment = {**{n: v for n, v in os.environ.items() if n not in ("COLUMNS", "LINES")}, "TERM": "xterm"}
    arguments = ["-m", "node.cli.ring", "overlay", "--node", node]
    at = {"cwd": str(ROOT), "env": environment, "encoding": "utf-8", "timeout": 30, "dimensions": (24, 30)}
    terminal = pexpect.spawn(sys.executable, arguments, **at)
    terminal.expect(r"[0-9a-f]{40}")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_status_names_who_is_silent_and_fails(ring: RingOfProcesses) -> None:
    one, other, _ = ring.of(3)
    node = f"127.0.0.1:{one.port}"
    with one.connection() as root:
        eventually(lambda: not any(arc[4] for arc in root.verify()), what="a whole ring")
    assert typed(f"{RING} status", node).returncode == 0
    other.kill()
    done = typed(f"{RING} status", node)
    assert done.returncode == 1
    assert any(str(other.port) in line and "silent" in line for line in done.stdout.splitlines())


def test_main_heeds_the_environment(node: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("put from-main 1\n")
    done = typed(f"{sys.executable} main.py {lines}", node)
    assert (done.returncode, done.stderr) == (0, "")
    assert typed(f"{RING} get from-main", node).stdout == "1\n"


def test_a_ring_that_was_closed_says_so_at_once_and_conflicts_are_one_sentence(node: str) -> None:
    with Ring.connect(node) as ring:
        ring["schön"] = 1
        with pytest.raises(VersionConflict) as caught:
            ring.put_if("schön", 2, None)
        assert str(caught.value).startswith("'schön' has version (") and len(caught.value.args) == 2
    began = time.monotonic()
    with pytest.raises(BadUsage, match="was closed"):
        ring.get("schön")
    assert time.monotonic() - began < 5
    with pytest.raises(BadUsage, match="23100 is no address"):
        Ring.connect("localhost", 23100)  # type: ignore[arg-type]
