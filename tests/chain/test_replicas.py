"""The steps in which replicas change, and what comes between their beginning and their end."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from node.chain.replicas import Replicas
from node.chain.ring_map import Entry, Policy, RingMap
from node.errors import OutcomeUnknown, StoreFull
from node.identifiers import Arc, Identifier
from node.simulation.loop import run
from node.store.interface import Batch
from node.store.memory import MemoryDisk, MemoryStore
from node.tasks import Tasks

A, B, ME = b"a" * 16, b"b" * 16, b"m" * 16
WHOLE = Arc(Identifier(0), Identifier(0))
HALF = Arc(Identifier(0), Identifier(1 << 159))


async def member_of(disk: MemoryDisk) -> Replicas:
    """The tail of a chain of three."""
    replicas = Replicas(MemoryStore(disk, Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
    await replicas.load()
    if not list(replicas):
        await replicas.found(Entry(WHOLE, 1, (A, B, ME)))
    return replicas


@pytest.mark.parametrize("entry", [Entry(WHOLE, 2, (A, B, ME)), Entry(HALF, 2, (A, B, ME))])
def test_a_later_map_that_comes_while_an_epoch_is_adopted_counts(entry: Entry) -> None:
    """The chain goes on without this node: it must not answer for it, whatever it was about to write down."""

    async def scenario() -> None:
        replicas = await member_of(MemoryDisk())
        await replicas.seal(WHOLE, 1)
        adopting = asyncio.ensure_future(replicas.adopt(entry))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not adopting.done()
        replicas.supersede(RingMap(Policy(3), (), (), (Entry(WHOLE, 3, (A, B)),)))
        await adopting
        assert not any(replica.follows for replica in replicas)

    run(scenario())


def test_a_part_of_an_arc_is_followed_in_its_epoch_however_far_ahead_the_other_part_is() -> None:
    """The arc was split, and one part has gone on without this node before it heard of that."""

    async def scenario() -> None:
        replicas = await member_of(MemoryDisk())
        await replicas.seal(WHOLE, 1)
        (rest,) = WHOLE.minus(HALF)
        lost, kept = Entry(HALF, 9, (A, B)), Entry(rest, 2, (A, B, ME))
        replicas.supersede(RingMap(Policy(3), (), (), (lost, kept)))
        adopted = await replicas.adopt(kept)
        assert adopted is not None and adopted.follows and adopted.arc == rest
        assert [replica.arc for replica in replicas if replica.follows] == [rest]
        assert await replicas.adopt(Entry(HALF, 8, (A, B, ME))) is None, "a link of long ago"
        assert [replica.arc for replica in replicas if replica.follows] == [rest]

    run(scenario())


def test_a_seal_that_did_not_reach_the_disk_is_none_however_often_it_is_asked_for() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        replicas = await member_of(disk)
        disk.full = True
        for _ in range(2):
            with pytest.raises(StoreFull):
                await replicas.seal(WHOLE, 1)
        disk.full = False
        await replicas.seal(WHOLE, 1)
        disk.crash()
        (replica,) = await member_of(disk)
        assert not replica.follows

    run(scenario())


def test_a_map_seals_in_memory_and_a_seal_puts_that_on_the_disk() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        replicas = await member_of(disk)
        replicas.supersede(RingMap(Policy(3), (), (), (Entry(WHOLE, 2, (A, B)),)))
        await replicas.seal(WHOLE, 1)
        disk.crash()
        (replica,) = await member_of(disk)
        assert not replica.follows

    run(scenario())


def test_a_step_of_which_nobody_knows_whether_it_is_on_the_disk_ends_the_node() -> None:
    class Unsure(MemoryStore):
        async def commit(self, batch: Batch, *, to_disk: bool | None = None) -> None:  # type: ignore[override]
            raise OutcomeUnknown("the disk failed to confirm a write")

    async def scenario() -> None:
        tasks = Tasks()
        replicas = Replicas(MemoryStore(MemoryDisk(), Random(1)), tasks.spawn, lambda: 0.0, ME)
        await replicas.load()
        await replicas.found(Entry(WHOLE, 1, (A, B, ME)))
        replicas.store = Unsure(MemoryDisk(), Random(1))
        with pytest.raises(OutcomeUnknown):
            await replicas.retire(WHOLE)
        with pytest.raises(OutcomeUnknown):
            await tasks.failed

    run(scenario())
