"""Rings in simulation: nodes as they run on real hosts, on virtual time, with Zave's invariant checked after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

from node.codec import Address
from node.errors import RingError
from node.identifiers import BITS, Identifier, successor_index
from node.replication.node import RingNode, StartOptions
from node.settings import Settings
from node.simulation.faults import CALM, Faults
from node.simulation.world import Host, World
from node.store.memory import MemoryStore

SETTINGS = Settings.profile("local")


class SimulatedRing:
    """Hosts and the nodes that run on them."""

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS) -> None:
        self.world = World(seed, faults)
        self.random = Random(f"scenario {seed}")
        self.settings = settings
        self.nodes: dict[Address, RingNode] = {}

    async def start(self, first: Host | None = None, host: Host | None = None, members: int = 1) -> Host:
        """Bring up one more node, or one that was down; returns when it is in the ring."""
        host = host or self.world.host()
        options = StartOptions(members=members, first=first.address if first else None)
        host.start()
        await host.run(self._boot(host, options))
        return host

    async def _boot(self, host: Host, options: StartOptions) -> None:
        store = MemoryStore(host.disk, host.random)
        node = await RingNode.open(host.address, store, host.transport, self.settings, host.random, host.clock)
        self.nodes[host.address] = node
        host.listen(node.receive)
        await node.start(options)

    async def of(self, count: int) -> list[Host]:
        """A ring of `count` nodes."""
        hosts = [await self.start()]
        for _ in range(count - 1):
            hosts.append(await self.start(self.random.choice(hosts)))
        return hosts

    def node(self, host: Host) -> RingNode:
        """The node that runs on a host."""
        return self.nodes[host.address]

    async def leave(self, host: Host) -> None:
        """A graceful leave, and the end of the process."""
        await host.run(self.node(host).leave())
        host.crash()

    def lists(self) -> dict[Identifier, tuple[Identifier, ...]]:
        """The successor list of every live member."""
        return {
            member.me.id: tuple(contact.id for contact in member.state.successors)
            for host in self.world.hosts
            if host.alive
            for member in self.node(host).residence.members.values()
        }

    def is_ideal(self, fingers: bool = False) -> bool:
        """Whether every live member's pointers are exactly what they should be."""
        members = [m for h in self.world.hosts if h.alive for m in self.node(h).residence.members.values()]
        ordered = sorted(member.me.id for member in members)
        for member in members:
            at = ordered.index(member.me.id)
            following = [ordered[(at + step) % len(ordered)] for step in range(1, len(ordered))][: self.settings.successors]
            if [contact.id for contact in member.state.successors] != following:
                return False
            if member.state.predecessor is None or member.state.predecessor.id != ordered[at - 1]:
                return False
            if fingers and any(
                member.fingers.finger(i).id != ordered[successor_index(ordered, member.me.id.finger_start(i))]
                for i in range(BITS)
            ):
                return False
        return True


async def until(condition: Callable[[], bool], within: float, what: str) -> None:
    """Wait for a condition in virtual time. Raises AssertionError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.05)


async def persistently(operation: Callable[[], object], within: float = 60.0) -> object:
    """An operation as a patient client does it: again until it works or `within` seconds are over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        try:
            return await operation()  # type: ignore[misc]
        except RingError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.1)


def quick(**changes: float) -> Settings:
    """Settings with some changes."""
    return replace(SETTINGS, **changes)  # type: ignore[arg-type]
