"""Whole nodes whose commits are done in the page cache, on machines that lose power."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from node.chain.keyspace import Keyspace
from node.codec import Address
from node.replication.arrival import StartOptions
from node.simulation.faults import LOSSY
from node.simulation.world import Host
from tests.chain.chaos import Clients, assert_linearizable
from tests.simulation.rings import SimulatedRing, until

SETTLED = 120.0


class OnPageCaches(SimulatedRing):
    """A ring with `--durability os`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, LOSSY)
        self.policy = StartOptions(durability="os")

    @property
    def spaces(self) -> Mapping[Address, Keyspace]:
        return {address: node.keyspace for address, node in self.nodes.items()}

    def space(self, host: Host) -> Keyspace:
        return self.node(host).keyspace

    def wall_of(self, host: Host) -> Callable[[], float]:
        """Somebody sets it again and again: nothing but the end of values with a time to live depends on it."""
        random = Random(f"wall {host.address}")
        return lambda: host.clock() + random.uniform(-1e6, 1e6)

    async def write_back(self, hosts: list[Host]) -> None:
        """Kernels write their page caches to their disks, each when it likes."""
        random = Random(f"write back {self.random.random()}")
        while True:
            await asyncio.sleep(random.expovariate(1.0))
            random.choice(hosts).disk.write_back()


async def machines_lose_power(seed: int, losses: int) -> None:
    """One at a time, under load, each as soon as the ring is whole again."""
    ring = OnPageCaches(seed)
    hosts = await ring.of(4)
    await until(ring.is_whole, SETTLED, "settled")
    writing_back = asyncio.ensure_future(ring.write_back(hosts))
    clients = Clients(ring, seed, rate=10)
    for _ in range(losses):
        await asyncio.sleep(ring.random.uniform(0, 4))
        await until(ring.is_whole, SETTLED, "settled again")
        victim = ring.random.choice(hosts)
        ring.crash(victim)
        await asyncio.sleep(ring.random.choice([0.1, 0.5, 5.0]))
        await ring.start(host=victim)
    await clients.stop()
    writing_back.cancel()
    assert_linearizable(clients.history)
