"""More writes at once than a chain can carry: they wait their turn at its head, and what is far too much is refused."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from node.chain.chains import Chains
from node.chain.gate import WAITING, WINDOW
from node.chain.messages import Change, Command, Operation, Outcome, Write, Written
from node.chain.replica import Replica
from node.chain.replicas import Replicas
from node.chain.ring_map import Entry
from node.codec import pack
from node.errors import Overloaded, StoreFull
from node.identifiers import Arc, Identifier, name_of
from node.settings import MIB
from node.simulation.loop import run
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host
from node.store.memory import MemoryDisk, MemoryStore
from tests.chain.rig import SETTINGS, ChainRing
from tests.simulation.rings import until

PAIRS = {b"key %d" % n: bytes(MIB) for n in range(40)}
LONG = 100.0
ME, NEXT = b"m" * 16, b"n" * 16


class Counted:
    """How writes were answered, and how many bytes were on their way at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.done = 0
        self.most = 0
        write = Chains.write

        async def counted(chains: Chains, question: Write) -> Written:
            try:
                written = await write(chains, question)
            except Overloaded:
                self.refused += 1
                raise
            finally:
                self.most = max([self.most, *(replica.under_way.size for replica in chains.replicas)])
            self.done += 1
            return written

        monkeypatch.setattr(Chains, "write", counted)


async def settled(ring: ChainRing, nodes: int) -> list[Host]:
    hosts = await ring.of(nodes)
    await until(ring.is_settled, 60, "settled")
    return hosts


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_large_batch_is_taken_as_fast_as_it_goes_and_nothing_of_it_is_sent_twice(
    monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    answers = Counted(monkeypatch)

    async def scenario(seed: int) -> None:
        answers.done = 0
        ring = ChainRing(seed)
        await settled(ring, nodes)
        client = ring.client()
        await client.host.run(client.router.put_many(PAIRS.items()))
        assert (answers.done, answers.refused) == (len(PAIRS), 0)
        assert answers.most <= WINDOW + 2 * MIB, "it ends with a command that just had room"
        found = await client.host.run(client.router.get_many(PAIRS))
        assert {key: stored.value for key, stored in found.items() if stored} == PAIRS

    for_each_seed(2, scenario)
    assert answers.most > WINDOW or nodes > 1, "nothing had to wait: this test shows nothing"


def test_a_large_batch_outlasts_a_member_that_stands_still_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seed: int) -> None:
        answers = Counted(monkeypatch)
        ring = ChainRing(seed)
        slow = ring.random.choice(await settled(ring, 3))
        client = ring.client()
        slow.pause()
        writing = asyncio.ensure_future(client.host.run(client.router.put_many(PAIRS.items())))
        await asyncio.sleep(2)
        assert not writing.done()
        slow.resume()
        await writing
        assert answers.most <= WINDOW + 2 * MIB
        found = await client.host.run(client.router.get_many(PAIRS))
        assert {key: stored.value for key, stored in found.items() if stored} == PAIRS

    for_each_seed(2, scenario)


