"""The two commands that make a ring of two machines, typed as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ring.hosts import Hosts, needs_namespaces
from tests.ring.nodes import PATIENCE, ROOT, eventually

pytestmark = needs_namespaces


@contextmanager
def typed(hosts: Hosts, n: int, line: str, directory: Path) -> Iterator[list[str]]:
    """A command line on a host, whose data is below the directory; what it printed once it is ready."""
    words = shlex.split(line.replace("python", sys.executable, 1))
    said, home = directory / f"said{n}", directory / f"home{n}"
    with said.open("w") as out, said.with_suffix(".err").open("w") as err:
        process = subprocess.Popen(
            ["ip", "netns", "exec", hosts.names[n], *words],
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, "XDG_DATA_HOME": str(home)},
        )
    try:
        eventually(lambda: process.poll() is not None or "ready" in said.read_text())
        assert process.poll() is None, said.with_suffix(".err").read_text()
        yield said.read_text().splitlines()
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_the_printed_line_makes_the_next_machine_a_node(hosts: Hosts, tmp_path: Path) -> None:
    with typed(hosts, 0, f"python server.py --listen {hosts.address(0)}", tmp_path) as first:
        assert first[0].startswith(f"ready {hosts.address(0)}:18861 ")
        line = eventually(lambda: (tmp_path / "said0").read_text().splitlines()[2])
        assert re.fullmatch(rf"python server.py {hosts.address(0)} 18861 --token \S+", line)
        with typed(hosts, 1, line, tmp_path) as second:
            assert second == [second[0]] and second[0].startswith(f"ready {hosts.address(1)}:18861 ")
        with typed(hosts, 1, "python server.py", tmp_path) as again:
            assert again == second
        with typed(hosts, 1, line, tmp_path) as again:
            assert again == second
