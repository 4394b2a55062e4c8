"""Rings in simulation: nodes as on real hosts, on virtual time, with Zave's invariant checked after every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

from node.chord.fingers import first_finger_beyond
from node.chord.household import Household
from node.chord.invariant import Watch, holds
from node.chord.member import Member
from node.codec import Address
from node.errors import RingError
from node.identifiers import BITS, Identifier, successor_index
from node.replication.arrival import StartOptions
from node.replication.node import RingNode
from node.settings import Settings
from node.simulation.faults import CALM, Faults
from node.simulation.world import Host, World
from node.tasks import Tasks
from node.transport import Switchboard
from tests.simulation.disks import SlowStore

SETTINGS = Settings.profile("local")


class InvariantBroken(AssertionError):
    """Zave's invariant does not hold."""


class Ring:
    """Hosts with members of a ring on them; what runs on a host is up to those that derive from this.

    Zave's invariant is kept up to date at every change of a list, every join and every death; `checking` makes it an
    error if it does not hold.
    """

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS) -> None:
        self.invariant = Watch(settings.successors)
        self.checking = False
        self.world = World(seed, faults)
        self.random = Random(f"scenario {seed}")
        self.settings = settings
        self.households: dict[Address, Household] = {}

    async def start(self, first: Host | None = None, host: Host | None = None, members: int = 1) -> Host:
        """Bring up one more node, or one that was down; returns when it is in the ring."""
        host = host or self.world.host()
        host.start()
        await host.run(self._boot(host, first, members))
        return host

    async def _boot(self, host: Host, first: Host | None, members: int) -> None:
        raise NotImplementedError

    async def of(self, count: int) -> list[Host]:
        """A ring of `count` nodes."""
        hosts = [await self.start()]
        for _ in range(count - 1):
            hosts.append(await self.start(self.random.choice(hosts)))
        return hosts

    async def leave(self, host: Host) -> None:
        """A graceful leave, and the end of the process."""
        raise NotImplementedError

    def crash(self, host: Host) -> None:
        """The process is gone, with what was not durable."""
        for member in self.households.pop(host.address).residence.members:
            self.invariant.remove(member)
        host.crash(power=True)
        self._check("the death of a member")

    def may_crash(self, host: Host) -> bool:
        """Zave's precondition of *fail*: the invariant holds without this host.

        Her answers arrive at once; ours are on their way meanwhile, and a list that is a little older may be adopted
        after the death. So every member must keep two live successors, of which the older list has at least one.
        """
        left = dict(self.invariant.ring)
        for member in self.households[host.address].residence.members:
            del left[member]
        spare = all(sum(successor in left for successor in successors) >= 2 for successors in left.values())
        return spare and holds(left, self.settings.successors)

    def changed(self, member: Member) -> None:
        """To be told of every change of a member's pointers, at the moment it happens."""
        self.invariant.update(member.me.id, tuple(contact.id for contact in member.state.successors))
        self._check(f"a change of {member.me}")

    def _check(self, event: str) -> None:
        if self.checking and not self.invariant.holds():
            raise InvariantBroken(f"after {event}: {self.invariant.broken()}")

    def is_ideal(self, fingers: bool = False) -> bool:
        """Whether every live member's pointers are exactly what they should be."""
        members = [member for household in self.households.values() for member in household.residence.members.values()]
        ordered = sorted(member.me.id for member in members)
        place = {each: at for at, each in enumerate(ordered)}
        return all(self._is_ideal(member, ordered, place[member.me.id], fingers) for member in members)

    def _is_ideal(self, member: Member, ordered: list[Identifier], at: int, fingers: bool) -> bool:
        count = min(self.settings.successors, len(ordered) - 1)
        following = [ordered[(at + step) % len(ordered)] for step in range(1, count + 1)]
        if [contact.id for contact in member.state.successors] != following:
            return False
        if member.state.predecessor is None or member.state.predecessor.id != ordered[at - 1]:
            return False
        runs = [(i, contact.id) for i, contact in member.fingers.runs]
        return not fingers or runs == _ideal_fingers(member.me.id, ordered)


