"""Eventual rings in simulation: they answer through everything that goes wrong, and come to agree when it is over."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from node.errors import OutcomeUnknown, RingError, StoreFull
from node.eventual.commons import Commons
from node.identifiers import name_of
from node.replication.arrival import StartOptions
from node.simulation.faults import CALM, LOSSY, Faults
from node.simulation.process import Crashed
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host
from tests.simulation.rings import SimulatedRing, persistently, quick, until

AGREED = 10.0
"""Seconds after which all agree once nothing goes wrong any more and the ring is whole."""
WHOLE = 60.0
SAME_TIME = replace(LOSSY, drift=0.0, offset=0.0)
"""The last writer is the last by the clocks."""


def eventual_ring(seed: int, faults: Faults = CALM, *, siblings: bool = False) -> SimulatedRing:
    ring = SimulatedRing(seed, faults)
    ring.policy = StartOptions(consistency="eventual", siblings=siblings)
    return ring


def commons(ring: SimulatedRing, host: Host) -> Commons:
    data = ring.node(host).data
    assert isinstance(data, Commons)
    return data


async def differences(ring: SimulatedRing, keys: list[bytes]) -> list[object]:
    """The keys that not just three nodes hold, all three the same."""
    found: list[object] = []
    for key in keys:
        held = {}
        for address, node in ring.nodes.items():
            assert isinstance(node.data, Commons)
            if cell := await node.data._held(key):
                held[address] = cell
        if len(held) != min(3, len(ring.nodes)) or len(set(held.values())) != 1:
            found.append((key, held))
    return found


async def agreed(ring: SimulatedRing, keys: list[bytes], within: float = AGREED) -> None:
    """Wait until there are none."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left := await differences(ring, keys):
        assert loop.time() < deadline, f"no agreement within {within} s: {left}"
        await asyncio.sleep(0.1)


class Writer:
    """Writes to one key, one write after another, through whichever node is up."""

    def __init__(self, ring: SimulatedRing, key: bytes) -> None:
        self.ring = ring
        self.key = key
        self.possible: list[bytes | None] = [None]
        """What it may hold in the end: the last write that was acknowledged, and all attempts since."""
        self.refused = 0
        self.going_on = True
        self._number = 0

    async def write(self) -> None:
        while self.going_on:
            up = [host for host in self.ring.world.hosts if host.address in self.ring.nodes]
            serving = [host for host in up if self.ring.node(host).serving]
            if serving:
                await self._one(self.ring.random.choice(serving))
            await asyncio.sleep(self.ring.random.expovariate(4))

    async def _one(self, host: Host) -> None:
        self._number += 1
        value = None if self._number % 5 == 0 else b"%d" % self._number
        self.possible.append(value)
        work = commons(self.ring, host)
        try:
            await host.run(work.delete(self.key) if value is None else work.put(self.key, value))
        except RingError:
            self.refused += 1
        except Crashed:
            return
        else:
            self.possible = [value]


async def suffer(ring: SimulatedRing, hosts: list[Host], events: int) -> None:
    """One thing after another goes wrong."""
    random = ring.random
    for _ in range(events):
        victim = random.choice(hosts)
        kind = random.choice(["crash", "pause", "cut in two", "cut off"])
        if kind == "crash":
            ring.crash(victim)
            await asyncio.sleep(random.uniform(0.1, 6))
            await ring.start(random.choice([host for host in hosts if host is not victim]), victim)
        elif kind == "pause":
            victim.pause()
            await asyncio.sleep(random.uniform(0.1, 6))
            victim.resume()
        else:
            side = [victim] if kind == "cut off" else random.sample(hosts, len(hosts) // 2)
            ring.world.network.partition([h.address for h in side], [h.address for h in hosts if h not in side])
            await asyncio.sleep(random.uniform(0.1, 6))
            ring.world.network.heal()
        await asyncio.sleep(random.uniform(0, 3))


def test_whatever_goes_wrong_it_answers_and_nothing_acknowledged_is_lost() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed, SAME_TIME)
        hosts = await ring.of(5)
        await until(ring.is_ideal, WHOLE, "a ring")
        writers = [Writer(ring, b"key %d" % n) for n in range(6)]
        tasks = [asyncio.ensure_future(writer.write()) for writer in writers]
        await suffer(ring, hosts, 5)
        for writer in writers:
            writer.going_on = False
        await asyncio.gather(*tasks)
        await until(ring.is_ideal, WHOLE, "one ring again")
        await agreed(ring, [writer.key for writer in writers], within=30)  # messages go on being lost
        for writer in writers:
            stored = await persistently(lambda key=writer.key: commons(ring, hosts[0]).get(key))
            assert (stored.value if stored is not None else None) in writer.possible, writer.key

    for_each_seed(12, scenario)


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_all_replicas_keep_what_they_hold_in_a_ring_that_has_just_enough(nodes: int) -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        hosts = await ring.of(nodes)
        await until(ring.is_ideal, WHOLE, "a ring")
        keys = [b"key %d" % n for n in range(30)]
        for key in keys:
            await commons(ring, ring.random.choice(hosts)).put(key, b"value")
        await agreed(ring, keys)
        for _ in range(20):
            await asyncio.sleep(1)
            assert not await differences(ring, keys)

    for_each_seed(3, scenario)


