"""Cells, clocks and shelves on their own."""

from __future__ import annotations

import asyncio
from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.codec import Address
from node.errors import BadValue, OutcomeUnknown, Overloaded, RingError, StoreFull
from node.eventual.agreed_time import MICROS, AgreedTime
from node.eventual.cells import Cell, Written, context_of, merge
from node.eventual.messages import Deposit
from node.eventual.shelf import BUCKETS, Shelf, divided
from node.eventual.stamps import HybridClock, Stamp
from node.identifiers import EVERYTHING, RING, Arc, Identifier
from node.settings import Settings
from node.simulation.loop import run
from node.store.interface import Batch, Store
from node.store.memory import MemoryDisk, MemoryStore
from node.tasks import Tasks

stamps = st.builds(Stamp, st.integers(0, 5), st.integers(0, 3))
written = st.builds(Written, stamps, st.none() | st.just(b"v"), st.lists(stamps, max_size=2).map(tuple))
cells = st.lists(written, max_size=3, unique_by=lambda each: each.stamp).map(tuple)
arcs = st.builds(Arc, *[st.integers(0, RING - 1).map(Identifier)] * 2)


def merged_in_any_order(parts: list[Cell], *, siblings: bool) -> None:
    whole = merge(parts, siblings=siblings)
    assert merge([whole, whole], siblings=siblings) == whole
    for order in permutations(parts):
        grown: Cell = ()
        for cell in order:
            grown = merge([grown, cell], siblings=siblings)
        assert grown == whole


@given(st.lists(cells, min_size=1, max_size=4))
def test_the_last_writer_wins_in_any_order(parts: list[Cell]) -> None:
    consistent = {each.stamp: each for cell in parts for each in cell}  # a stamp names one write
    merged_in_any_order([tuple(consistent[each.stamp] for each in cell) for cell in parts], siblings=False)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=12))
def test_siblings_merge_in_any_order_whoever_wrote_over_what_they_read(steps: list[tuple[int, int, bool]]) -> None:
    """Three replicas; each step writes at one over what another holds, or blindly, or has one learn from another."""
    held: list[Cell] = [(), (), ()]
    for time, (at, source, writes) in enumerate(steps, start=1):
        if writes:
            write = Written(Stamp(time, at), b"%d" % time, context_of(held[source]))
            held[at] = merge([held[at], (write,)], siblings=True)
        else:
            held[at] = merge([held[at], held[source]], siblings=True)
    merged_in_any_order(held, siblings=True)


def test_what_was_read_is_replaced_and_what_was_written_meanwhile_stays() -> None:
    one, other = Written(Stamp(1, 1), b"one"), Written(Stamp(2, 2), b"other")
    over = Written(Stamp(3, 3), b"over one", context_of((one,)))
    assert merge([(one,), (other,), (over,)], siblings=True) == (over, other)
    both = Written(Stamp(4, 3), b"over both", context_of((over, other)))
    assert merge([(one,), (other,), (over,), (both,)], siblings=True) == (both,)
    assert merge([(one,), (both,)], siblings=True) == (both,), "who comes late with what was replaced twice"


def test_attempts_of_one_write_that_two_replicas_took_are_one() -> None:
    """Of the two, one replica knew what the value that was read had replaced."""
    first = Written(Stamp(1, 1), b"first")
    second = Written(Stamp(2, 2), b"second", context_of((first,)))
    aside = Written(Stamp(3, 4), b"aside")
    one = Written(Stamp(3, 1), b"third", context_of((second,)))
    other = Written(Stamp(3, 2), b"third", (second.stamp,))
    parts: list[Cell] = [(first,), (second,), (aside,), (one,), (other,)]
    merged_in_any_order(parts, siblings=True)
    assert merge(parts, siblings=True) == (aside, Written(other.stamp, b"third", one.context))
    over = Written(Stamp(4, 3), b"over", (other.stamp,))
    assert merge([merge([(one,), (other,)], siblings=True), (over,)], siblings=True) == (over,)


