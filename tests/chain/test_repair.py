"""Repairs by force in simulation: what is left goes on, and who was given up does no harm when it comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from node.chain import salvage
from node.errors import BadUsage, NoQuorum, RingError, WrongRing
from node.identifiers import Identifier
from node.replication.arrival import StartOptions
from node.simulation.faults import LOSSY
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host
from tests.chain.chaos import Clients, assert_linearizable
from tests.chain.power import OnPageCaches
from tests.simulation.rings import SimulatedRing, persistently, until

SETTLED = 120.0
KEYS = [b"thing %d" % n for n in range(30)]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nodes that wait for keepers say so again and again."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def fill(ring: SimulatedRing, host: Host, value: bytes) -> None:
    for key in KEYS:
        await persistently(lambda key=key: ring.node(host).data.operations.put(key, value))


async def read(ring: SimulatedRing, host: Host, key: bytes) -> bytes | None:
    stored = await persistently(lambda: ring.node(host).data.operations.get(key))
    return stored.value if stored is not None else None  # type: ignore[attr-defined]


async def repaired(ring: SimulatedRing, host: Host) -> dict[bytes, str]:
    """Repair the ring by force, again while messages are lost; what was said of each key."""

    async def attempt() -> object:
        prospect = await ring.node(host).repair.prospect()
        return await host.run(ring.node(host).repair.carry_out(prospect.token))

    done = await persistently(attempt, within=600)
    found = [finding for finding, _, _ in done.arcs]  # type: ignore[attr-defined]
    return {key: next(each.problem for each in found if Identifier.of_key(key) in each.arc) for key in KEYS}


def test_most_nodes_are_lost_and_what_had_a_survivor_is_there() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(5)
        await until(ring.is_whole, SETTLED, "settled")
        await fill(ring, hosts[0], b"value")
        with pytest.raises(BadUsage):
            await ring.node(hosts[0]).repair.prospect()
        lost = ring.random.sample(hosts, 3)
        left = [host for host in hosts if host not in lost]
        for host in lost:
            ring.crash(host)
        with pytest.raises(RingError):
            await ring.node(left[0]).data.operations.put(KEYS[0], b"refused")
        problems = await repaired(ring, ring.random.choice(left))
        assert set(problems.values()) <= {salvage.WHOLE, salvage.LOST}
        for key, problem in problems.items():
            value = await read(ring, ring.random.choice(left), key)
            assert (value in (b"value", b"refused")) if problem == salvage.WHOLE else value is None
        await fill(ring, left[0], b"later")
        for host in lost:
            with pytest.raises(WrongRing):
                await ring.start(host=host)
            ring.crash(host)
        left.append(await ring.start(left[0]))
        await until(ring.is_whole, SETTLED, "settled again")
        for key in KEYS:
            assert await read(ring, left[-1], key) == b"later"

    for_each_seed(4, scenario)


def test_those_who_were_only_cut_off_end_when_they_meet_the_others_again() -> None:
    """The person was wrong: what was given up goes on, on its side. Both sides stay what they are, one of them ends."""

    async def scenario(seed: int) -> None:
        ring = OnPageCaches(seed)
        hosts = await ring.of(5)
        await until(ring.is_whole, SETTLED, "settled")
        away = hosts[:3]
        ring.world.network.partition([host.address for host in away], [host.address for host in hosts[3:]])
        await asyncio.sleep(ring.random.uniform(0, 15))
        await repaired(ring, hosts[3])
        nodes = {host.address: ring.nodes.pop(host.address) for host in away}
        await fill(ring, hosts[4], b"right")
        clients = Clients(ring, seed, rate=4)
        ring.world.network.heal()
        given_up = [node.tasks.failed for node in nodes.values()]
        await until(lambda: all(each.done() for each in given_up), SETTLED, "they end")
        assert all(isinstance(each.exception(), WrongRing) for each in given_up)
        for host in away:
            host.crash(power=True)
        await asyncio.sleep(5)
        await clients.stop()
        assert_linearizable(clients.history)
        for key in KEYS:
            assert await read(ring, hosts[3], key) == b"right"

    for_each_seed(3, scenario)


def test_an_arc_lost_its_only_replica_to_a_power_cut_while_keepers_answer() -> None:
    async def scenario(seed: int) -> None:
        ring = OnPageCaches(seed)
        ring.policy = StartOptions(durability="os", replicas=1)
        hosts = await ring.of(4)
        await until(ring.is_whole, SETTLED, "settled")
        await fill(ring, hosts[0], b"value")
        victim = ring.random.choice(hosts)
        victim.disk.write_back()
        ring.crash(victim)
        await ring.start(host=victim)
        problems = await repaired(ring, ring.random.choice(hosts))
        assert set(problems.values()) == {salvage.FORGETFUL, salvage.WHOLE}
        for key in KEYS:
            assert await read(ring, ring.random.choice(hosts), key) == b"value"

    for_each_seed(2, scenario)


def test_all_machines_lost_power_and_what_their_disks_have_goes_on() -> None:
    async def scenario(seed: int) -> None:
        ring = OnPageCaches(seed)
        hosts = await ring.of(4)
        await until(ring.is_whole, SETTLED, "settled")
        await fill(ring, hosts[0], b"on the disk")
        for host in hosts:
            host.disk.write_back()
        await persistently(lambda: ring.node(hosts[0]).data.operations.put(KEYS[0], b"in the page cache"))
        for host in hosts:
            ring.crash(host)
        await asyncio.gather(*(ring.start(host=host) for host in hosts))
        with pytest.raises(NoQuorum, match="force-repair"):
            await ring.node(hosts[0]).data.operations.get(KEYS[0])
        problems = await repaired(ring, hosts[1])
        assert set(problems.values()) == {salvage.FORGETFUL}
        await until(ring.is_whole, SETTLED, "settled again")
        for key in KEYS:
            assert await read(ring, hosts[2], key) == b"on the disk"

    for_each_seed(2, scenario)
