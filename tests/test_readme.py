"""The five-minute tour of the README, typed as it stands there: what it shows is what comes out.

Ports are moved to free ones; ids, figures and times may be others than those shown.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.ring.nodes import eventually

ROOT = Path(__file__).resolve().parents[1]
PORT = 18861
VARIES = [
    (r"\b[0-9a-f]{40}\b", "ID"),
    (r"\b[0-9a-f]{8}\.\.", "ID.."),
    (r"127\.0\.0\.1:\d+", "NODE"),
    (r"\d[\d,.]*%", "SHARE"),
    (r"[\d.]+ s, [\d,]+/s", "TIME"),
    (r"(NODE\s+ID\.\.\s+)\d[\d,]*", r"\1KEYS"),
    (r"verified through NODE", "verified through NODE"),
    (r" +", " "),
]


def tour() -> list[str]:
    """The examples of the README, one block after the other."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Five minutes") :].split("\n## ")[0]
    return re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)


def examples(block: str) -> Iterator[tuple[str, str]]:
    """Commands of a block, and what they print."""
    for part in re.split(r"^    \$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, "".join(line.removeprefix("    ") + "\n" for line in shown.splitlines())


def without_what_varies(text: str) -> list[str]:
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text)
    return [line.rstrip() for line in text.strip().splitlines()]


class Terminal:
    """Where the tour is typed."""

    def __init__(self, home: Path, base: int) -> None:
        self._home = home
        self._base = base
        self.servers: list[subprocess.Popen[str]] = []

    def moved(self, text: str) -> str:
        """With other ports."""
        return re.sub(r"\b1886(\d)\b", lambda found: str(self._base + int(found[1]) - 1), text)

    @property
    def environment(self) -> dict[str, str]:
        places = {name: str(self._home) for name in ("XDG_DATA_HOME", "XDG_STATE_HOME")}
        return {**os.environ, **places, "RPYCHORD_NODE": f"localhost:{self._base}"}

    def type(self, command: str) -> str:
        """What it prints."""
        program, *words = shlex.split(self.moved(command))
        if words[:1] == ["server.py"]:
            words += [] if words[1:] else ["--port", str(self._base)]
            return self._start([sys.executable, *words])
        if words[:1] == ["main.py"]:
            words += ["--node", f"localhost:{self._base}"]
        line = [sys.executable, *(["-m", "node.cli.ring"] if program == "ring" else []), *words]
        done = subprocess.run(
            line, capture_output=True, text=True, cwd=ROOT, env=self.environment, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def _start(self, command: list[str]) -> str:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=self.environment)
        self.servers.append(server)
        assert server.stdout is not None
        return server.stdout.readline()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    there = Terminal(tmp_path, free_ports(4))
    try:
        yield there
    finally:
        for n in range(4):
            there.type(f"ring rm-server 1886{n + 1}")
        for server in there.servers:
            server.kill()
            server.wait()


def test_the_five_minute_tour_shows_what_comes_out(terminal: Terminal) -> None:
    blocks = tour()
    assert len(blocks) >= 5
    shown = 0
    for block in blocks:
        for command, wanted in examples(block):
            _three_replicas_before(command, terminal)
            printed = terminal.type(command)
            assert without_what_varies(printed) == without_what_varies(terminal.moved(wanted)), command
            shown += 1
        if ">>>" in block:
            _typed_in_python(terminal.moved(block))
            shown += 1
    assert shown >= 18


def _three_replicas_before(command: str, terminal: Terminal) -> None:
    """A reader takes longer to type this than the ring to make the copies."""
    if command.startswith("ring replicas"):
        eventually(lambda: len(terminal.type(command).splitlines()) == 4)


def _typed_in_python(block: str) -> None:
    session = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    said = io.StringIO()
    runner = doctest.DocTestRunner(verbose=False)
    with contextlib.redirect_stdout(said):
        runner.run(session)
    assert runner.summarize(verbose=False).failed == 0, said.getvalue()
