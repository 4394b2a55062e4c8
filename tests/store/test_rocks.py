"""The real engine alone: kill -9, a full disk, directories that are not ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from node.errors import BadUsage, DirectoryDamaged, DirectoryInUse, StoreFull
from node.identifiers import Arc, Identifier
from node.store.interface import Batch
from node.store.rocks import open_store

EVERYTHING = Arc(Identifier(0), Identifier(0))

WRITER = """
import asyncio, sys
from pathlib import Path
from node.identifiers import Identifier
from node.store.interface import Batch
from node.store.rocks import open_store

async def main():
    store = await open_store(Path(sys.argv[1]), durability=sys.argv[2])
    async def one(n):
        batch = Batch()
        for half in (b"a", b"b"):
            batch.put(Identifier(n), half, b"x" * 100)
        await store.commit(batch)
        print(n, flush=True)
    n = 0
    while True:
        await asyncio.gather(*(one(n + i) for i in range(16)))
        n += 16

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_every_acknowledged_batch_survives_kill_and_none_is_there_by_half(tmp_path: Path, durability: str) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path / "data"), durability]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(300)]
    process.kill()
    acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()

    async def check() -> None:
        store = await open_store(tmp_path / "data")
        snapshot = await store.snapshot()
        records, _ = await snapshot.scan(EVERYTHING, None, 1 << 30)
        await snapshot.close()
        await store.close()
        halves: dict[int, set[bytes]] = {}
        for record in records:
            halves.setdefault(int(record.position), set()).add(record.key)
        assert set(acknowledged) <= set(halves)
        assert all(found == {b"a", b"b"} for found in halves.values())

    asyncio.run(check())


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from node.errors import StoreFull
from node.identifiers import Identifier
from node.store.interface import Batch
from node.store.rocks import open_store

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await open_store(Path(sys.argv[1]))
    async def put(n):
        batch = Batch()
        batch.put(Identifier(n), b"k", bytes([n % 256]) * 10_000)
        await store.commit(batch)
    for n in range(20):
        await put(n)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    done, refused = 20, 0
    for n in range(20, 120):
        try:
            await put(n)
            done = n + 1
        except StoreFull as error:
            refused += 1
            assert str(Path(sys.argv[1])) in str(error)
            assert await store.get(Identifier(0), b"k") == bytes([0]) * 10_000
    assert refused, "the limit was never met"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await put(500)
    await store.close()
    store = await open_store(Path(sys.argv[1]))
    assert await store.get(Identifier(500), b"k")
    for n in range(20):
        assert await store.get(Identifier(n), b"k") == bytes([n]) * 10_000
    await store.close()
    print("refused", refused)

asyncio.run(main())
"""


def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the end of the disk: the log cannot grow any more."""
    words = [sys.executable, "-c", FULL, str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"refused \d+", done.stdout)


def test_a_directory_is_one_process_s_and_free_when_it_dies(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path / "data"), "os"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(DirectoryInUse, match=str(process.pid)):
        asyncio.run(open_store(tmp_path / "data"))
    process.kill()
    process.wait()

    async def again() -> None:
        await (await open_store(tmp_path / "data")).close()

    asyncio.run(again())


def test_directories_that_are_not_ours(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DirectoryDamaged, match=r"photo\.jpg"):
        asyncio.run(open_store(theirs))
    assert sorted(path.name for path in theirs.iterdir()) == ["photo.jpg"]
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BadUsage):
        asyncio.run(open_store(tmp_path / "file"))


def test_a_damaged_store_says_so_and_lets_go_of_the_directory(tmp_path: Path) -> None:
    async def make() -> None:
        store = await open_store(tmp_path / "data")
        batch = Batch()
        batch.put(Identifier(1), b"k", b"v")
        await store.commit(batch)
        await store.close()

    asyncio.run(make())
    (tmp_path / "data" / "db" / "CURRENT").write_bytes(os.urandom(40))
    for _ in range(2):
        with pytest.raises(DirectoryDamaged, match="data"):
            asyncio.run(open_store(tmp_path / "data"))


def test_the_error_of_a_full_store_is_definite() -> None:
    from node.errors import Definite

    assert issubclass(StoreFull, Definite)
