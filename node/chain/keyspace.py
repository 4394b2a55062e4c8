"""The data side of a node: its replicas and all that keeps them in their chains, put together.

What is wired here knows the ring by its map only; where members stand and who follows whom is chord's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from random import Random

from node.chain import messages as m
from node.chain.cartography import Cartography, Chart, Register
from node.chain.chains import Chains
from node.chain.change import Changer
from node.chain.lease import Lease
from node.chain.links import Links
from node.chain.mirror import Source
from node.chain.pulse import Pulse
from node.chain.replicas import Replicas
from node.chain.ring_map import Life, Resident, RingMap
from node.chain.router import Router
from node.chain.sweep import Sweep
from node.chain.tending import Tending
from node.chain.verify import verify
from node.codec import Address, pack, unpack
from node.data import Verified
from node.errors import Conflict, Moved, OutcomeUnknown, RingError, StoreFull
from node.events import Event
from node.identifiers import Identifier, name_of
from node.register.messages import Record
from node.settings import Settings
from node.store.interface import Batch, Store
from node.tasks import Tasks
from node.transport import Switchboard, Transport

log = logging.getLogger(__name__)

MAP = "map"
OPERATIONS = 600.0
"""Seconds after which an operation is not tried again any more and may be forgotten."""


class Keyspace:
    """One node's part in the chains."""

    def __init__(
        self,
        resident: Resident,
        store: Store,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tasks: Tasks,
        register: Register,
    ) -> None:
        self.resident = resident
        self.settings = settings
        self._tasks = tasks
        self._transport = transport
        self._store = store
        self._seats: tuple[Identifier, ...] = ()
        self.held = Replicas(store, tasks.spawn, clock, resident.life)
        self.cartography = Cartography(register, self._adopt)
        self.lease = Lease(register, self.cartography, settings, clock, resident.life)
        self._links = Links(transport, settings, tasks, self.address_of)
        self.chains = Chains(self.held, self._links, settings, self.lease, wall)
        self._pulse = Pulse(self.cartography, transport, settings, resident.life)
        self.changer = Changer(self.cartography, transport, settings, resident.life, self._pulse.seems_alive)
        self.tending = Tending(
            self.cartography, self.changer, self.held, self._pulse, transport, settings, random, tasks
        )
        self.operations = Router(self.cartography, transport, settings, random, self.chains)
        self.traffic = self.chains.traffic
        self._sweep = Sweep(self.held, self.operations, settings, random, wall)
        self._source = Source(self.held, settings, random)

    def connect(self, receive: Switchboard) -> None:
        """Answer what nodes ask each other about chains."""
        receive.connect(m.WRITE, self.chains.write)
        receive.connect(m.READ, self.chains.read, self.chains.read_at_once)
        receive.connect(m.SCAN, self.chains.scan)
        receive.connect(m.WATCH, self.chains.watch)
        receive.connect(m.CHART, self._charted)
        receive.connect(m.LINK, self.chains.link)
        receive.connect(m.APPEND, self.chains.append)
        receive.connect(m.STILL, self.chains.still)
        receive.connect(m.SEAL, self.chains.seal)
        receive.connect(m.BEGIN, self._source.begin)
        receive.connect(m.PULL, self._source.pull)
        receive.connect(m.SUM, self._source.sum)
        receive.connect(m.DELTA, self._source.delta)
        receive.connect(m.NEWS, self.cartography.learn)
        receive.connect(m.DIGEST, self.chains.digest)
        receive.connect(m.COUNT, self.chains.count)
        receive.connect(m.ALIVE, self._alive)

    async def _charted(self, revision: int) -> Record:
        chart = self.cartography.chart
        if chart is None or chart.record.revision <= revision:
            chart = await self.cartography.current()
        return chart.record

    async def _alive(self, revision: int) -> m.Sign:
        chart = self.cartography.chart
        news = chart.record if chart is not None and chart.record.revision > revision else None
        return m.Sign(self.resident.life, news)

    def address_of(self, life: Life) -> Address | None:
        """Where a node is, by the map."""
        resident = self.cartography.ring.resident(life) if self.cartography.ring is not None else None
        return resident.address if resident is not None else None

    # -- coming and going --------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up the replicas that the store left."""
        await self.held.load()
        for replica in self.held:
            self._links.follow(replica)

    @staticmethod
    async def known_record(store: Store) -> Record | None:
        """The last ring map that was known in the store, packed, and who kept it; None in a new one."""
        note = await store.read_note(MAP)
        return unpack(Record, note) if note is not None else None

    async def found(self, ring: RingMap) -> None:
        """Hold what is this node's of a ring that begins with it."""
        for entry in ring.of(self.resident.life):
            self._links.follow(await self.held.found(entry))

    def begin(self) -> None:
        """Begin all rounds."""
        for rounds in (
            self.lease.keep(),
            self._keep_seated(),
            self.tending.keep(),
            self._keep_short(),
            self._sweep.keep(),
        ):
            self._tasks.spawn(rounds)

    def ring_changed(self) -> None:
        """Nothing to do: the map tells where members stand."""

    async def serves(self) -> bool:
        """Whether this node holds a lease."""
        await self.lease.obtain()
        return self.lease.holds()

    def claim(self, seats: Iterable[Identifier]) -> None:
        """Be in the map with these members as soon as can be."""
        self._seats = tuple(sorted(seats))

    async def wake(self, others: Iterable[Address]) -> None:
        """Nothing to do: what a replica is worth is told by the ring map alone."""

    async def join(self, seats: tuple[Identifier, ...]) -> None:
        """Be in the map with these members. Raises NoQuorum."""
        self.claim(seats)
        while True:
            chart = await self.cartography.current()
            ring = chart.ring
            if ring.resident(self.resident.life) == self.resident and ring.seats_of(self.resident.life) == self._seats:
                return
            try:
                joined = await self.cartography.replace(chart, ring.joined(self.resident, seats))
                await self.changer.tell(joined, {resident.life for resident in joined.ring.residents})
            except (Conflict, OutcomeUnknown):
                await asyncio.sleep(self.settings.backoff)

    async def _keep_seated(self) -> None:
        """A node that was away for long was put out of the map: be in it again."""
        while True:
            await asyncio.sleep(self.settings.stabilize_period)
            ring = self.cartography.ring
            if self._seats and ring is not None and ring.seats_of(self.resident.life) != self._seats:
                try:
                    await self.join(self._seats)
                except RingError as error:
                    log.info("not in the ring map: %s; trying again", error)

    async def close(self) -> None:
        """Hold nothing any more; done when nothing is on its way to the disk."""
        await self.held.close()

    async def reopen(self) -> None:
        """Hold again what is on the disk."""
        await self.load()

    async def part(self) -> bool:
        """Have other nodes take over all that this one holds and keeps; True once they have, False if there is nobody
        who would. Raises NoQuorum."""
        self._seats = ()
        me = self.resident.life
        while True:
            chart = await self.cartography.current()
            if not any(seat.life != me for seat in chart.ring.seats):
                return False
            if chart.ring.seats_of(me):
                try:
                    chart = await self.cartography.replace(chart, chart.ring.parted(me))
                    await self.changer.tell(chart, {resident.life for resident in chart.ring.residents})
                except (Conflict, OutcomeUnknown):
                    continue
            keepers = {k.life for group in chart.record.configuration.groups for k in group}
            if me not in keepers and chart.ring.resident(me) is None:
                return True
            await asyncio.sleep(self.settings.backoff)

    async def replicas(self, key: bytes) -> tuple[tuple[Address, str], ...]:
        """The chain of a key, the head first and the tail last. Raises NoQuorum."""
        ring = (await self.cartography.current()).ring
        chain = ring.holding(name_of(key)).chain
        roles = ["only"] if len(chain) == 1 else ["head", *["middle"] * (len(chain) - 2), "tail"]
        residents = [(ring.resident(life), role) for life, role in zip(chain, roles, strict=True)]
        return tuple((resident.address, role) for resident, role in residents if resident is not None)

    async def verify(self) -> tuple[Verified, ...]:
        """Compare the replicas of all arcs by a digest of all they hold. Raises NoQuorum."""
        ring = (await self.cartography.current()).ring
        return await verify(ring, self._transport, self.settings)

    def strangers(self, neighbours: Iterable[Address]) -> set[Address]:
        """Where nodes may be that know another map: those of the map that do not answer as they should, and neighbours
        that are not in it."""
        residents = self.cartography.ring.residents if self.cartography.ring is not None else ()
        if not residents:
            return set()
        silent = {each.address for each in residents if not self._pulse.seems_alive(each.life)}
        return silent | (set(neighbours) - {each.address for each in residents})

    # -- the map and the lease ---------------------------------------------------------------------------------------

    async def _adopt(self, chart: Chart) -> None:
        ring = chart.ring
        self._tell_changes(ring)
        self.held.supersede(ring)
        batch = Batch()
        batch.note(MAP, pack(chart.record))
        try:
            await self._store.commit(batch)
        except StoreFull as error:  # it counts all the same: without it there is no lease, and so no reads
            log.debug("a newer map was not noted: %s", error)
        for entry in ring.of(self.resident.life):
            try:
                replica = await self.held.adopt(entry)
            except Moved as error:
                log.error("this node should hold %s and does not: %s", entry.arc, error)
                continue
            if replica is not None:
                self._links.follow(replica)
        self.tending.wanted.set()
        self.lease.renew()

    def _tell_changes(self, after: RingMap) -> None:
        """What a newer map says of the ring and of the arcs of this node."""
        before = self.cartography.ring
        if before is None:
            return
        old, new = ({each.address for each in ring.residents} for ring in (before, after))
        for address in new - old:
            Event.NODE_ENTERED.tell(log, "%s is in the ring map: %d nodes", address, len(new))
        for address in old - new:
            Event.NODE_GONE.tell(log, "%s is not in the ring map any more: %d nodes", address, len(new))
        for entry in set(after.of(self.resident.life)) - set(before.of(self.resident.life)):
            residents = map(after.resident, entry.chain)
            chain = " ".join(str(each.address) for each in residents if each is not None)
            Event.ARC_CHANGED.tell(log, "%s epoch %d: %s", entry.arc, entry.epoch, chain)

    async def _keep_short(self) -> None:
        """Forget operations that nobody tries again, and copies that nobody goes on with."""
        while True:
            await asyncio.sleep(OPERATIONS / 10)
            for replica in self.held:
                replica.forget_operations(OPERATIONS)
            self._source.expire()
