"""Engines for the store, side by side: `python -m bench store [KEYS] [ENGINE ...]`.

Three stores on one disk, as three replicas would be, are written in turn with batches of 1,000 records of 100 B at
random positions; then one of them is read. LMDB is committed by a thread that groups what has queued up, as ours is.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from random import Random
from typing import Any

from node.identifiers import BITS, Arc, Identifier, Name, name_at
from node.store.interface import Batch
from node.store.rocks import open_store

BATCH = 1000
BODY = 100
READS = 20_000
SINGLE = 2_000


class Lmdb:
    """As much of a store on LMDB as is measured."""

    def __init__(self, path: Path, sync: bool) -> None:
        import lmdb

        self._env = lmdb.open(str(path), map_size=1 << 40, sync=sync, metasync=sync, max_readers=1024)
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_all, daemon=True)
        self._thread.start()

    def commit(self, batch: Batch) -> Awaitable[None]:
        future = self._loop.create_future()
        self._queue.put((batch, future))
        return future

    def _commit_all(self) -> None:
        while (item := self._queue.get()) is not None:
            group = [item]
            while not self._queue.empty() and len(group) < 64:
                group.append(self._queue.get())
            with self._env.begin(write=True) as transaction:
                for batch, _ in group:
                    for _, name, body in batch.changes:
                        transaction.put(name, body)
            self._loop.call_soon_threadsafe(lambda done=group: [f.set_result(None) for _, f in done])

    async def get(self, name: Name) -> bytes | None:
        with self._env.begin() as transaction:
            return transaction.get(name)

    async def count(self, arc: Arc) -> int:
        with self._env.begin() as transaction:
            return sum(1 for _ in transaction.cursor())

    async def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._env.close()


async def opened(engine: str, path: Path, durability: str) -> Any:
    """A store of either engine."""
    if engine == "lmdb":
        return Lmdb(path, durability == "fsync")
    store = await open_store(path)
    store.wait_for_disk(durability == "fsync")
    return store


def written() -> int:
    """Bytes this process has handed to the disk."""
    return int(
        next(line.split()[1] for line in Path("/proc/self/io").read_text().splitlines() if "write_bytes:" in line)
    )


async def measure(engine: str, durability: str, keys: int) -> list[str]:
    """One row of the table."""
    random = Random(1)
    with tempfile.TemporaryDirectory() as directory:
        stores = [await opened(engine, Path(directory) / str(n), durability) for n in range(3)]
        body, bytes_before, began = os.urandom(BODY), written(), time.perf_counter()
        names = []
        for _ in range(keys // BATCH):
            batch = Batch()
            for _ in range(BATCH):
                names.append(name_at(Identifier(random.getrandbits(BITS)), b"key"))
                batch.put(names[-1], body)
            await asyncio.gather(*(store.commit(batch) for store in stores))
        puts = keys / (time.perf_counter() - began)
        amount = (written() - bytes_before) / 1e9
        began = time.perf_counter()

        async def some(count: int) -> None:
            for _ in range(count):
                batch = Batch()
                batch.put(name_at(Identifier(random.getrandbits(BITS)), b"key"), body)
                await asyncio.gather(*(store.commit(batch) for store in stores))

        await asyncio.gather(*(some(SINGLE // 64) for _ in range(64)))
        single = SINGLE / (time.perf_counter() - began)
        wanted = random.choices(names, k=READS)
        began = time.perf_counter()
        for name in wanted:
            assert await stores[0].get(name) == body
        gets = READS / (time.perf_counter() - began)
        began = time.perf_counter()
        counted = await stores[0].count(Arc(Identifier(0), Identifier(0)))
        scan = counted / (time.perf_counter() - began)
        for store in stores:
            await store.close()
    return [engine, durability, f"{puts:,.0f}", f"{single:,.0f}", f"{gets:,.0f}", f"{scan:,.0f}", f"{amount:.2f}"]


def main() -> int:
    """Print the table."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    engines = sys.argv[2:] or ["rocksdb", "lmdb"]
    heads = ["engine", "durability", "puts/s in batches", "single puts/s, 64", "gets/s", "scan/s", "GB written"]
    print(f"{keys:,} keys of {BODY} B, three stores on one disk")
    print("  ".join(f"{head:>17}" for head in heads))
    for engine in engines:
        for durability in ("fsync", "os"):
            row = asyncio.run(measure(engine, durability, keys))
            print("  ".join(f"{cell:>17}" for cell in row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
