"""What a node of a chain answers when it should not, or not any more."""

from __future__ import annotations

import asyncio

import pytest

from node.errors import NotServing, OutcomeUnknown, RingError, Unavailable
from node.identifiers import Identifier, name_of
from node.simulation.loop import run
from node.store.interface import Batch
from tests.chain.rig import ChainRing
from tests.simulation.rings import until

KEYS = [b"key %d" % n for n in range(40)]


async def settled(nodes: int, replicas: int = 3) -> ChainRing:
    """A ring that holds some keys."""
    ring = ChainRing(5, replicas=replicas)
    await ring.of(nodes)
    await until(ring.is_settled, 60, "settled")
    client = ring.client()
    await client.host.run(client.router.put_many((key, b"v") for key in KEYS))
    return ring


def test_a_tail_that_was_cut_off_counts_nothing() -> None:
    async def scenario() -> None:
        ring = await settled(4)
        entry = ring.map.holding(name_of(KEYS[0]))
        tail = next(host for host in ring.world.hosts if ring.lives.get(host.address) == entry.tail)
        mine = [key for key in KEYS if Identifier.of_key(key) in entry.arc]
        assert await tail.run(ring.space(tail).chains.count(entry.arc)) == len(mine)
        for other in ring.world.hosts:
            if other is not tail:
                ring.world.network.cut(tail.address, other.address)
                ring.world.network.cut(other.address, tail.address)
        await asyncio.sleep(ring.settings.lease)
        with pytest.raises(NotServing):
            await tail.run(ring.space(tail).chains.count(entry.arc))

    run(scenario())


def test_a_full_disk_of_a_node_that_is_gone_hinders_nobody() -> None:
    async def scenario() -> None:
        ring = await settled(2, replicas=2)
        entry = ring.map.holding(name_of(KEYS[0]))
        hosts = {ring.lives[host.address]: host for host in ring.world.hosts if host.address in ring.lives}
        head, tail = (hosts[life] for life in entry.chain)
        client = ring.client()
        tail.disk.full = True
        with pytest.raises(RingError):
            await client.host.run(client.router.put(KEYS[0], b"w"))
        replica = ring.space(head).held.of(entry.arc)
        assert replica is not None and replica.trouble is not None
        state = replica.state
        replica.become(type(state)(state.arc, state.epoch + 1, entry.chain[:1], state.sealed, state.base))
        ring.space(head)._links.follow(replica)
        replica.check_disk()
        assert replica.trouble is None

    run(scenario())


def test_reads_go_on_where_the_disk_is_full_when_the_map_changes_elsewhere() -> None:
    async def scenario() -> None:
        ring = await settled(5)
        entry = ring.map.holding(name_of(KEYS[0]))
        tail = next(host for host in ring.world.hosts if ring.lives.get(host.address) == entry.tail)
        elsewhere = next(each for each in ring.map.entries if entry.tail not in each.chain)
        tail.disk.full = True
        await ring.start(seat=elsewhere.arc.middle())
        client = ring.client()
        for _ in range(5):
            assert await client.host.run(client.router.get(KEYS[0])) is not None
            await asyncio.sleep(ring.settings.lease)
        assert ring.map.holding(name_of(KEYS[0])) == entry, "nothing has changed for this arc"

    run(scenario())


def test_a_write_through_the_head_has_no_more_time_than_any_other_when_its_disk_stalls() -> None:
    async def scenario() -> None:
        ring = await settled(3)
        entry = ring.map.holding(name_of(KEYS[0]))
        head = next(host for host in ring.world.hosts if ring.lives.get(host.address) == entry.head)
        replica = ring.space(head).held.of(entry.arc)
        assert replica is not None
        commit = replica.store.commit

        async def stalled(batch: Batch) -> None:
            await asyncio.sleep(30)
            await commit(batch)

        replica.store.commit = stalled  # type: ignore[method-assign, assignment]
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(OutcomeUnknown):
            await head.run(ring.space(head).operations.put(KEYS[0], b"w"))
        assert loop.time() - began < ring.settings.operation + 1

    run(scenario())


def test_a_batch_whose_arc_is_split_meanwhile_has_no_more_time_than_any_other() -> None:
    async def scenario() -> None:
        ring = await settled(2)
        client = ring.client()
        loop, router = asyncio.get_running_loop(), client.router

        async def silent(*_: object) -> object:
            await asyncio.sleep(0.5)
            raise NotServing("try again")

        router._ask = silent  # type: ignore[method-assign, assignment]
        began = loop.time()
        whole = router._arc_of
        router._arc_of = lambda named: (  # type: ignore[method-assign]
            whole(named) if loop.time() < began + 4 else named[0][0] % 3
        )
        with pytest.raises(Unavailable):
            await client.host.run(router.put_many((key, b"w") for key in KEYS))
        assert loop.time() - began < ring.settings.operation + 1

    run(scenario())


def test_a_batch_of_any_size_ends_when_its_time_is_over() -> None:
    async def scenario() -> None:
        ring = await settled(2)
        client = ring.client()
        loop = asyncio.get_running_loop()
        for host in ring.world.hosts:
            if host is not client.host:
                host.pause()
        pairs = [(b"key %d" % n, b"w") for n in range(20_000)]
        for work in (client.router.put_many(pairs), client.router.get_many(key for key, _ in pairs)):
            began = loop.time()
            with pytest.raises((OutcomeUnknown, Unavailable)):
                await client.host.run(work)
            assert loop.time() - began < ring.settings.operation + 1

    run(scenario())
