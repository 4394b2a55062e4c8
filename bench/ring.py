"""Rings of three nodes on this machine: put and get, one at a time, 64 in flight and 1,000 in a batch, for every kind
of replication.

`python -m bench ring [--seconds S] [--keys N] [--filled N] [--ring WORDS]`. One at a time goes through a stock RPyC
client and one node; 64 in flight and batches through `AsyncRing`. `--filled`: keys that there are before.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import rpyc
import uvloop

from node import AsyncRing

ROOT = Path(__file__).resolve().parents[1]
IN_FLIGHT = 64
BATCH = 1_000
VALUE = "v" * 100
T = TypeVar("T")


class Ring:
    """Three `python server.py`."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.port = 0
        for _ in range(3):
            self.add(directory, *words)

    def add(self, directory: Path, *words: str) -> None:
        """One more node; it is in the ring when this returns."""
        n = len(self.processes)
        joining = ["127.0.0.1", str(self.port), "0"] if n else ["--port", "0", *words]
        command = [sys.executable, str(ROOT / "server.py"), *joining, "--data", str(directory / str(n))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.processes.append(process)
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if not ready:
            raise SystemExit(f"a node did not start: {' '.join(command)}")
        self.port = self.port or int(ready[1].rsplit(":", 1)[1])

    def whole(self) -> None:
        """Wait until every arc has its replicas."""
        connection = rpyc.connect("127.0.0.1", self.port, config={"sync_request_timeout": 30})
        while any(problem for *_, problem in connection.root.verify()):
            time.sleep(0.1)
        connection.close()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def one_at_a_time(port: int, method: str, keys: int, seconds: float) -> list[float]:
    """Seconds that each call took."""
    connection = rpyc.connect("127.0.0.1", port, config={"sync_request_timeout": 30})
    call = getattr(connection.root, method)
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        key = f"key {random.randrange(keys)}"
        began = time.perf_counter()
        call(key, VALUE) if method == "put" else call(key)
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


def in_flight(port: int, method: str, keys: int, seconds: float) -> list[float]:
    """The same with 64 operations under way."""

    async def run(ring: AsyncRing) -> list[float]:
        taken: list[float] = []
        until = time.perf_counter() + seconds

        async def worker() -> None:
            while time.perf_counter() < until:
                key = f"key {random.randrange(keys)}"
                began = time.perf_counter()
                await (ring.put(key, VALUE) if method == "put" else ring.get(key))
                taken.append(time.perf_counter() - began)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        return taken

    return with_ring(port, run)


def in_batches(port: int, method: str, keys: int, seconds: float) -> list[float]:
    """Seconds that each batch took, one after the other; a batch counts as many times as it has keys."""

    async def run(ring: AsyncRing) -> list[float]:
        taken: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            names = [f"key {n}" for n in random.sample(range(keys), min(BATCH, keys))]
            began = time.perf_counter()
            if method == "put":
                await ring.put_many(dict.fromkeys(names, VALUE))
            else:
                await ring.get_many(names)
            taken += [time.perf_counter() - began] * len(names)
        return taken

    return with_ring(port, run)


def with_ring(port: int, work: Callable[[AsyncRing], Awaitable[T]]) -> T:
    """What comes of work with a client of its own."""

    async def run() -> T:
        async with await AsyncRing.connect(f"127.0.0.1:{port}", timeout=30) as ring:
            return await work(ring)

    result: T = uvloop.run(run())
    return result


async def fill(ring: AsyncRing, keys: int) -> None:
    """Store so many keys that nothing else touches."""
    for first in range(0, keys, 10 * BATCH):
        await ring.put_many({f"filled {n}": VALUE for n in range(first, min(first + 10 * BATCH, keys))})


MEASURES = {"one": one_at_a_time, f"{IN_FLIGHT}": in_flight, f"{BATCH:,}": in_batches}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options.add_argument("--keys", type=int, default=10_000)
    options.add_argument("--filled", type=int, default=0, metavar="N", help="other keys that there are before")
    options.add_argument("--ring", default="", help="measure only rings whose names begin so, as in 'chain fsync'")
    wanted = options.parse_args()
    there = f"{wanted.keys:,} keys of {wanted.keys + wanted.filled:,}"
    print(f"{os.cpu_count()} cores; three nodes, {there}, values of {len(VALUE)} bytes; times in ms")
    heads = ("put/s", "p50", "p99", "get/s", "p50", "p99")
    print(f"{'ring':24}{'':12}" + "".join(f"{head:>9}" for head in heads))
    for consistency, durability, k in itertools.product(("chain", "eventual"), ("fsync", "os"), (1, 2, 3)):
        name = f"{consistency} {durability} k={k}"
        if not name.startswith(wanted.ring):
            continue
        words = ("--consistency", consistency, "--durability", durability, "--replicas", str(k))
        with tempfile.TemporaryDirectory() as directory:
            ring = Ring(Path(directory), *words)
            try:
                ring.whole()
                with_ring(ring.port, partial(fill, keys=wanted.filled))
                for how, measure in MEASURES.items():
                    cells = ""
                    for method in ("put", "get"):
                        began = time.perf_counter()
                        taken = sorted(measure(ring.port, method, wanted.keys, wanted.seconds))
                        rate = len(taken) / (time.perf_counter() - began)
                        p50, p99 = (1000 * taken[int(len(taken) * share)] for share in (0.5, 0.99))
                        cells += f"{rate:>9,.0f}{p50:>9.2f}{p99:>9.2f}"
                    print(f"{name:24}{how:>12}{cells}", flush=True)
            finally:
                ring.close()


if __name__ == "__main__":
    main()
