"""Nodes with chains in simulation, their map in an atomic register on a host of its own that never fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from node.chain.keyspace import Keyspace
from node.chain.ring_map import Policy, Resident, RingMap
from node.codec import Address, Message, pack, unpack
from node.errors import Conflict
from node.identifiers import RING, Identifier
from node.settings import Settings
from node.simulation.faults import CALM, Faults
from node.simulation.world import Host, World
from node.store.memory import MemoryStore
from node.tasks import Tasks
from node.transport import Method, Switchboard, Transport

SETTINGS = replace(Settings.profile("local"), lease=2.0)


class Reading(Message, frozen=True):
    """A revision and what was set in it."""

    revision: int
    value: bytes


class Setting(Message, frozen=True):
    """A compare-and-set."""

    revision: int
    value: bytes
    drops: tuple[bytes, ...]


class Leasing(Message, frozen=True):
    """A question for a lease."""

    life: bytes
    revision: int


RREAD: Method[None, Reading] = Method("atomic.read", type(None), Reading)
RSET: Method[Setting, Reading] = Method("atomic.set", Setting, Reading)
RLEASE: Method[Leasing, bool] = Method("atomic.lease", Leasing, bool)


class AtomicHost:
    """The register itself."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self.address = host.address
        self.settings = settings
        self.history: list[bytes] = [b""]
        self.grants: dict[bytes, float] = {}
        self.dropping: dict[bytes, int] = {}
        receive = Switchboard()
        receive.connect(RREAD, self._read)
        receive.connect(RSET, self._set)
        receive.connect(RLEASE, self._lease)
        host.start()
        host.listen(receive)

    @property
    def now(self) -> Reading:
        return Reading(len(self.history) - 1, self.history[-1])

    async def _read(self, _: None) -> Reading:
        return self.now

    async def _set(self, question: Setting) -> Reading:
        loop = asyncio.get_running_loop()
        for life in question.drops:
            self.dropping[life] = self.dropping.get(life, 0) + 1
        try:
            while any(self.grants.get(life, 0.0) > loop.time() for life in question.drops):
                await asyncio.sleep(0.05)
            if question.revision != self.now.revision:
                raise Conflict("changed by another node")
            self.history.append(question.value)
            return self.now
        finally:
            for life in question.drops:
                self.dropping[life] -= 1

    async def _lease(self, question: Leasing) -> bool:
        if question.revision != self.now.revision:
            return False
        if not self.dropping.get(question.life):
            self.grants[question.life] = asyncio.get_running_loop().time() + self.settings.lease
            return True
        raise Conflict("this node is about to be dropped")


class AtomicRegister:
    """How a node sees it."""

    def __init__(self, host: AtomicHost, transport: Transport, clock: object) -> None:
        self._host = host
        self._transport = transport
        self._clock = clock

    async def read(self) -> Reading:
        return await RREAD.ask(self._transport, self._host.address, None, deadline=2.0)

    async def compare_and_set(self, revision: int, value: bytes, drops: tuple[bytes, ...] = ()) -> Reading:
        question = Setting(revision, value, drops)
        return await RSET.ask(self._transport, self._host.address, question, deadline=self._host.settings.lease + 2)

    async def lease(self, life: bytes, revision: int) -> float | None:
        asked_at = self._clock()  # type: ignore[operator]
        granted = await RLEASE.ask(self._transport, self._host.address, Leasing(life, revision), deadline=1.0)
        return asked_at + self._host.settings.lease * 0.8 if granted else None


class SlowStore(MemoryStore):
    """A disk that takes a moment to read too, and sometimes, where told so, very long."""

    stalls = 0.0
    """Share of reads that take up to eight seconds."""

    async def get_many(self, wanted: list[tuple[Identifier, bytes]]) -> list[bytes | None]:
        stalls = self._random.random() < self.stalls
        await asyncio.sleep(self._random.uniform(0, 8) if stalls else self._random.expovariate(1 / 0.0005))
        return await super().get_many(wanted)


class ChainRing:
    """Hosts with chains on them."""

    def __init__(self, seed: int, faults: Faults = CALM, settings: Settings = SETTINGS, replicas: int = 3) -> None:
        self.world = World(seed, faults)
        self.random = Random(f"scenario {seed}")
        self.settings = settings
        self.policy = Policy(replicas)
        self.register = AtomicHost(self.world.host(), settings)
        self.spaces: dict[Address, Keyspace] = {}
        self.lives: dict[Address, bytes] = {}
        self.lives_are_kept = False
        """For a mutant: a node that lost its disk comes back under its old life."""
        self.failures: list[BaseException] = []

    @property
    def map(self) -> RingMap:
        return unpack(RingMap, self.register.history[-1])

    def space(self, host: Host) -> Keyspace:
        return self.spaces[host.address]

    async def start(self, host: Host | None = None) -> Host:
        """Bring up a node, or bring one back; it is in the map when this returns."""
        host = host or self.world.host()
        host.start()
        await host.run(self._boot(host))
        return host

    async def _boot(self, host: Host) -> None:
        life = self.lives.setdefault(host.address, host.random.randbytes(16))
        resident = Resident(life, host.address, str(host.address))
        tasks = Tasks()
        tasks.failed.add_done_callback(self._failed)
        register = AtomicRegister(self.register, host.transport, host.clock)
        space = Keyspace(
            resident,
            SlowStore(host.disk, host.random),
            host.transport,
            self.settings,
            host.random,
            host.clock,
            tasks,
            register,
            register,
        )
        receive = Switchboard()
        space.connect(receive)
        await space.load()
        if len(self.register.history) == 1:
            self.register.history.append(pack(await space.found(self.policy, [self._seat()])))
        host.listen(receive)
        self.spaces[host.address] = space
        space.begin()
        while True:
            try:
                await space.join(self.map.seats_of(life) or (self._seat(),))
                return
            except Exception:
                await asyncio.sleep(0.1)

    def _failed(self, failed: asyncio.Future[None]) -> None:
        if not failed.cancelled() and failed.exception() is not None:
            self.failures.append(failed.exception())

    def _seat(self) -> Identifier:
        return Identifier(self.random.randrange(RING))

    async def of(self, count: int) -> list[Host]:
        return [await self.start() for _ in range(count)]

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
        """Every arc is where the ring wants it, and every member of every chain follows."""
        ring = self.map
        spaces = {space.resident.life: space for space in self.spaces.values()}
        for entry in ring.entries:
            if ring.cut(entry.arc) is not None or ring.wanted(entry.arc) != entry.chain:
                return False
            for life in entry.chain:
                replica = spaces[life].replicas.of(entry.arc) if life in spaces else None
                if replica is None or not replica.follows or replica.state.epoch != entry.epoch:
                    return False
        return len(ring.entries) == len(ring.seats)
