"""A local ring of processes: up together, down together, and none outlives whoever started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.cli.local import LocalRing
from node.errors import Unavailable
from tests.ring.nodes import READY, ROOT, eventually


def serving_below(directory: Path) -> list[int]:
    """The processes that keep their data below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"node.cli.serve" in words and any(word.startswith(bytes(directory)) for word in words):
                found.append(int(entry.name))
    return found


def test_it_is_up_inside_and_down_outside(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalRing(3, tmp_path) as ring:
            assert len(set(ring.addresses)) == 3
            assert all(READY.match(line) for line in ring.lines)
            assert len(serving_below(tmp_path)) == 3
        assert serving_below(tmp_path) == []

    asyncio.run(main())


def test_a_node_that_does_not_start_is_heard_and_the_others_end(tmp_path: Path) -> None:
    (tmp_path / "node2").write_text("a file where a directory should be")

    async def main() -> None:
        async with LocalRing(3, tmp_path):
            raise AssertionError("it started")

    with pytest.raises(Unavailable, match=r"node 2 of the local ring did not start: .*node2"):
        asyncio.run(main())
    assert serving_below(tmp_path) == []


def test_further_words_go_to_every_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalRing(2, tmp_path, "--membrs", "2"):
            raise AssertionError("it started")

    with pytest.raises(Unavailable, match="--membrs"):
        asyncio.run(main())


def test_a_node_that_ends_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalRing(2, tmp_path) as ring:
            os.kill(serving_below(tmp_path)[0], signal.SIGKILL)
            await asyncio.wait_for(ring.broken(), 30)

    with pytest.raises(Unavailable, match="ended with code -9"):
        asyncio.run(main())
    assert serving_below(tmp_path) == []


def started(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "node.cli.ring", "local", "2"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ring_local_stays_until_a_signal(tmp_path: Path, number: int) -> None:
    process = started(tmp_path)
    assert process.stdout is not None
    assert all(READY.match(process.stdout.readline()) for _ in range(2))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert serving_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_no_node_outlives_one_who_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    assert len(serving_below(tmp_path)) == 2
    process.kill()
    process.communicate(timeout=60)
    eventually(lambda: serving_below(tmp_path) == [], what="no process left")
