"""Nodes with chains in simulation; members stand where chance puts them, there is no Chord."""

from __future__ import annotations

import asyncio
from random import Random

from node.chain.cartography import Chart
from node.chain.keyspace import Keyspace
from node.chain.ring_map import Entry, Policy, Resident, RingMap, Seat
from node.chain.router import Router
from node.chain.tending import KEEPERS
from node.client.atlas import Atlas
from node.codec import Address, pack, unpack
from node.errors import RingError
from node.identifiers import RING, Arc, Identifier
from node.register.acceptor import Acceptor
from node.register.keepers import Keepers
from node.register.messages import Configuration, Keeper, Record
from node.settings import Settings
from node.simulation.faults import CALM, Faults
from node.simulation.world import Host, World
from node.tasks import Tasks
from node.transport import Switchboard
from tests.simulation.disks import SlowStore

SETTINGS = Settings.profile("local")


class Client:
    """A program that is on no node."""

    def __init__(self, host: Host, atlas: Atlas, settings: Settings) -> None:
        self.host = host
        self.atlas = atlas
        self.settings = settings
        self.router = Router(atlas, host.transport, settings, host.random)


def _resident(host: Host, life: bytes) -> Resident:
    return Resident(life, host.address, str(host.address))


class ChainRing:
    """Hosts with chains on them, whose map the nodes keep themselves."""

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS, replicas: int = 3) -> None:
        self.world = World(seed, faults)
        self.random = Random(f"scenario {seed}")
        self.settings = settings
        self.policy = Policy(replicas)
        self.spaces: dict[Address, Keyspace] = {}
        self.lives: dict[Address, bytes] = {}
        self.lives_are_kept = False
        """For a mutant: a node that lost its disk comes back under its old life."""
        self.failures: list[BaseException] = []

    @property
    def chart(self) -> Chart:
        """The latest map that any node knows."""
        charts = [space.cartography.chart for space in self.spaces.values() if space.cartography.chart is not None]
        return max(charts, key=lambda chart: chart.record.revision)

    @property
    def map(self) -> RingMap:
        return self.chart.ring

    def space(self, host: Host) -> Keyspace:
        return self.spaces[host.address]

    async def start(self, host: Host | None = None, seat: Identifier | None = None) -> Host:
        """Bring up a node, or bring one back; it is in the map when this returns. A new one sits where chance puts it
        unless `seat` says where."""
        host = host or self.world.host()
        host.start()
        await host.run(self._boot(host, None, seat))
        return host

    async def _boot(self, host: Host, founding: Record | None, seat: Identifier | None = None) -> None:
        life = self._life(host)
        store = SlowStore(host.disk, host.random)
        acceptor = await Acceptor.load(store, life, self.settings, host.clock)
        known = await Keyspace.known_record(store)
        if known is None and not self.spaces:
            founding = founding or self._founding([host])
        if founding is not None and life in [keeper.life for keeper in founding.configuration.keepers]:
            await acceptor.found(founding)
        known = known or founding or self.chart.record
        space = self._space(host, life, store, known)
        receive = Switchboard()
        space.connect(receive)
        acceptor.connect(receive)
        await space.load()
        if founding is not None:
            await space.found(unpack(RingMap, founding.value))
        await space.cartography.learn(known)
        host.listen(receive)
        self.spaces[host.address] = space
        space.begin()
        while True:
            try:
                await space.join(self.map.seats_of(life) or (seat or self._seat(),))
                return
            except RingError:
                await asyncio.sleep(0.1)

    def _space(self, host: Host, life: bytes, store: SlowStore, known: Record) -> Keyspace:
        tasks = Tasks()
        tasks.failed.add_done_callback(self._failed)
        resident = _resident(host, life)
        register = Keepers(host.transport, self.settings, host.random, host.clock, life, known)
        arguments = (resident, store, host.transport, self.settings, host.random, host.clock, host.clock)
        return Keyspace(*arguments, tasks, register)

    def _failed(self, failed: asyncio.Future[None]) -> None:
        if not failed.cancelled() and (error := failed.exception()) is not None:
            self.failures.append(error)

    def _life(self, host: Host) -> bytes:
        return self.lives.setdefault(host.address, host.random.randbytes(16))

    def _seat(self) -> Identifier:
        return Identifier(self.random.randrange(RING))

    def _founding(self, hosts: list[Host]) -> Record:
        """The record that a ring of these hosts begins with: every arc is where the ring wants it."""
        lives = {self._life(host): host for host in hosts}
        residents = tuple(_resident(host, life) for life, host in lives.items())
        seats = sorted((Seat(self._seat(), life) for life in lives), key=lambda seat: seat.id)
        empty = RingMap(self.policy, residents, tuple(seats))
        arcs = [Arc(before.id, seat.id) for before, seat in zip((seats[-1], *seats), seats, strict=False)]
        ring = RingMap(self.policy, residents, tuple(seats), tuple(Entry(arc, 1, empty.wanted(arc)) for arc in arcs))
        keepers = [Keeper(life, host.address) for life, host in lives.items()]
        count = next(keepers for nodes, keepers in KEEPERS if len(hosts) >= nodes)
        return Record(1, b"", pack(ring), Configuration(tuple(keepers[:count])))

    async def of(self, count: int) -> list[Host]:
        """A ring that grew to `count` nodes one by one."""
        return [await self.start() for _ in range(count)]

    async def founded(self, count: int) -> list[Host]:
        """A ring that has been one of `count` nodes for long."""
        hosts = [self.world.host() for _ in range(count)]
        founding = self._founding(hosts)
        for host in hosts:
            host.start()
        await asyncio.gather(*(host.run(self._boot(host, founding)) for host in hosts))
        return hosts

    def client(self) -> Client:
        """One more client, on a host of its own, that knows the map as it is now."""
        host = self.world.host()
        host.start()
        return Client(host, Atlas(self.chart.record, self.spaces, host.transport, self.settings), self.settings)

    def crash(self, host: Host) -> None:
        """The process is gone, and what was not durable."""
        del self.spaces[host.address]
        host.crash(power=True)

    def wipe(self, host: Host) -> None:
        """The disk of a host that is off was replaced: what starts there is another life."""
        host.disk.wipe()
        if not self.lives_are_kept:
            del self.lives[host.address]

    def is_settled(self) -> bool:
        """Every arc is where the ring wants it, every member of every chain follows, live nodes keep the map."""
        ring = self.map
        spaces = {space.resident.life: space for space in self.spaces.values()}
        for entry in ring.entries:
            if ring.cut(entry.arc) is not None or ring.wanted(entry.arc) != entry.chain:
                return False
            for life in entry.chain:
                replica = spaces[life].held.of(entry.arc) if life in spaces else None
                if replica is None or not replica.follows or replica.state.epoch != entry.epoch:
                    return False
        configuration = self.chart.record.configuration
        count = next(keepers for nodes, keepers in KEEPERS if len(ring.seats) >= nodes)
        kept = len(configuration.keepers) == count and not configuration.following
        return kept and len(ring.entries) == len(ring.seats) and {k.life for k in configuration.keepers} <= set(spaces)
