"""The real engine alone: kill -9, a full disk, directories that are not ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from node.errors import BadUsage, DirectoryDamaged, DirectoryInUse, Unavailable
from node.identifiers import Arc, Identifier, key_in, name_at, position_of
from node.store.interface import Batch
from node.store.rocks import open_store

EVERYTHING = Arc(Identifier(0), Identifier(0))

WRITER = """
import asyncio, sys
from pathlib import Path
from node.identifiers import Identifier, name_at
from node.store.interface import Batch
from node.store.rocks import open_store

async def main():
    store = await open_store(Path(sys.argv[1]))
    store.wait_for_disk(sys.argv[2] == "fsync")
    async def one(n):
        batch = Batch()
        for half in (b"a", b"b"):
            batch.put(name_at(Identifier(n), half), b"x" * 100)
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
            halves.setdefault(int(position_of(record.name)), set()).add(key_in(record.name))
        assert set(acknowledged) <= set(halves)
        assert all(found == {b"a", b"b"} for found in halves.values())

    asyncio.run(check())


FILL = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from node.errors import StoreFull
from node.identifiers import Arc, Identifier, name_at
from node.store.interface import Batch
from node.store.rocks import open_store

root, told, kind = Path(sys.argv[1]), open(sys.argv[2], "w"), sys.argv[3]
BALLAST = root / "ballast"
EVERYTHING = Arc(Identifier(0), Identifier(0))

def limit(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    if kind == "tmpfs":
        BALLAST.write_bytes(bytes(30 << 20))
    store = await open_store(root / "data")
    counts = {"stored": 0, "refused": 0}
    async def put(n, size=20_000):
        batch = Batch()
        for half in (b"a", b"b"):
            batch.put(name_at(Identifier(n), half), bytes([n % 256]) * size)
        try:
            await store.commit(batch)
        except StoreFull as error:
            assert str(root / "data") in str(error) and "free space" in str(error)
            outcome = "refused"
        else:
            outcome = "stored"
        counts[outcome] += 1
        print(outcome, n, file=told, flush=True)
    await put(0)
    if kind == "limit":
        limit(400_000)
    snapshot = await store.snapshot()
    n = 1
    while not counts["refused"] and n < 5000:
        await asyncio.gather(*(put(n + i) for i in range(8)))
        n += 8
    assert counts["refused"], "it never got full"
    for _ in range(5):
        assert await store.get(name_at(Identifier(0), b"a")) == bytes(20_000)
        assert await store.count(EVERYTHING) >= 2
        await put(n)
        n += 1
    before = counts["stored"]
    if kind == "tmpfs":
        BALLAST.unlink()
    else:
        limit(resource.RLIM_INFINITY)
    await put(n, 100)
    await put(n + 1, 100)
    assert counts["stored"] == before + 2, "there is room, and it does not write"
    assert await store.get(name_at(Identifier(n), b"b")) is not None
    assert await store.get(name_at(Identifier(0), b"a")) == bytes(20_000)
    told.close()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

CHECK = """
import asyncio, sys
from pathlib import Path
from node.identifiers import Arc, Identifier, key_in, position_of
from node.store.rocks import open_store

async def main():
    store = await open_store(Path(sys.argv[1]) / "data")
    snapshot = await store.snapshot()
    records, _ = await snapshot.scan(Arc(Identifier(0), Identifier(0)), None, 1 << 30)
    halves = {}
    for record in records:
        halves.setdefault(int(position_of(record.name)), []).append(key_in(record.name))
    assert all(each == [b"a", b"b"] for each in halves.values())
    told = [line.split() for line in open(sys.argv[2])]
    for outcome, n in told:
        assert (int(n) in halves) == (outcome == "stored"), (outcome, n)
    await store.close()
    print("checked", len(told))

asyncio.run(main())
"""


def can_mount() -> bool:
    """True if a small file system can be had that vanishes with its process."""
    try:
        words = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["tmpfs", "limit"])
