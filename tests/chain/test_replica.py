"""One replica on a simulated disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from node.chain.history import log_prefix
from node.chain.messages import Change, Command, Logged, Operation, Outcome, ReplicaState
from node.chain.replica import Replica
from node.chain.replicas import Replicas
from node.chain.ring_map import Entry
from node.codec import pack
from node.data import Stored
from node.errors import Moved, StoreFull
from node.identifiers import Arc, Identifier, Name, name_of
from node.simulation.loop import run
from node.store.interface import Batch
from node.store.memory import MemoryDisk, MemoryStore

ME, CLIENT = b"m" * 16, b"c" * 16
WHOLE = Arc(Identifier(0), Identifier(0))


def operation(number: int, slot: int = 0) -> Operation:
    return Operation(CLIENT, slot, number)


def command(version: tuple[int, int], number: int, key: bytes = b"k", slot: int = 0) -> Command:
    change = Change(name_of(key), pack(Stored(version, b"%d" % number)))
    return Command(version, operation(number, slot), (change,), Outcome())


async def replicas_on(disk: MemoryDisk) -> Replicas:
    replicas = Replicas(MemoryStore(disk, Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
    await replicas.load()
    return replicas


async def alone(disk: MemoryDisk) -> tuple[Replicas, Replica]:
    """A chain of one that holds everything."""
    replicas = await replicas_on(disk)
    return replicas, await replicas.found(Entry(WHOLE, 1, (ME,)))


def test_of_two_operations_of_a_slot_the_later_one_is_remembered_wherever_it_stands() -> None:
    """Arcs that are merged bring logs that do not follow each other."""

    async def scenario() -> None:
        log = {n: Logged((1, n), operation(number), (), Outcome(), 0.0) for n, number in ((1, 31), (2, 30))}
        state = ReplicaState(WHOLE, 2, (ME,), 1, (2, 0))
        store = MemoryStore(MemoryDisk(), Random(1))
        replica = Replica(store, asyncio.ensure_future, lambda: 0.0, 1, ME, state, log)
        assert replica.log.remembers(operation(31)) is log[1]

    run(scenario())


def test_a_command_that_reaches_the_disk_while_it_is_read_counts() -> None:
    """The read may have begun before, and what it finds is older than what was ordered before it."""

    class Slow(MemoryStore):
        async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
            found = await super().get_many(names)
            await asyncio.sleep(1)
            return found

    async def scenario() -> None:
        replicas = Replicas(Slow(MemoryDisk(), Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
        await replicas.load()
        replica = await replicas.found(Entry(WHOLE, 1, (ME,)))
        await replica.take((command((1, 1), 1),))
        taken = replica.take((command((1, 2), 2),))
        current = await replica.current((name_of(b"k"), name_of(b"another")))
        assert taken.done()
        assert current == {name_of(b"k"): Stored((1, 2), b"2"), name_of(b"another"): None}
        replica.take((command((1, 3), 3),))
        assert await replica.current((name_of(b"k"),)) == {name_of(b"k"): Stored((1, 3), b"3")}

    run(scenario())


def test_a_command_made_anew_comes_with_the_one_that_has_just_reached_the_disk() -> None:
    """It is found there before the commit is answered."""

    class Late(MemoryStore):
        async def commit(self, batch: Batch, *, to_disk: bool | None = None) -> None:  # type: ignore[override]
            await super().commit(batch, to_disk=to_disk)
            await asyncio.sleep(1)

    async def scenario() -> None:
        disk = MemoryDisk()
        head = await (await replicas_on(disk)).found(Entry(WHOLE, 1, (ME, bytes(16))))
        await head.take((command((1, 1), 1),))
        disk.crash()
        replicas = Replicas(Late(disk, Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
        await replicas.load()
        (replica,) = replicas
        taken = replica.take((command((1, 2), 2, slot=1),))
        await asyncio.sleep(0.5)
        first, *others = await replica.commands_after((1, 0))
        bodies = [change.body for each in (first, *others) for change in each.changes]
        assert [each.version for each in others] == [(1, 2)], "what the first wrote was written over by the second"
        assert first.overtaken and bodies == [pack(Stored((1, 2), b"2"))]
        await taken

    run(scenario())


def test_what_was_acknowledged_is_there_after_a_restart_with_its_operation() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        _, replica = await alone(disk)
        await replica.take((command((1, 1), 5), command((1, 2), 6)))
        disk.crash()
        (again,) = await replicas_on(disk)
        assert again.position == (1, 2)
        remembered = again.log.remembers(operation(6))
        assert remembered is not None and remembered.version == (1, 2)
        assert [each.version for each in await again.commands_after((1, 0))] == [(1, 1), (1, 2)]

    run(scenario())


def test_a_log_does_not_grow_with_writes_that_are_stable() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        _, replica = await alone(disk)
        replica.make_stable(replica.position)
        for n in range(1, 200):
            await replica.take((command((1, n), n, b"k%d" % n, slot=n % 3),))
        names = [name for name in disk.notes if name.startswith(log_prefix(replica.uid))]
        assert len(names) < 10

    run(scenario())


def test_a_change_before_the_waiting_begins_is_not_missed() -> None:
    """A link asks for the next change and waits for it in a task: a write that falls between the two is not stuck."""

    async def scenario() -> None:
        _, replica = await alone(MemoryDisk())
        change = asyncio.ensure_future(replica.changes())
        replica.make_stable((7, 1))
        await asyncio.wait_for(change, 1)

    run(scenario())


def test_a_full_disk_refuses_all_that_was_ordered_and_the_replica_goes_on_where_it_was() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        _, replica = await alone(disk)
        await replica.take((command((1, 1), 1),))
        disk.full = True
        taken = [replica.take((command((1, n), n),)) for n in (2, 3)]
        for each in taken:
            with pytest.raises(StoreFull):
                await each
        assert replica.ordered == replica.position == (1, 1)
        remembered = replica.log.remembers(operation(3))
        assert remembered is not None and remembered.version == (1, 1)
        disk.full = False
        await replica.take((command((1, 2), 4),))
        assert replica.position == (1, 2)

    run(scenario())


def test_a_sealed_replica_says_how_far_it_goes_once_that_is_on_its_disk() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        replicas, replica = await alone(disk)
        taken = replica.take((command((1, 1), 1),))
        sealed = await replicas.seal(WHOLE, 1)
        assert taken.done() and sealed.position == (1, 1) and not replica.follows
        disk.crash()
        (again,) = await replicas_on(disk)
        assert again.state.sealed == 1 and not again.follows

    run(scenario())


def test_an_arc_that_is_split_and_merged_remembers_its_operations() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        replicas, replica = await alone(disk)
        await replica.take((command((1, 1), 1, b"a", slot=1), command((1, 2), 1, b"b", slot=2)))
        await replicas.seal(WHOLE, 1)
        one, other = Arc(Identifier(0), Identifier(2**159)), Arc(Identifier(2**159), Identifier(0))
        halves = [await replicas.adopt(Entry(arc, 2, (ME,))) for arc in (one, other)]
        assert all(
            half is not None and half.position == (1, 2) and half.log.remembers(operation(1, 2)) for half in halves
        )
        for arc in (one, other):
            await replicas.seal(arc, 2)
        whole = await replicas.adopt(Entry(WHOLE, 3, (ME,)))
        assert whole is not None and whole.position == (3, 0) and whole.follows
        assert whole.log.remembers(operation(1, 1)) and whole.log.remembers(operation(1, 2))
        (left,) = await replicas_on(disk)
        assert left.state == whole.state

    run(scenario())


def test_watchers_are_not_told_of_a_command_by_those_who_have_a_later_value_in_its_place() -> None:
    """After a restart, what the next one in the chain lacks is made of the records as they are then."""

    async def scenario() -> None:
        disk = MemoryDisk()
        head = await (await replicas_on(disk)).found(Entry(WHOLE, 1, (ME, b"next" * 4)))
        await head.take((command((1, 1), 5), command((1, 2), 6), command((1, 3), 7, b"another")))
        disk.crash()
        (again,) = await replicas_on(disk)
        _, following = await alone(MemoryDisk())
        await following.take(await again.commands_after((1, 0)))
        assert not following.recent.knows(WHOLE, (1, 0))
        assert following.recent.knows(WHOLE, (1, 1))
        assert [version for version, _ in following.recent.after(WHOLE, (1, 1), (1, 3))] == [(1, 3), (1, 2)]

    run(scenario())


def test_what_an_old_map_says_of_a_half_comes_too_late_once_the_halves_are_one() -> None:
    """A seal that was long under way must not cut in two what the map has whole, nor a link of an old epoch."""

    async def scenario() -> None:
        disk = MemoryDisk()
        replicas, _ = await alone(disk)
        one, other = Arc(Identifier(0), Identifier(2**159)), Arc(Identifier(2**159), Identifier(0))
        await replicas.seal(WHOLE, 1)
        for arc in (one, other):
            await replicas.adopt(Entry(arc, 2, (ME,)))
        await replicas.seal(one, 2)
        await replicas.adopt(Entry(one, 3, (ME,)))
        for arc, epoch in ((one, 3), (other, 2)):
            await replicas.seal(arc, epoch)
        whole = await replicas.adopt(Entry(WHOLE, 4, (ME,)))
        with pytest.raises(Moved):
            await replicas.seal(one, 3)
        assert await replicas.adopt(Entry(one, 3, (ME,))) is None
        assert list(replicas) == [whole]
        assert whole is not None and whole.follows

    run(scenario())


def test_commands_made_anew_bring_each_record_once() -> None:
    """A link sends them together, which must fit into one message whatever was written over again and again."""

    async def scenario() -> None:
        disk = MemoryDisk()
        head = await (await replicas_on(disk)).found(Entry(WHOLE, 1, (ME, bytes(16))))
        for n in range(1, 40):
            await head.take((command((1, n), n, slot=n),))
        await head.take((command((1, 40), 40, key=b"other", slot=40),))
        disk.crash()
        (replica,) = await replicas_on(disk)
        sent = await replica.commands_after((1, 0), 1)
        assert [each.version for each in sent] == [(1, n) for n in range(1, 41)]
        assert [change.name for each in sent for change in each.changes] == [name_of(b"k"), name_of(b"other")]
        assert [each.overtaken for each in sent] == [True] * 38 + [False] * 2
        follower = await (await replicas_on(MemoryDisk())).found(Entry(WHOLE, 1, (bytes(16), ME)))
        await follower.take(sent)
        names = (name_of(b"k"), name_of(b"other"))
        assert await follower.current(names) == await replica.current(names)

    run(scenario())


def test_keys_of_what_is_stable_are_not_remembered() -> None:
    async def scenario() -> None:
        head = await (await replicas_on(MemoryDisk())).found(Entry(WHOLE, 1, (ME, bytes(16))))
        await head.take((command((1, 1), 1),))
        await head.take((command((1, 2), 2, slot=1),))
        head.make_stable((1, 1))
        assert [logged.names for logged in head.log.entries.values()] == [(), (name_of(b"k"),)]
        remembered = [head.log.remembers(operation(1)), head.log.remembers(operation(2, slot=1))]
        assert [logged.version for logged in remembered if logged] == [(1, 1), (1, 2)]

    run(scenario())
