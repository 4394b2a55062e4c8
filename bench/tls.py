"""What certificates cost: a ring with them beside one without, the same work in turn, round after round.

`python -m bench tls [--rounds N] [--seconds S] [--nodes N ...]`. The best round of each counts. Mutual TLS 1.3 between
client and nodes and among nodes; it may take 1.5 times the time for one operation, and 1.3 times for batches. The last
column is processor time of client and nodes together, which tells more where others use the machine too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from bench.rivals import BATCH, ROOT, SIZES, Work, rate, works_of
from bench.transport import cpu_seconds
from node import Ring
from node.client.credentials import login
from node.codec import Address
from node.settings import Settings
from node.trust.token import Token

HOST = "127.0.0.1"
SINGLE, BATCHES = 1.5, 1.3
"""How many times as long it may take."""


class Candidate:
    """A ring whose nodes all hold everything, and a client of it."""

    def __init__(self, works: dict[str, Work], pids: list[int]) -> None:
        self.works = works
        self._pids = pids
        self.best: dict[tuple[str, str], float] = defaultdict(float)
        """Operations a second."""
        self._spent: dict[tuple[str, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def measure(self, name: str, label: str, seconds: float) -> None:
        """One round of one work."""
        used = self._used()
        measured = rate(self.works[name], SIZES[label], seconds)
        self.best[name, label] = max(self.best[name, label], measured)
        spent, done = self._spent[name, label]
        self._spent[name, label] = spent + self._used() - used, done + measured * seconds

    def cost(self, name: str, label: str) -> float:
        """Seconds of processor, of the client and all nodes, for one operation."""
        spent, done = self._spent[name, label]
        return spent / done

    def _used(self) -> float:
        return time.process_time() + sum(map(cpu_seconds, self._pids))


@contextlib.contextmanager
def ring(nodes: int, secure: bool) -> Iterator[Candidate]:
    """Its nodes are started, and ended."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        port, first, pids = 0, Path(directory) / "0", []
        for n in range(nodes):
            words = ["--port", "0", "--replicas", str(nodes), "--durability", "os", *["--secure"] * secure]
            if n:
                words = [HOST, str(port), "0", *(["--token", token(first)] if secure else [])]
            command = [sys.executable, str(ROOT / "server.py"), *words, "--data", f"{directory}/{n}"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            port = port or int(process.stdout.readline().split()[1].rsplit(":", 1)[1])
            pids.append(process.pid)
        os.environ["XDG_CONFIG_HOME"] = directory
        if secure:
            asyncio.run(login(Token.read(token(first, "--client")), Address(HOST, port), Settings()))
        client = stack.enter_context(Ring.connect(f"{HOST}:{port}", timeout=30))
        while any(problem for *_, problem in client.verify()):
            time.sleep(0.1)
        yield Candidate(works_of(client), pids)


def token(first: Path, *words: str) -> str:
    """What `ring token` prints."""
    command = [sys.executable, "-m", "node.cli.ring", "token", *words, "--data", str(first)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return next(word for word in said.split() if word.startswith("ring1."))


def main() -> int:
    """Print the table; 1 if something takes longer than it may."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=0.3, help="of each measurement in each round")
    options.add_argument("--nodes", type=int, nargs="*", default=[1, 3])
    wanted = options.parse_args()
    print(f"{os.cpu_count()} cores; best of {wanted.rounds} rounds; operations a second, and the ratio of times")
    print(f"{'':34}{'nodes':>8}{'open':>12}{'TLS':>12}{'ratio':>9}{'asked':>8}{'of CPU':>9}")
    too_slow = 0
    for nodes in wanted.nodes:
        with ring(nodes, False) as plain, ring(nodes, True) as secure:
            rows = [(name, label) for label in SIZES for name in plain.works]
            for _ in range(wanted.rounds):
                for row in rows:
                    for candidate in (plain, secure):
                        candidate.measure(*row, wanted.seconds)
            for name, label in rows:
                without, with_it = plain.best[name, label], secure.best[name, label]
                asked, ratio = BATCHES if f"{BATCH:,}" in name else SINGLE, without / with_it
                too_slow += ratio > asked
                cpu = secure.cost(name, label) / plain.cost(name, label)
                cells = f"{nodes:>8}{without:>12,.0f}{with_it:>12,.0f}{ratio:>8.2f}x{asked:>7.1f}x{cpu:>8.2f}x"
                print(f"{name:24}{label:>10}{cells}{'  too slow' if ratio > asked else ''}", flush=True)
    return 1 if too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
