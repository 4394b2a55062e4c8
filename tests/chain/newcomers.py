"""A newcomer that was a member of the chain long ago, and a head of that time that was cut off since."""

from __future__ import annotations

import asyncio
from typing import Any

from node.data import Stored
from node.errors import OutcomeUnknown
from node.identifiers import Identifier
from node.simulation.faults import CALM
from node.simulation.history import History
from node.simulation.world import Host
from node.values import pack_value, unpack_value
from tests.chain.chaos import assert_linearizable
from tests.chain.rig import ChainRing
from tests.simulation.rings import persistently, quick, until

CALL = 20.0
"""Seconds that a head waits for its chain; all of this has to happen in them."""


async def a_head_of_long_ago_comes_back(seed: int) -> None:
    """The head has ordered writes that the other member, the tail, never got. The tail leaves the chain and forgets it,
    comes back, and has just got its copy when the head reaches it again: it must not confirm them."""
    ring = ChainRing(seed, CALM, quick(settle_period=0.1, call=CALL, operation=2 * CALL), replicas=2)
    hosts = {ring.lives[host.address]: host for host in await ring.founded(5)}
    await until(ring.is_settled, 30, "settled")
    loop, network = asyncio.get_running_loop(), ring.world.network
    entry = next(iter(ring.map.entries))
    key = next(key for n in range(1000) if Identifier.of_key(key := b"key %d" % n) in entry.arc)
    head, tail = (hosts[life] for life in entry.chain)
    others = set(hosts.values()) - {head}
    client = ring.client()
    history = History(loop.time)

    async def put(value: int) -> None:
        operation = history.invoke(f"writer {value}", "put", key.decode(), value, None)
        try:
            await client.router.put(key, pack_value(value, ring.settings))
        except OutcomeUnknown:
            history.unknown(operation)
        else:
            history.ok(operation, None)

    await put(0)
    for other in others:
        _sever(ring, head, other)
    broken = loop.time()
    writing = [client.host.spawn(put(1))]
    await asyncio.sleep(0.5)
    writing.append(client.host.spawn(put(2)))

    space = ring.space(tail)
    seats = ring.map.seats_of(space.resident.life)
    assert await tail.run(space.part())
    await until(lambda: not space.held.within(entry.arc), 30, "forgotten")
    prepare = space.held.prepare

    async def prepared(*arguments: Any) -> None:
        await asyncio.sleep(max(0.0, broken + CALL - loop.time() - ring.random.uniform(0, 0.2)))
        await prepare(*arguments)
        network.mend(head.address, tail.address)
        network.mend(tail.address, head.address)
        await asyncio.sleep(1)

    space.held.prepare = prepared  # type: ignore[method-assign]
    await tail.run(space.join(seats))
    await until(lambda: all(each.done() for each in writing), 4 * CALL, "the writes are answered")
    network.heal()
    operation = history.invoke("reader", "get", key.decode(), None, None)
    stored = await persistently(lambda: ring.space(tail).operations.get(key))
    assert stored is None or isinstance(stored, Stored)
    history.ok(operation, None if stored is None else unpack_value(stored.value))
    assert_linearizable(history)


def _sever(ring: ChainRing, one: Host, other: Host) -> None:
    ring.world.network.cut(one.address, other.address)
    ring.world.network.cut(other.address, one.address)