def _ideal_fingers(me: Identifier, ordered: list[Identifier]) -> list[tuple[int, Identifier]]:
    """The finger table that a member should have: the first finger of each run, and whom it points at."""
    runs: list[tuple[int, Identifier]] = []
    i = 0
    while i < BITS:
        runs.append((i, ordered[successor_index(ordered, me.finger_start(i))]))
        i = first_finger_beyond(me, runs[-1][1], i)
    return runs


class SimulatedChord(Ring):
    """Members alone: no store, nothing held."""

    async def _boot(self, host: Host, first: Host | None, members: int) -> None:
        receive = Switchboard()
        arguments = (host.address, host.transport, self.settings, host.random, host.clock)
        household = Household(*arguments, Tasks(), self.changed)
        household.neighbours.ring = b"ring"
        household.connect(receive)
        host.listen(receive)
        self.households[host.address] = household
        if first is None:
            household.found(Identifier(self.random.getrandbits(BITS)))
        through = self.households[first.address if first else host.address].residence.first.me
        while len(household.residence.members) < members:
            await household.join(through, None)
        host.spawn(self._rounds(household))

    async def _rounds(self, household: Household) -> None:
        while True:
            await asyncio.sleep(self.settings.reunion_period)
            await household.reunite()
            await household.give_way()

    async def leave(self, host: Host) -> None:
        """A graceful leave, and the end of the process."""
        await host.run(self.households[host.address].say_goodbye())
        self.crash(host)


class WatchedNode(RingNode):
    """A node whose every change of a list is told to the ring's watch at the moment it happens."""

    watch: Callable[[Member], None]

    def _ring_changed(self, member: Member) -> None:
        super()._ring_changed(member)
        self.watch(member)


class SimulatedRing(Ring):
    """Whole nodes."""

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS) -> None:
        super().__init__(seed, faults, settings)
        self.nodes: dict[Address, RingNode] = {}
        self.policy = StartOptions()
        """What the first node says of the ring."""

    async def boot(self, host: Host, first: Host | None = None) -> None:
        """What `start` has a host do that runs, for those who do not wait until it is done."""
        await self._boot(host, first, 1)

    async def _boot(self, host: Host, first: Host | None, members: int) -> None:
        store = SlowStore(host.disk, host.random)
        clock, wall, boot = host.clock, self.wall_of(host), self.boot_of(host)
        node = await WatchedNode.open(
            host.address, store, host.transport, self.settings, host.random, clock, wall, boot
        )
        assert isinstance(node, WatchedNode)
        node.watch = self.changed
        self.nodes[host.address] = node
        self.households[host.address] = node.household
        host.listen(node.receive)
        options = self.policy if first is None else StartOptions(first=first.address)
        await node.start(replace(options, members=members))

    def wall_of(self, host: Host) -> Callable[[], float]:
        """The time of day there."""
        return host.clock

    def boot_of(self, host: Host) -> bytes:
        """What the kernel there calls the time since the machine was switched on."""
        return b"%d" % host.boots

    def is_whole(self) -> bool:
        """Whether every arc is held by all the nodes that should hold it, as the latest map says."""
        charts = [node.keyspace.cartography.chart for node in self.nodes.values()]
        ring = max((chart for chart in charts if chart is not None), key=lambda chart: chart.record.revision).ring
        return all(entry.chain == ring.wanted(entry.arc) and ring.cut(entry.arc) is None for entry in ring.entries)

    def node(self, host: Host) -> RingNode:
        """The node that runs on a host."""
        return self.nodes[host.address]

    async def leave(self, host: Host) -> None:
        """A graceful leave, and the end of the process."""
        await host.run(self.node(host).leave())
        self.crash(host)

    def crash(self, host: Host) -> None:
        """The process is gone, with what was not durable."""
        del self.nodes[host.address]
        super().crash(host)


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
