"""How two replicas come to agree, step by step."""

from __future__ import annotations

import asyncio

from node.eventual.agreed_time import MICROS
from node.eventual.cells import Cell, Written
from node.eventual.messages import Burial
from node.eventual.placement import before
from node.eventual.stamps import Stamp
from node.identifiers import EVERYTHING, Arc, Identifier, name_of
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host
from tests.eventual.test_commons import agreed, commons, eventual_ring
from tests.simulation.rings import SimulatedRing, quick, until

GRACE = 30.0
KEY = b"key"


async def two_nodes(seed: int) -> tuple[SimulatedRing, Host, Host]:
    """A ring of two that does not compare arcs by itself any more; the first owns the key."""
    ring = eventual_ring(seed)
    ring.settings = quick(grace=GRACE, compare_period=1e6)
    one, other = await ring.of(2)
    await until(ring.is_ideal, 60.0, "a ring")
    await asyncio.sleep(100)
    if commons(ring, one)._placement.part_of(Arc(before(int(Identifier.of_key(KEY))), Identifier.of_key(KEY))) is None:
        one, other = other, one
    return ring, one, other


def cell_of(host: Host, age: float, value: bytes | None) -> Cell:
    """What was written `age` seconds ago by somebody else."""
    return (Written(Stamp(int((host.clock() - age) * MICROS), 7), value),)


async def take_in(ring: SimulatedRing, host: Host, cell: Cell) -> None:
    await commons(ring, host)._shelf.merge([(KEY, cell)], int(host.clock() * MICROS))


async def held(ring: SimulatedRing, host: Host) -> Cell:
    return await commons(ring, host)._held(KEY)


def test_what_is_written_while_a_record_is_passed_on_is_passed_on_too() -> None:
    async def scenario(seed: int) -> None:
        ring, one, _ = await two_nodes(seed)
        for n in range(20):
            await commons(ring, one).put(KEY, b"%d" % n)
            await asyncio.sleep(ring.random.uniform(0, 0.003))
        await agreed(ring, [KEY], within=5)

    for_each_seed(10, scenario)


def test_a_tombstone_past_the_grace_period_still_reaches_who_has_what_it_deleted() -> None:
    """A replica that the others could not reach for that long was not away: it has not been emptied."""

    async def scenario(seed: int) -> None:
        ring, one, other = await two_nodes(seed)
        await take_in(ring, other, cell_of(other, 90, b"value"))
        await take_in(ring, one, cell_of(one, 90, b"value"))
        await take_in(ring, one, cell_of(one, 60, None))
        await commons(ring, one)._exchange.compare(EVERYTHING, other.address)
        assert await held(ring, other) == await held(ring, one) != ()

    for_each_seed(1, scenario)


def test_a_tombstone_that_comes_after_the_comparison_is_not_buried_by_it() -> None:
    """However the clocks of the two differ."""

    async def scenario(seed: int) -> None:
        ring, one, other = await two_nodes(seed)
        for host in (one, other):
            await take_in(ring, host, cell_of(one, 90, b"value"))
        other.clock.jump(-4)
        shelf = commons(ring, other)._shelf
        bury, tombstone = shelf.bury, cell_of(one, 60, None)
        buried: list[int] = []

        async def meanwhile(burial: Burial) -> int:
            await take_in(ring, other, tombstone)
            buried.append(await bury(burial))
            return buried[-1]

        shelf.bury = meanwhile  # type: ignore[method-assign]
        await take_in(ring, one, cell_of(one, 80, None))
        await asyncio.sleep(20)  # that one may go
        assert await commons(ring, one)._exchange.round()
        assert sum(buried) == 0 and buried
        assert await held(ring, other) == tombstone

    for_each_seed(1, scenario)


def test_every_member_of_a_node_lets_its_old_tombstones_go() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.settings = quick(grace=GRACE)
        host = await ring.start(members=4)
        keys = [b"key %d" % n for n in range(40)]
        for key in keys:
            await commons(ring, host).put(key, b"value")
            await commons(ring, host).delete(key)
        await asyncio.sleep(3 * GRACE)
        assert await ring.node(host).store.get_many([name_of(key) for key in keys]) == [None] * len(keys)

    for_each_seed(1, scenario)
