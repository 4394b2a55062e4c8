"""The simulated disk alone: crashes, a full disk, and the same run from the same seed."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from node.errors import StoreFull
from node.identifiers import Arc, Identifier, name_at
from node.simulation.loop import run
from node.store.interface import Batch
from node.store.memory import MemoryDisk, MemoryStore

EVERYTHING = Arc(Identifier(0), Identifier(0))


def batch(n: int) -> Batch:
    made = Batch()
    made.put(name_at(Identifier(n), b"a"), b"v")
    made.put(name_at(Identifier(n), b"b"), b"v")
    made.note("last", b"%d" % n)
    return made


@pytest.mark.parametrize("seed", range(10))
def test_a_crash_loses_the_tail_that_was_not_durable_and_nothing_else(seed: int) -> None:
    async def scenario() -> int:
        disk = MemoryDisk()
        store = MemoryStore(disk, Random(seed), latency=0.01)
        commits = []
        for n in range(50):
            commits.append(asyncio.ensure_future(store.commit(batch(n))))
            await asyncio.sleep(0.001)
        disk.crash()
        done = sum(commit.done() for commit in commits)
        assert all(commit.done() == (n < done) for n, commit in enumerate(commits)), "in the order of calls"
        again = MemoryStore(disk, Random(seed))
        await asyncio.sleep(10)
        assert sum(commit.done() for commit in commits) == done, "nobody is told about what is lost"
        assert await again.count(EVERYTHING) == 2 * done, "and it does not come back"
        assert await again.read_note("last") == (b"%d" % (done - 1) if done else None)
        await again.commit(batch(99))
        assert await again.get(name_at(Identifier(99), b"b")) == b"v"
        return done

    done = run(scenario(), seed=seed)
    assert done < 50, "some were under way"
    assert done == run(scenario(), seed=seed), "the same seed, the same loss"


def test_a_full_disk_refuses_commits_whole_and_serves_reads() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        store = MemoryStore(disk, Random(1))
        await store.commit(batch(1))
        disk.full = True
        with pytest.raises(StoreFull):
            await store.commit(batch(2))
        assert await store.get(name_at(Identifier(1), b"a")) == b"v"
        assert await store.get(name_at(Identifier(2), b"a")) is None
        assert await store.read_note("last") == b"1"
        disk.full = False
        await store.commit(batch(2))
        assert await store.get(name_at(Identifier(2), b"a")) == b"v"
        disk.full = True
        await store.close()

    run(scenario())


def test_a_snapshot_lives_through_wiping_and_further_commits() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        store = MemoryStore(disk, Random(1))
        await store.commit(batch(1))
        one = await store.snapshot()
        await store.commit(batch(2))
        two = await store.snapshot()
        disk.wipe()
        assert [len((await each.scan(EVERYTHING, None, 1000))[0]) for each in (one, two)] == [2, 4]
        assert await store.count(EVERYTHING) == 0

    run(scenario())
