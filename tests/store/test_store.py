"""What every store promises, claimed of the real engine and of the simulated disk alike."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.errors import Unavailable
from node.identifiers import RING, Arc, Identifier, Name, key_in, name_at, position_of
from node.store.interface import Batch, Record, Store
from node.store.memory import MemoryDisk, MemoryStore
from node.store.rocks import open_store

EVERYTHING = Arc(Identifier(0), Identifier(0))


class Rocks:
    """The real engine in a directory of its own."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()

    async def open(self) -> Store:
        return await open_store(Path(self._directory.name) / "data")


class Memory:
    """The simulated disk."""

    def __init__(self) -> None:
        self._disk = MemoryDisk()

    async def open(self) -> Store:
        return MemoryStore(self._disk, Random(1))


@pytest.fixture(params=[Rocks, Memory])
def disk(request: pytest.FixtureRequest) -> Any:
    return request.param()


def run(disk: Any, scenario: Callable[[Store], Awaitable[None]]) -> None:
    """Run a scenario on an open store and close it."""

    async def whole() -> None:
        store = await disk.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


def at(point: int) -> Identifier:
    return Identifier(point % RING)


def putting(*records: tuple[int, bytes, bytes]) -> Batch:
    batch = Batch()
    for point, key, body in records:
        batch.put(name_at(at(point), key), body)
    return batch


async def content(store: Store, arc: Arc = EVERYTHING, limit: int = 1 << 20) -> list[Record]:
    """Everything in an arc, chunk by chunk."""
    snapshot = await store.snapshot()
    found: list[Record] = []
    after: Name | None = None
    while True:
        chunk, after = await snapshot.scan(arc, after, limit)
        found += chunk
        if after is None:
            await snapshot.close()
            return found