def test_both_sides_of_a_cut_take_writes_and_agree_afterwards() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        hosts = await ring.of(6)
        await until(ring.is_ideal, WHOLE, "a ring")
        keys = [b"key %d" % n for n in range(30)]
        for key in keys:
            await commons(ring, hosts[0]).put(key, b"before")
        await agreed(ring, keys)
        one, other = hosts[:3], hosts[3:]
        ring.world.network.partition([h.address for h in one], [h.address for h in other])
        await asyncio.sleep(ring.random.uniform(0, 5))
        for n, key in enumerate(keys):
            await commons(ring, one[n % 3]).put(key, b"one")
            if n % 3:
                await commons(ring, other[n % 3]).put(key, b"other")
            else:
                await commons(ring, other[n % 3]).delete(key)
        ring.world.network.heal()
        await until(ring.is_ideal, AGREED, "one ring again")
        await agreed(ring, keys)
        for n, key in enumerate(keys):
            stored = await commons(ring, hosts[n % 6]).get(key)
            assert (stored.value if stored is not None else None) == (b"other" if n % 3 else None), key

    for_each_seed(6, scenario)


def test_values_written_side_by_side_are_kept_until_somebody_writes_over_them() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed, siblings=True)
        hosts = await ring.of(4)
        await until(ring.is_ideal, WHOLE, "a ring")
        ring.world.network.partition([h.address for h in hosts[:2]], [h.address for h in hosts[2:]])
        await asyncio.sleep(3)
        await commons(ring, hosts[0]).put(b"cart", b"milk")
        await commons(ring, hosts[3]).put(b"cart", b"bread")
        ring.world.network.heal()
        await until(ring.is_ideal, AGREED, "one ring again")
        await agreed(ring, [b"cart"])
        found = await commons(ring, hosts[1]).get_all(b"cart")
        assert {stored.value for stored in found} == {b"milk", b"bread"}
        await commons(ring, hosts[2]).put_over(b"cart", b"milk and bread", tuple(stored.version for stored in found))
        await agreed(ring, [b"cart"])
        assert [stored.value for stored in await commons(ring, hosts[0]).get_all(b"cart")] == [b"milk and bread"]
        await commons(ring, hosts[3]).put(b"cart", b"butter")
        await agreed(ring, [b"cart"])
        assert await commons(ring, hosts[1]).delete(b"cart")
        await agreed(ring, [b"cart"])
        assert await commons(ring, hosts[0]).get_all(b"cart") == ()
        assert not await commons(ring, hosts[1]).delete(b"cart")

    for_each_seed(5, scenario)


