"""A batch that is tried again in parts: its arc is split when it comes, and one again before all of it is ordered."""

from __future__ import annotations

import asyncio
from itertools import combinations

from node.data import Stored
from node.identifiers import Arc, Identifier
from node.simulation.faults import CALM
from node.simulation.history import History
from node.values import pack_value, unpack_value
from tests.chain.chaos import assert_linearizable
from tests.chain.rig import ChainRing
from tests.simulation.rings import persistently, quick, until

FIRST_ATTEMPT = 0.03
"""Seconds after which the batch was refused as a whole, and is not yet tried again."""


async def parts_of_a_batch(seed: int) -> None:
    """The client learns that the arc is split, brings one part to the one half, and cannot reach the other half until
    both are one again."""
    ring = ChainRing(seed, CALM, quick(settle_period=0.1), replicas=1 + seed % 3)
    hosts = await ring.founded(1 + ring.policy.replicas)
    await until(ring.is_settled, 30, "settled")
    keys = _neighbours(ring)
    here, there = (Identifier.of_key(key) for key in keys)
    client = ring.client()
    history = History(asyncio.get_running_loop().time)
    newcomer = await ring.start(seat=Arc(here, there).middle())
    await until(lambda: ring.is_settled() and ring.map.at(here).head != ring.map.at(there).head, 30, "split")

    operations = [history.invoke("writer", "put", key.decode(), value, None) for value, key in enumerate(keys)]
    values = [(key, pack_value(value, ring.settings)) for value, key in enumerate(keys)]
    writing = client.host.spawn(client.router.put_many(values))
    await asyncio.sleep(FIRST_ATTEMPT)
    head = next(host for host in hosts if ring.lives[host.address] == ring.map.at(there).head)
    ring.world.network.cut(client.host.address, head.address)
    assert await newcomer.run(ring.space(newcomer).part())
    await until(lambda: ring.map.at(here) == ring.map.at(there), 30, "one again")
    ring.world.network.mend(client.host.address, head.address)
    await writing
    for operation in operations:
        history.ok(operation, None)
    for key in keys:
        operation = history.invoke("reader", "get", key.decode(), None, None)
        stored = await persistently(lambda key=key: ring.space(hosts[0]).operations.get(key))
        assert stored is None or isinstance(stored, Stored)
        history.ok(operation, None if stored is None else unpack_value(stored.value))
    assert_linearizable(history)
    assert not ring.failures


def _neighbours(ring: ChainRing) -> tuple[bytes, bytes]:
    """Two keys of one arc, clockwise."""
    for pair in combinations([b"key %d" % n for n in range(20)], 2):
        one, other = sorted(
            pair, key=lambda key: ring.map.at(Identifier.of_key(key)).arc.start.distance_to(Identifier.of_key(key))
        )
        if ring.map.at(Identifier.of_key(one)) == ring.map.at(Identifier.of_key(other)):
            return one, other
    raise AssertionError("no two keys are in one arc")