def test_what_is_committed_is_read(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        assert await store.get(name_at(at(1), b"k")) is None
        await store.commit(putting((1, b"k", b"v"), (1, b"", b"empty key"), (-1, b"k", b"last")))
        assert await store.get(name_at(at(1), b"k")) == b"v"
        names = [name_at(at(1), b""), name_at(at(2), b"k"), name_at(at(-1), b"k")]
        assert await store.get_many(names) == [b"empty key", None, b"last"]
        assert await store.get_many([]) == []
        removal = Batch()
        removal.delete(name_at(at(1), b"k"))
        removal.delete(name_at(at(7), b"never there"))
        await store.commit(removal)
        assert await store.get(name_at(at(1), b"k")) is None

    run(disk, scenario)


def test_the_order_of_calls_is_the_order_of_commits(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        await asyncio.gather(*(store.commit(putting((5, b"k", b"%d" % n))) for n in range(200)))
        assert await store.get(name_at(at(5), b"k")) == b"199"

    run(disk, scenario)


def test_the_order_in_a_batch_counts(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        batch = putting((5, b"gone", b"1"))
        batch.delete_arc(EVERYTHING)
        batch.put(name_at(at(5), b"kept"), b"2")
        batch.note("holdings", b"n")
        await store.commit(batch)
        assert [key_in(r.name) for r in await content(store)] == [b"kept"]
        assert await store.read_note("holdings") == b"n", "notes are in no arc"

    run(disk, scenario)


@pytest.mark.parametrize("arc", [Arc(at(10), at(20)), Arc(at(-5), at(5)), Arc(at(20), at(20)), Arc(at(-10), at(-1))])
def test_an_arc_is_scanned_counted_and_deleted_clockwise_from_its_start(disk: Any, arc: Arc) -> None:
    async def scenario(store: Store) -> None:
        points = [*range(-12, 25)]
        await store.commit(putting(*((p, b"k%d" % p, b"x" * 50) for p in points)))
        inside = sorted((at(p) for p in points if at(p) in arc), key=lambda p: arc.start.distance_to(p) or RING)
        for limit in (1, 200, 1 << 20):
            assert [position_of(record.name) for record in await content(store, arc, limit)] == inside
        assert await store.count(arc) == len(inside)
        batch = Batch()
        batch.delete_arc(arc)
        await store.commit(batch)
        assert await store.count(arc) == 0
        assert await store.count(EVERYTHING) == len(points) - len(inside)

    run(disk, scenario)


def test_a_snapshot_is_one_moment(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        await store.commit(putting(*((n, b"k", b"old") for n in range(100))))
        snapshot = await store.snapshot()
        first, after = await snapshot.scan(EVERYTHING, None, 100)
        change = putting((50, b"k", b"new"), (50, b"l", b"new"))
        change.delete(name_at(at(60), b"k"))
        await store.commit(change)
        rest: list[Record] = []
        while after is not None:
            chunk, after = await snapshot.scan(EVERYTHING, after, 100)
            rest += chunk
        await snapshot.close()
        assert len(first) + len(rest) == 100
        assert {record.body for record in (*first, *rest)} == {b"old"}
        assert len(await content(store)) == 100

    run(disk, scenario)


def test_a_cancelled_commit_does_not_disturb_the_others(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        one, two = (asyncio.ensure_future(store.commit(putting((n, b"k", b"v")))) for n in (1, 2))
        one.cancel()
        await two
        assert await store.get(name_at(at(2), b"k")) == b"v"

    run(disk, scenario)


def test_it_is_all_there_after_closing_and_opening(disk: Any) -> None:
    async def write(store: Store) -> None:
        batch = putting((1, b"k", b"v" * 100_000))
        batch.note("identity", b"me")
        await store.commit(batch)

    async def read(store: Store) -> None:
        assert await store.get(name_at(at(1), b"k")) == b"v" * 100_000
        assert await store.read_note("identity") == b"me"
        assert await store.read_note("other") is None

    run(disk, write)
    run(disk, read)


def test_notes_are_found_by_prefix_and_forgotten(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        batch = Batch()
        for name in ("log/2/a", "log/10/b", "log/1", "logs", "lo", "é"):
            batch.note(name, name.encode())
        batch.put(name_at(Identifier(1), b"log/3"), b"no note")
        await store.commit(batch)
        assert list((await store.read_notes("log/")).items()) == [
            (n, n.encode()) for n in ("log/1", "log/10/b", "log/2/a")
        ]
        batch = Batch()
        batch.forget("log/1")
        batch.forget("nothing")
        batch.forget_all("log/2")
        batch.note("log/2/new", b"behind")
        await store.commit(batch)
        assert list(await store.read_notes("")) == ["lo", "log/10/b", "log/2/new", "logs", "é"]
        assert await store.get(name_at(Identifier(1), b"log/3")) == b"no note"

    run(disk, scenario)


def test_the_largest_record(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        body = b"x" * (4 << 20)
        await store.commit(putting((1, b"k" * 4096, body), (2, b"k", body)))
        assert await store.get(name_at(at(1), b"k" * 4096)) == body
        snapshot = await store.snapshot()
        first, after = await snapshot.scan(EVERYTHING, None, 1 << 20)
        assert len(first) == 1
        second, after = await snapshot.scan(EVERYTHING, after, 0)
        assert (first + second)[1].body == body and after is None
        await snapshot.close()

    run(disk, scenario)


def test_a_batch_is_taken_in_as_it_is_when_committed(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        batch = putting((1, b"k", b"v"))
        done = store.commit(batch)
        batch.delete(name_at(at(1), b"k"))
        await done
        assert await store.get(name_at(at(1), b"k")) == b"v"

    run(disk, scenario)


def test_after_closing_commits_are_refused_and_closing_again_is_nothing(disk: Any) -> None:
    async def scenario(store: Store) -> None:
        await store.close()
        with pytest.raises(Unavailable):
            await store.commit(putting((1, b"k", b"v")))

    run(disk, scenario)


def test_closing_waits_for_what_was_committed(disk: Any) -> None:
    async def write(store: Store) -> None:
        for n in range(50):
            store.commit(putting((n, b"k", b"v")))

    async def read(store: Store) -> None:
        assert await store.count(EVERYTHING) == 50

    run(disk, write)
    run(disk, read)


change = st.one_of(
    st.tuples(st.just("put"), st.integers(-3, 3), st.binary(max_size=2), st.binary(max_size=3)),
    st.tuples(st.just("delete"), st.integers(-3, 3), st.binary(max_size=2)),
    st.tuples(st.just("delete_arc"), st.integers(-4, 4), st.integers(-4, 4)),
    st.tuples(st.just("note"), st.sampled_from("ab"), st.binary(max_size=3)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(change, max_size=6), max_size=8), arc=st.tuples(st.integers(-4, 4), st.integers(-4, 4))
)
def test_it_behaves_as_a_dictionary(disk: Any, batches: list[list[tuple[Any, ...]]], arc: tuple[int, int]) -> None:
    model: dict[tuple[Identifier, bytes], bytes] = {}
    notes = {"a": b"", "b": b""}

    def batch_of(changes: list[tuple[Any, ...]]) -> Batch:
        nonlocal model
        batch = Batch()
        for kind, *what in changes:
            match kind:
                case "put":
                    batch.put(name_at(at(what[0]), what[1]), what[2])
                    model[at(what[0]), what[1]] = what[2]
                case "delete":
                    batch.delete(name_at(at(what[0]), what[1]))
                    model.pop((at(what[0]), what[1]), None)
                case "delete_arc":
                    gone = Arc(at(what[0]), at(what[1]))
                    batch.delete_arc(gone)
                    model = {name: body for name, body in model.items() if name[0] not in gone}
                case "note":
                    batch.note(what[0], what[1])
                    notes[what[0]] = what[1]
        return batch

    async def write(store: Store) -> None:
        start = Batch()
        start.delete_arc(EVERYTHING)
        for name, body in notes.items():
            start.note(name, body)
        await asyncio.gather(store.commit(start), *(store.commit(batch_of(each)) for each in batches))
        await same(store)

    async def same(store: Store) -> None:
        part = Arc(at(arc[0]), at(arc[1]))
        inside = {name: body for name, body in model.items() if name[0] in part}
        order = sorted(inside, key=lambda name: (part.start.distance_to(name[0]) or RING, name[1]))
        found = await content(store, part, limit=30)
        assert [(position_of(r.name), key_in(r.name)) for r in found] == order
        assert {(position_of(r.name), key_in(r.name)): r.body for r in found} == inside
        assert await store.count(part) == len(inside)
        names = [(at(point), key) for point in range(-4, 5) for key in (b"", b"\x00", b"a")]
        assert await store.get_many([name_at(*name) for name in names]) == [model.get(name) for name in names]
        assert {name: await store.read_note(name) for name in notes} == notes

    run(disk, write)
    run(disk, same)