async def stuck() -> Replica:
    """The head of a chain that has taken what it can, and whose next member says nothing."""
    replicas = Replicas(MemoryStore(MemoryDisk(), Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
    await replicas.load()
    head = await replicas.found(Entry(Arc(Identifier(0), Identifier(0)), 1, (ME, NEXT)))
    while head.under_way.size <= WINDOW:
        await head.take((command(head),))
    return head


def command(head: Replica) -> Command:
    change = Change(name_of(b"key"), bytes(MIB))
    return Command(head.next_version(), Operation(ME, 0, 1), (change,), Outcome())


def test_writes_are_taken_in_the_order_in_which_they_came_and_those_behind_too_many_are_refused() -> None:
    async def scenario() -> None:
        head = await stuck()
        taken: list[int] = []

        async def write(number: int) -> None:
            await head.gate.enter(MIB, LONG)
            taken.append(number)
            stored = head.take((command(head),))
            head.gate.leave(MIB)
            await stored

        writing = [asyncio.ensure_future(write(number)) for number in range(WAITING // MIB)]
        await asyncio.sleep(1)
        assert taken == []
        with pytest.raises(Overloaded, match="slow down"):
            await head.gate.enter(1, LONG)
        writing.pop(2).cancel()
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*writing, confirm(head, writing)), 10)
        assert taken == [0, 1, *range(3, WAITING // MIB)]
        head.make_stable(head.position)
        await asyncio.wait_for(head.gate.enter(1, LONG), 0.1)

    async def confirm(head: Replica, writing: list[asyncio.Future[None]]) -> None:
        while not all(each.done() for each in writing):
            assert head.under_way.size <= WINDOW + 2 * MIB
            head.make_stable(head.position)
            await asyncio.sleep(0.1)

    run(scenario())


def test_nobody_waits_for_longer_than_he_can() -> None:
    async def scenario() -> None:
        head = await stuck()
        with pytest.raises(Overloaded, match="slow down"):
            await head.gate.enter(MIB, 2.0)
        head.make_stable(head.position)
        await asyncio.wait_for(head.gate.enter(1, LONG), 0.1)

    run(scenario())


def test_nothing_is_let_in_while_what_another_life_ordered_may_have_to_be_sent_again() -> None:
    async def scenario() -> None:
        disk = MemoryDisk()
        replicas = Replicas(MemoryStore(disk, Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
        await replicas.load()
        head = await replicas.found(Entry(Arc(Identifier(0), Identifier(0)), 1, (ME, NEXT)))
        await head.take((command(head),))
        disk.crash()
        replicas = Replicas(MemoryStore(disk, Random(1)), asyncio.ensure_future, lambda: 0.0, ME)
        await replicas.load()
        (head,) = replicas
        entering = asyncio.ensure_future(head.gate.enter(1, LONG))
        await asyncio.sleep(1)
        assert not entering.done()
        head.make_stable(head.position)
        await entering

    run(scenario())


@pytest.mark.parametrize("conditional", [False, True])
def test_writes_that_had_to_wait_for_each_other_are_let_go_one_by_one(conditional: bool) -> None:
    """All of what a head may have to send at once fits into one message, whatever its writers waited for."""

    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, replicas=2)
        hosts = {ring.space(host).resident.life: host for host in await settled(ring, 2)}
        client = ring.client()
        entry = ring.map.entries[0]
        head, tail = (hosts[life] for life in entry.chain)
        keys = [key for n in range(100) if ring.map.holding(name_of(key := b"key %d" % n)) == entry][:24]
        replica = ring.space(head).held.of(entry.arc)
        assert replica is not None
        replica.hold_still(0.5)
        tail.pause()
        router, value = client.router, bytes(MIB)
        writes = [router.put_if(key, value, None) if conditional else router.put(key, value) for key in keys]
        writing = [asyncio.ensure_future(client.host.run(write)) for write in writes]
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert replica.under_way.size <= WINDOW + MIB + 1000
            assert len(pack(await replica.commands_after((0, 0)))) < SETTINGS.max_frame
        tail.resume()
        await asyncio.gather(*writing)

    for_each_seed(2, scenario)


@pytest.mark.parametrize("what", ["its disk is full", "it is gone"])
def test_nobody_waits_for_what_will_not_come(what: str) -> None:
    async def scenario() -> None:
        head = await stuck()
        waiting = asyncio.ensure_future(head.gate.enter(MIB, LONG))
        await asyncio.sleep(1)
        assert not waiting.done()
        if what == "it is gone":
            head.end()
            await waiting
            assert not head.follows
        else:
            head.hindered(StoreFull("the disk of the next is full"))
            await waiting
            with pytest.raises(StoreFull, match="the next"):
                head.check_disk()

    run(scenario())