def test_a_full_disk_refuses_writes_serves_reads_and_recovers(tmp_path: Path, kind: str) -> None:
    """tmpfs: a real small disk. limit: no file may grow, an error that RocksDB never gets over by itself.

    Then the writer is killed: all that was acknowledged is there, and nothing of what was refused.
    """
    if kind == "tmpfs" and not can_mount():
        pytest.skip("this user may not mount a tmpfs in a namespace of its own (unshare -rm)")
    root = tmp_path / "disk"
    root.mkdir()
    both = ' "$0" -c "$1" "$3" "$4" "$5"; test $? = 137 && exec "$0" -c "$2" "$3" "$4"'
    mounted = 'mount -t tmpfs -o size=48m none "$3" &&' if kind == "tmpfs" else ""
    words = ["sh", "-c", mounted + both, sys.executable, FILL, CHECK, str(root), str(tmp_path / "told"), kind]
    words = ["unshare", "-rm", *words] if kind == "tmpfs" else words
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"checked \d+", done.stdout)


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
        batch.put(name_at(Identifier(1), b"k"), b"v")
        await store.commit(batch)
        await store.close()

    asyncio.run(make())
    (tmp_path / "data" / "db" / "CURRENT").write_bytes(os.urandom(40))
    for _ in range(2):
        with pytest.raises(DirectoryDamaged, match="data"):
            asyncio.run(open_store(tmp_path / "data"))


def test_a_scan_that_meets_a_damaged_block_fails_and_does_not_end_early(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await open_store(tmp_path / "data")
        for n in range(20):
            batch = Batch()
            for i in range(1000):
                batch.put(name_at(Identifier.of_key(b"%d/%d" % (n, i)), b"k"), os.urandom(100))
            await store.commit(batch)
        await store.close()
        for table in (tmp_path / "data" / "db").glob("*.sst"):
            with table.open("r+b") as file:
                file.seek(table.stat().st_size // 2)
                file.write(b"\xff" * 64)
        store = await open_store(tmp_path / "data")
        snapshot = await store.snapshot()
        with pytest.raises(Unavailable, match="checksum"):
            await snapshot.scan(EVERYTHING, None, 1 << 30)
        with pytest.raises(Unavailable, match="checksum"):
            await store.count(EVERYTHING)
        await snapshot.close()
        await store.close()

    asyncio.run(scenario())


def test_what_no_cache_holds_is_read_from_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await open_store(tmp_path / "data")
        batch = Batch()
        for n in range(5000):
            batch.put(name_at(Identifier(n), b"k"), b"old%d" % n)
        await store.commit(batch)
        await store.close()
        store = await open_store(tmp_path / "data")
        change = Batch()
        change.put(name_at(Identifier(7), b"k"), b"new")
        change.delete(name_at(Identifier(8), b"k"))
        change.delete_arc(Arc(Identifier(9), Identifier(20)))
        await store.commit(change)
        expected = [b"old%d" % n for n in range(5000)] + [None] * 10
        expected[7:21] = [b"new", None, b"old9", *[None] * 11]
        names = [name_at(Identifier(n), b"k") for n in range(5010)]
        assert await asyncio.gather(*(store.get(name) for name in names[:300])) == expected[:300]
        for some in (names, names[:100], names[4990:]):
            assert await store.get_many(some) == [expected[position_of(name)] for name in some]
        await store.close()

    asyncio.run(scenario())


def test_closing_ends_open_snapshots_and_frees_the_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await open_store(tmp_path / "data")
        snapshot = await store.snapshot()
        await store.close()
        await store.close()
        with pytest.raises(Unavailable):
            await snapshot.scan(EVERYTHING, None, 1)
        with pytest.raises(Unavailable):
            await store.get(name_at(Identifier(1), b"k"))
        await (await open_store(tmp_path / "data")).close()

    asyncio.run(scenario())


def test_a_directory_of_another_version_and_one_begun_and_left(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rpychord-store").write_text("99\n")
    with pytest.raises(DirectoryDamaged, match="another version"):
        asyncio.run(open_store(other))
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "LOCK.rpychord").write_text("1\n")
    (begun / "rpychord-store.new").write_text("")

    async def take() -> None:
        await (await open_store(begun)).close()

    asyncio.run(take())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadUsage, match="Permission denied"):
        asyncio.run(open_store(tmp_path / "data"))


def test_a_new_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    async def make() -> None:
        await (await open_store(tmp_path / "deep" / "data")).close()

    asyncio.run(make())
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700