def test_stamps_grow_through_a_clock_that_is_set_back_and_refuse_the_far_future() -> None:
    now = [1000.0]

    async def scenario() -> None:
        clock = HybridClock(AgreedTime(lambda: now[0], 5.0), 5.0)
        first = clock.next()
        now[0] -= 3
        second = clock.next()
        clock.observe(1001 * MICROS)
        third = clock.next()
        assert first < second < third == 1001 * MICROS + 1
        with pytest.raises(BadValue, match="set the clock"):
            clock.observe(2000 * MICROS)
        assert clock.next() == third + 1, "what was refused was not seen"

    run(scenario())


def test_a_clock_far_from_the_others_is_not_believed() -> None:
    async def scenario() -> None:
        time = AgreedTime(lambda: 9e8, 5.0)
        assert time.micros() == 9e8 * MICROS, "alone it is all there is"
        for n in range(2):
            time.sampled(Address("10.0.0.1", n), 1000 * MICROS, asyncio.get_running_loop().time())
        assert time.micros() == 1000 * MICROS
        assert time.own() == 9e8 * MICROS

    run(scenario())


@given(arcs)
def test_an_arc_is_divided_without_gap_or_overlap(arc: Arc) -> None:
    pieces = divided(arc)
    assert pieces[0].start == arc.start and pieces[-1].end == arc.end
    assert all(one.end == other.start for one, other in pairwise(pieces))
    assert sum(piece.width for piece in pieces) == arc.width
    assert len(pieces) <= 17


async def shelf_of(
    disk: MemoryDisk, *, siblings: bool = False, store: Store | None = None, tasks: Tasks | None = None
) -> Shelf:
    clock = HybridClock(AgreedTime(lambda: 1e6, 5.0), 5.0)
    store, tasks = store or MemoryStore(disk, Random(1)), tasks or Tasks()
    shelf = Shelf(store, clock, Settings.profile("local"), tasks, Random(1), siblings=siblings)
    await shelf.load()
    return shelf


def test_a_disk_of_which_nobody_knows_what_it_has_ends_the_node_and_a_full_one_does_not() -> None:
    class Failing(MemoryStore):
        async def commit(self, batch: Batch, *, to_disk: bool | None = None) -> None:  # type: ignore[override]
            raise self.error

        error: RingError = StoreFull("no space")

    async def scenario() -> None:
        tasks, store = Tasks(), Failing(MemoryDisk(), Random(1))
        shelf = await shelf_of(MemoryDisk(), store=store, tasks=tasks)
        with pytest.raises(StoreFull):
            await shelf.merge([(b"key", (Written(Stamp(1, 1), b"v"),))], 0)
        assert not tasks.failed.done()
        store.error = OutcomeUnknown("the disk failed to confirm a write")
        with pytest.raises(OutcomeUnknown):
            await shelf.merge([(b"key", (Written(Stamp(1, 1), b"v"),))], 0)
        assert isinstance(tasks.failed.exception(), OutcomeUnknown)

    run(scenario())


def test_sums_tell_what_is_held_of_any_arc_also_after_a_restart() -> None:
    async def scenario() -> None:
        disk, random = MemoryDisk(), Random(5)
        shelf = await shelf_of(disk)
        keys = [b"key %d" % n for n in range(300)]
        for n, key in enumerate(keys):
            await shelf.write(Deposit(key, b"value", 1000 + n), 0)
            if n % 3 == 0:
                await shelf.write(Deposit(key, None, 5000 + n), 0)
        again = await shelf_of(disk)
        for _ in range(30):
            arc = Arc(Identifier(random.randrange(RING)), Identifier(random.randrange(RING)))
            inside = [n for n, key in enumerate(keys) if Identifier.of_key(key) in arc]
            total = await shelf.sum(arc)
            assert (total.records, total.living) == (len(inside), sum(n % 3 > 0 for n in inside))
            assert total == await again.sum(arc)
            parts = [await shelf.sum(piece) for piece in divided(arc)]
            added = sum(int.from_bytes(part.total, "big") for part in parts) % 2**128
            assert added == int.from_bytes(total.total, "big")
        assert (await shelf.sum(EVERYTHING)).records == 300

    run(scenario())