def test_a_value_stays_beside_what_its_replica_wrote_once_it_held_it_no_more() -> None:
    """A node that is cut off takes a write, hands it over, is cut off again and takes others: they replace nothing
    that their writer has not seen."""

    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed, siblings=True)
        hosts = await ring.of(5)
        await until(ring.is_ideal, WHOLE, "a ring")
        replicas = {address for address, _ in await commons(ring, hosts[0]).replicas(b"cart")}
        alone = next(host for host in hosts if host.address not in replicas)
        work = commons(ring, alone)

        for value in (b"milk", b"bread"):
            ring.world.network.partition([alone.address], [h.address for h in hosts if h is not alone])
            await asyncio.sleep(6)
            await alone.run(work.put(b"cart", value))
            if value == b"bread":
                newest = (await alone.run(work.get_all(b"cart")))[0]
                await alone.run(work.put_over(b"cart", b"bread and butter", (newest.version,)))
            ring.world.network.heal()
            await until(ring.is_ideal, WHOLE, "one ring again")
            await agreed(ring, [b"cart"])
        left = await commons(ring, hosts[0]).get_all(b"cart")
        assert {stored.value for stored in left} == {b"milk", b"bread and butter"}

    for_each_seed(3, scenario)


def test_a_write_that_somebody_may_have_taken_is_not_said_to_have_failed() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        one, other = await ring.of(2)
        await until(ring.is_ideal, WHOLE, "a ring")
        one.disk.full = True
        ring.world.network.faults = replace(CALM, lose_reply=1.0)
        with pytest.raises(OutcomeUnknown, match="disk is full"):
            await one.run(commons(ring, one).put(b"key", b"value"))
        assert await commons(ring, other)._held(b"key") != ()
        other.disk.full = True
        ring.world.network.faults = CALM
        with pytest.raises(StoreFull):
            await one.run(commons(ring, one).put(b"another key", b"value"))

    for_each_seed(3, scenario)


def test_a_write_whose_answer_was_lost_stands_there_once() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed, siblings=True)
        hosts = await ring.of(5)
        await until(ring.is_ideal, WHOLE, "a ring")
        ring.world.network.faults = replace(CALM, lose_reply=0.2)
        keys = [b"key %d" % n for n in range(50)]
        for key in keys:
            host = ring.random.choice(hosts)
            await host.run(commons(ring, host).put(key, b"value"))
        ring.world.network.faults = CALM
        await until(ring.is_ideal, WHOLE, "a ring")
        await agreed(ring, keys)
        for key in keys:
            assert len(await commons(ring, hosts[0]).get_all(key)) == 1, key

    for_each_seed(6, scenario)


def test_who_comes_answers_at_once_and_who_leaves_leaves_everything() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.policy = replace(ring.policy, replicas=ring.random.choice([1, 2, 3]))
        hosts = [await ring.start()]
        written = {b"key %d" % n: b"value %d" % n for n in range(40)}
        for key, value in written.items():
            await commons(ring, hosts[0]).put(key, value)
        for _ in range(4):
            hosts.append(await ring.start(hosts[0]))
            for key, value in written.items():
                stored = await persistently(lambda key=key: commons(ring, hosts[-1]).get(key))
                assert stored is not None and stored.value == value, key
        await until(ring.is_ideal, WHOLE, "a ring")
        while len(hosts) > 1:
            await asyncio.sleep(ring.random.uniform(0, 3))
            await ring.leave(hosts.pop(ring.random.randrange(len(hosts))))
        for key, value in written.items():
            stored = await persistently(lambda key=key: commons(ring, hosts[0]).get(key))
            assert stored is not None and stored.value == value, key

    for_each_seed(6, scenario)


def test_tombstones_go_in_the_end_and_who_was_away_for_longer_comes_back_empty() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.settings = quick(grace=30.0, compare_period=3.0)
        hosts = await ring.of(4)
        await until(ring.is_ideal, WHOLE, "a ring")
        keys = [b"key %d" % n for n in range(20)]
        for key in keys:
            await commons(ring, hosts[0]).put(key, b"value")
        await agreed(ring, keys)
        away = hosts[2]
        ring.crash(away)
        for key in keys:
            await persistently(lambda key=key: commons(ring, hosts[0]).delete(key))
        await asyncio.sleep(45)
        for host in hosts:
            if host is not away:
                records = await ring.node(host).store.get_many([name_of(key) for key in keys])
                assert records == [None] * len(keys), "the tombstones are gone everywhere"
        await ring.start(hosts[0], away)
        await until(ring.is_ideal, WHOLE, "a ring")
        await asyncio.sleep(AGREED)
        for key in keys:
            assert await commons(ring, away).get(key) is None, "what was deleted stays deleted"

    for_each_seed(3, scenario)


