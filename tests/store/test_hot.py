"""Records remembered in memory: found as they are, forgotten before they change, and not too many of them."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from random import Random

import pytest

from node.identifiers import EVERYTHING, Name, name_of
from node.store import hot, rocks
from node.store.hot import HotRecords
from node.store.interface import Batch

NAMES = [name_of(b"key %d" % n) for n in range(12)]


def test_what_is_written_or_deleted_is_forgotten_and_nothing_else() -> None:
    records = HotRecords()
    records.learn(NAMES[:4], [b"0", b"1", None, b"3"])
    assert records.find(NAMES[:4]) == [b"0", b"1", None, b"3"]
    batch = Batch()
    batch.put(NAMES[0], b"other")
    batch.note("0", b"a note")
    batch.delete(NAMES[3])
    records.forget(batch)
    assert records.find(NAMES[:4]) == [None, b"1", None, None]
    batch.delete_arc(EVERYTHING)
    records.forget(batch)
    assert records.find(NAMES[:4]) == [None] * 4


def test_what_is_asked_for_again_stays_and_the_rest_goes_when_there_is_no_room() -> None:
    body = bytes(1000)
    records = HotRecords(room=10 * (len(NAMES[0]) + len(body) + hot.OVERHEAD))
    for n in range(1000):
        name = name_of(b"%d" % n)
        records.learn([name], [body])
        assert records.find([NAMES[0]]) == [body] if n else True
        records.learn(NAMES[:1], [body])
        assert records.find([name]) == [body]
    kept = [body for body in records.find([name_of(b"%d" % n) for n in range(1000)]) if body is not None]
    assert 5 <= len(kept) <= 20


def test_whatever_is_learnt_twice_or_in_parts_nothing_is_older_than_what_was_written_last() -> None:
    for seed in range(200):
        random = Random(seed)
        records = HotRecords(room=6 * (hot.OVERHEAD + 40))
        stored = dict.fromkeys(NAMES, b"0")
        for n in range(200):
            names = [random.choice(NAMES) for _ in range(random.choice((1, 3, 8)))]  # some of them twice
            if random.random() < 0.3:
                batch = Batch()
                for name in names:
                    stored[name] = b"%d" % n
                    batch.put(name, stored[name])
                records.forget(batch)
            else:
                found = records.find(names)
                assert all(body in (None, stored[name]) for name, body in zip(names, found, strict=True))
                if random.random() < 0.7:
                    records.learn(names, [stored[name] for name in names])  # another may have learnt them meanwhile


def test_one_record_that_is_read_again_and_again_leaves_room_for_others() -> None:
    records = HotRecords(room=10 * (hot.OVERHEAD + 40))
    records.learn(NAMES[:2], [b"0", b"1"])
    for _ in range(100):
        records.learn([NAMES[0]], [b"0"])
    assert records.find(NAMES[:2]) == [b"0", b"1"]


def test_two_cold_reads_of_the_same_leave_nothing_old_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        names = [name_of(b"%d" % n) for n in range(300)]
        batch = Batch()
        for name in names:
            batch.put(name, b"old" * 20_000)
        store = await rocks.open_store(tmp_path / "data")
        await store.commit(batch)
        await store.close()
        store = await rocks.open_store(tmp_path / "data")
        await asyncio.gather(store.get_many(names), store.get_many([*names, names[0]]))
        batch = Batch()
        for name in names:
            batch.put(name, b"new")
        await store.commit(batch)
        assert await store.get_many(names) == [b"new"] * 300
        await store.close()

    asyncio.run(scenario())


def test_large_bodies_are_not_kept() -> None:
    records = HotRecords()
    records.learn(NAMES[:1], [bytes(hot.LARGE)])
    assert records.find(NAMES[:1]) == [None]


@pytest.mark.parametrize("to_disk", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_read_is_never_older_than_a_commit_that_was_done_when_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_disk: bool, seed: int
) -> None:
    """Readers and writers of few keys side by side; every key counts up."""
    monkeypatch.setattr(rocks, "HotRecords", partial(HotRecords, 8 * (hot.OVERHEAD + 40)))
    random = Random(seed)
    written = dict.fromkeys(NAMES, 0)
    done = dict.fromkeys(NAMES, 0)

    async def scenario() -> None:
        store = await rocks.open_store(tmp_path / "data")
        store.wait_for_disk(to_disk)

        async def write() -> None:
            for _ in range(60):
                batch, values = Batch(), dict[Name, int]()
                for name in random.sample(NAMES, random.choice((1, 1, 3))):
                    written[name] = values[name] = written[name] + 1
                    batch.put(name, b"%d" % values[name])
                # large ones go by way of the thread, and small ones that come meanwhile behind them
                batch.note("large", bytes(random.choice((1, 1, 300_000))))
                await store.commit(batch)
                for name, value in values.items():
                    done[name] = max(done[name], value)
                await asyncio.sleep(random.choice((0, 0.0005)))

        async def read() -> None:
            for _ in range(400):
                names = random.sample(NAMES, random.choice((1, 4, 12)))
                least = [done[name] for name in names]
                found = store.peek_many(names) if random.random() < 0.5 else None
                found = found if found is not None else await store.get_many(names)
                for low, body, name in zip(least, found, names, strict=True):
                    assert low <= int(body or b"0") <= written[name]
                await asyncio.sleep(0)

        await asyncio.gather(*(write() for _ in range(3)), *(read() for _ in range(3)))
        assert await store.get_many(NAMES) == [b"%d" % done[name] if done[name] else None for name in NAMES]
        await store.close()

    asyncio.run(scenario())