def test_a_late_attempt_of_a_write_changes_nothing() -> None:
    async def scenario() -> None:
        shelf = await shelf_of(MemoryDisk())
        first = Deposit(b"key", b"first", 1000)
        assert (await shelf.write(first, 0)).taken
        assert (await shelf.write(first, 0)).taken, "it is there already"
        assert (await shelf.write(Deposit(b"key", b"second", 1001), 0)).taken
        late = await shelf.write(first, 0)
        assert not late.taken and late.newest.time == 1001
        assert [written.value for written in (await shelf.read([b"key"]))[0]] == [b"second"]

    run(scenario())


def test_values_side_by_side_are_bounded() -> None:
    async def scenario() -> None:
        shelf = await shelf_of(MemoryDisk(), siblings=True)
        most = Settings.profile("local").most_siblings
        for n in range(most):
            await shelf.write(Deposit(b"key", b"value", 1000 + n), 0)
        with pytest.raises(Overloaded, match="write over them"):
            await shelf.write(Deposit(b"key", b"value", 9000), 0)
        (cell,) = await shelf.read([b"key"])
        assert len(cell) == most
        await shelf.write(Deposit(b"key", b"one", 9001, context_of(cell)), 0)
        assert [written.value for written in (await shelf.read([b"key"]))[0]] == [b"one"]

    run(scenario())


def test_who_writes_over_a_version_writes_over_what_that_had_replaced() -> None:
    """A client names versions; what those replaced is known by the replica, and may still be somewhere else."""

    async def scenario() -> None:
        shelf = await shelf_of(MemoryDisk(), siblings=True)
        first = Written(Stamp(1000, 7), b"first")
        second = Written(Stamp(2000, 8), b"second", context_of((first,)))
        await shelf.merge([(b"key", (second,))], 0)
        await shelf.write(Deposit(b"key", b"third", 3000, (second.stamp,)), 0)
        await shelf.merge([(b"key", (first,))], 0)
        assert [written.value for written in (await shelf.read([b"key"]))[0]] == [b"third"]

    run(scenario())


def test_who_writes_over_a_version_leaves_what_stands_beside_it() -> None:
    async def scenario() -> None:
        shelf = await shelf_of(MemoryDisk(), siblings=True)
        for n, value in enumerate((b"milk", b"bread", b"butter")):
            await shelf.write(Deposit(b"cart", value, 1000 + n), 0)
        for n in range(30):
            newest, *others = (await shelf.read([b"cart"]))[0]
            await shelf.write(Deposit(b"cart", b"%d" % n, 2000 + n, (newest.stamp,)), 0)
            assert [each.value for each in others] == [b"bread", b"milk"]
        (cell,) = await shelf.read([b"cart"])
        assert len(context_of(cell)) == 3, "as many writers as stood side by side"

    run(scenario())


def test_only_what_is_still_as_listed_is_dropped() -> None:
    async def scenario() -> None:
        shelf = await shelf_of(MemoryDisk())
        for key in (b"one", b"other"):
            await shelf.write(Deposit(key, b"value", 1000), 0)
        listed = await shelf.listing(EVERYTHING, 0)
        await shelf.write(Deposit(b"other", b"newer", 2000), 0)
        await shelf.drop(listed.items())
        assert [bool(cell) for cell in await shelf.read([b"one", b"other"])] == [False, True]
        assert (await shelf.sum(EVERYTHING)).records == 1
        assert shelf.next_held(0) == int(Identifier.of_key(b"other")) // (RING // BUCKETS) * (RING // BUCKETS)

    run(scenario())