def rested(ring: SimulatedRing, hosts: list[Host]) -> None:
    """All are down at once."""
    for host in hosts:
        ring.crash(host)


async def back(ring: SimulatedRing, hosts: list[Host]) -> None:
    await asyncio.gather(*(ring.start(host=host) for host in hosts))
    await until(ring.is_ideal, WHOLE, "a ring again")


def test_a_ring_that_rests_for_longer_than_tombstones_are_kept_has_all_it_had() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed, LOSSY if seed % 2 else CALM)
        ring.settings = quick(grace=100.0, compare_period=3.0)
        hosts = await ring.of(5)
        await until(ring.is_ideal, WHOLE, "a ring")
        await asyncio.sleep(110)
        keys = [b"key %d" % n for n in range(40)]
        for key in keys:
            await persistently(lambda key=key: commons(ring, hosts[0]).put(key, b"value"))
        await agreed(ring, keys, within=60)
        for key in keys[:10]:
            await persistently(lambda key=key: commons(ring, hosts[0]).delete(key))
        rested(ring, hosts)
        await asyncio.sleep(300)
        late = ring.random.sample(hosts, 3)
        await back(ring, [host for host in hosts if host not in late])
        await asyncio.sleep(20)
        await back(ring, late)
        await agreed(ring, keys[10:], within=60)
        for key in keys[10:]:
            stored = await persistently(lambda key=key: commons(ring, hosts[0]).get(key))
            assert stored is not None and stored.value == b"value", key
        await asyncio.sleep(150)
        for key in keys[:10]:
            assert await persistently(lambda key=key: commons(ring, hosts[0]).get(key)) is None
        held = [await ring.node(host).store.get_many([name_of(key) for key in keys[:10]]) for host in hosts]
        assert held == [[None] * 10] * 5, "tombstones go in the end"

    for_each_seed(3, scenario)


def test_who_was_away_for_long_before_all_rested_comes_back_empty() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.settings = quick(grace=30.0, compare_period=3.0)
        hosts = await ring.of(4)
        await until(ring.is_ideal, WHOLE, "a ring")
        await asyncio.sleep(40)
        keys = [b"key %d" % n for n in range(20)]
        for key in keys:
            await commons(ring, hosts[0]).put(key, b"value")
        await agreed(ring, keys)
        away, *others = ring.random.sample(hosts, 4)
        ring.crash(away)
        for key in keys:
            await persistently(lambda key=key: commons(ring, others[0]).delete(key))
        await asyncio.sleep(60)
        rested(ring, others)
        await asyncio.sleep(50)
        await back(ring, hosts if seed % 2 else others)
        if not seed % 2:
            await back(ring, [away])
        await asyncio.sleep(AGREED)
        for key in keys:
            assert await commons(ring, away).get(key) is None, "what was deleted stays deleted"

    for_each_seed(6, scenario)


def test_a_node_that_goes_on_alone_after_a_long_rest_has_what_it_had() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.settings = quick(grace=30.0)
        (host,) = await ring.of(1)
        await commons(ring, host).put(b"key", b"value")
        rested(ring, [host])
        await asyncio.sleep(100)
        await back(ring, [host])
        stored = await commons(ring, host).get(b"key")
        assert stored is not None and stored.value == b"value"

    for_each_seed(1, scenario)


def test_a_clock_that_is_years_ahead_wins_nothing() -> None:
    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        hosts = await ring.of(4)
        await until(ring.is_ideal, WHOLE, "a ring")
        await asyncio.sleep(15)
        hosts[1].clock.jump(3e8)
        for n in range(20):
            await persistently(lambda n=n: commons(ring, hosts[1]).put(b"key %d" % n, b"by the wrong clock"))
            await asyncio.sleep(0.05)
            await persistently(lambda n=n: commons(ring, hosts[n % 4]).put(b"key %d" % n, b"later"))
        keys = [b"key %d" % n for n in range(20)]
        await agreed(ring, keys)
        for key in keys:
            stored = await commons(ring, hosts[0]).get(key)
            assert stored is not None and stored.value == b"later"

    for_each_seed(3, scenario)
