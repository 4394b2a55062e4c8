"""Rings in simulation: nodes as on real hosts, on virtual time, with Zave's invariant checked after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

from node.chord.invariant import Watch, holds
from node.chord.member import Member
from node.codec import Address
from node.errors import RingError
from node.identifiers import BITS, successor_index
from node.replication.node import RingNode, StartOptions
from node.settings import Settings
from node.simulation.faults import CALM, Faults
from node.simulation.world import Host, World
from node.store.memory import MemoryStore

SETTINGS = Settings.profile("local")


class InvariantBroken(AssertionError):
    """Zave's invariant does not hold."""


class WatchedNode(RingNode):
    """A node whose every change of a list is told to the ring's watch at the moment it happens."""

    watch: Callable[[Member], None]

    def _settle_in(self, member: Member) -> None:
        super()._settle_in(member)
        self.watch(member)

    def _ring_changed(self) -> None:
        super()._ring_changed()
        for member in self.residence.members.values():
            self.watch(member)


class SimulatedRing:
    """Hosts and the nodes that run on them.

    Zave's invariant is kept up to date at every change of a list, every join and every death; `checking` makes it an
    error if it does not hold.
    """

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS) -> None:
        self.invariant = Watch(settings.successors)
        self.checking = False
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
        node = await WatchedNode.open(host.address, store, host.transport, self.settings, host.random, host.clock)
        assert isinstance(node, WatchedNode)
        node.watch = self._changed
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
        self.crash(host)

    def crash(self, host: Host) -> None:
        """The process is gone, with what was not durable."""
        for member in self.nodes.pop(host.address).residence.members:
            self.invariant.remove(member)
        host.crash(power=True)
        self._check("the death of a member")

    def may_crash(self, host: Host) -> bool:
        """Zave's precondition of *fail*: the invariant holds without this host.

        Her answers arrive at once; ours are on their way meanwhile, and a list that is a little older may be adopted
        after the death. So every member must keep two live successors, of which the older list has at least one.
        """
        left = dict(self.invariant.ring)
        for member in self.node(host).residence.members:
            del left[member]
        spare = all(sum(successor in left for successor in successors) >= 2 for successors in left.values())
        return spare and holds(left, self.settings.successors)

    def _changed(self, member: Member) -> None:
        self.invariant.update(member.me.id, tuple(contact.id for contact in member.state.successors))
        self._check(f"a change of {member.me}")

    def _check(self, event: str) -> None:
        if self.checking and not self.invariant.holds():
            raise InvariantBroken(f"after {event}: {self.invariant.broken()}")

    def is_ideal(self, fingers: bool = False) -> bool:
        """Whether every live member's pointers are exactly what they should be."""
        members = [member for node in self.nodes.values() for member in node.residence.members.values()]
        ordered = sorted(member.me.id for member in members)
        for member in members:
            at = ordered.index(member.me.id)
            following = [ordered[(at + step) % len(ordered)] for step in range(1, len(ordered))][
                : self.settings.successors
            ]
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
