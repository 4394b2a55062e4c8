"""Rounds that bring the chains a node is in, or should be in, to what the ring wants of them.

A node enters the chains of the arcs that are wanted of it: it copies, then runs the change that adds it. The first live
member of a chain does the rest: it drops the dead, cuts the arc where a member of the ring has come in, joins it with
the next where one has gone, lets go of those no longer wanted, and begins another epoch where a change broke off. When
it does not, the next one does. Decisions follow the map as it is known here and who seems alive; safety needs neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from random import Random
from typing import Protocol

from node.chain.cartography import Cartography
from node.chain.change import Changer
from node.chain.mirror import Destination
from node.chain.pulse import Pulse
from node.chain.replicas import Replicas
from node.chain.ring_map import Entry, Life, RingMap
from node.errors import Conflict, RingError
from node.events import Event
from node.identifiers import Arc
from node.register.messages import Keeper
from node.settings import Settings
from node.tasks import Tasks
from node.transport import Transport

log = logging.getLogger(__name__)

COPIES = 2
"""Arcs that a node copies at a time."""


KEEPERS = ((5, 5), (3, 3), (0, 1))
"""From how many nodes on how many of them keep the map."""


class Step(Protocol):
    """One of the changes that an arc may need."""

    def __call__(self, arc: Arc) -> Awaitable[None]: ...


class Tending:
    """The tending rounds of one node."""

    def __init__(
        self,
        cartography: Cartography,
        changer: Changer,
        replicas: Replicas,
        pulse: Pulse,
        transport: Transport,
        settings: Settings,
        random: Random,
        tasks: Tasks,
    ) -> None:
        self._cartography = cartography
        self._changer = changer
        self._replicas = replicas
        self._pulse = pulse
        self._transport = transport
        self._settings = settings
        self._random = random
        self._tasks = tasks
        self._life = replicas.life
        self._copying: set[Arc] = set()
        self._wrong_since: dict[tuple[Arc, int], float] = {}
        self.wanted = asyncio.Event()

    async def keep(self) -> None:
        """Round after round, until cancelled."""
        while True:
            self.wanted.clear()
            ring = self._cartography.ring
            if ring is not None:
                await self._round(ring)
            period = self._settings.settle_period / (4 if self._pulse.doubts else 1)
            try:
                async with asyncio.timeout(period * self._random.uniform(0.75, 1.25)):
                    await self.wanted.wait()
            except TimeoutError:
                continue

    async def _round(self, ring: RingMap) -> None:
        await self._pulse.feel(r for r in ring.residents if r.life in self._neighbourhood(ring))
        await self._evict(ring)
        wrong: dict[tuple[Arc, int], float] = {}
        steps = [(entry, self._step(ring, entry)) for entry in ring.of(self._life)]
        await asyncio.gather(*(self._tend(entry, step, wrong) for entry, step in steps if step is not None))
        self._wrong_since = wrong
        for entry in ring.entries:
            if self._life not in entry.chain and self._life in ring.wanted(entry.arc):
                self._enter(ring, entry)
        await self._retire(ring)
        await self._tend_keepers()

    def _neighbourhood(self, ring: RingMap) -> set[Life]:
        """The nodes this one has to do with: those it shares arcs with, and those right before its members."""
        near = {life for entry in ring.of(self._life) for life in entry.chain}
        lives = [seat.life for seat in ring.seats]
        near.update(lives[at - 1] for at, life in enumerate(lives) if life == self._life)
        return near

    # -- the chains it is in -----------------------------------------------------------------------------------------

    async def _tend(self, entry: Entry, step: Step, wrong: dict[tuple[Arc, int], float]) -> None:
        now = asyncio.get_running_loop().time()
        since = wrong[entry.arc, entry.epoch] = self._wrong_since.get((entry.arc, entry.epoch), now)
        alive = [life for life in entry.chain if self._pulse.seems_alive(life)]
        if now - since >= alive.index(self._life) * 2 * self._settings.call:
            await self._attempt(step(entry.arc))

    def _step(self, ring: RingMap, entry: Entry) -> Step | None:
        """What should be done about an arc, the most urgent first."""
        if not all(self._pulse.seems_alive(life) for life in entry.chain):
            return self._changer.rechain
        replica = self._replicas.of(entry.arc)
        if replica is not None and replica.state.sealed >= entry.epoch:  # a change goes on, or broke off
            return None if replica.is_changed else self._changer.rechain
        wanted = ring.wanted(entry.arc)
        if ring.cut(entry.arc) is not None:
            return self._changer.split
        full = set(wanted) <= set(entry.chain)
        if full and wanted and wanted != entry.chain:
            return self._changer.rechain
        following = ring.mergeable(entry)
        if following is not None and full and all(self._pulse.seems_alive(life) for life in following.chain):
            return self._changer.merge
        return None

    async def _attempt(self, step: Awaitable[None]) -> None:
        try:
            await step
        except Conflict as error:
            log.debug("another node was faster: %s", error)
        except RingError as error:
            log.info("%s; trying again", error)

    # -- the chains it should be in ------------------------------------------------------------------------------------

    def _enter(self, ring: RingMap, entry: Entry) -> None:
        """Begin to copy an arc; once it is copied, join its chain."""
        if len(self._copying) >= COPIES or entry.arc in self._copying or ring.cut(entry.arc) is not None:
            return
        self._copying.add(entry.arc)
        self._tasks.spawn(self._entered(entry.arc))

    async def _entered(self, arc: Arc) -> None:
        try:
            await self._attempt(self._copy_and_join(arc))
        finally:
            self._copying.discard(arc)
            self.wanted.set()

    async def _copy_and_join(self, arc: Arc) -> None:
        ring = (await self._cartography.current()).ring
        entry = ring.entry(arc)
        if entry is None or self._life in entry.chain:
            return
        sources = [life for life in reversed(entry.chain) if self._pulse.seems_alive(life)]
        resident = ring.resident(sources[0]) if sources else None
        if resident is None:
            return
        copy = Destination(self._replicas, self._transport, self._settings, arc, resident.life, resident.address)
        await copy.copy()
        await self._changer.rechain(arc, copy)
        Event.ARC_COPIED.tell(log, "%s from %s", arc, resident.address)

    # -- the rest ------------------------------------------------------------------------------------------------------

    async def _retire(self, ring: RingMap) -> None:
        """Let go of what newer epochs hold without this node, unless it will be of use when this node enters again."""
        for replica in self._replicas:
            for entry in ring.within(replica.arc):
                over = entry.epoch > max(replica.state.epoch, replica.state.sealed)
                useful = self._life in entry.chain or self._life in ring.wanted(entry.arc)
                if over and not useful and not any(arc.overlaps(replica.arc) for arc in self._copying):
                    await self._attempt(self._replicas.retire(entry.arc))

    async def _tend_keepers(self) -> None:
        """Have live nodes of the ring keep the map, as many as it takes; the first live keeper sees to it."""
        chart = self._cartography.chart
        if chart is None:
            return
        ring, now = chart.ring, chart.record.configuration
        known = [keeper.life for keeper in now.keepers if ring.resident(keeper.life) is not None]
        seated = (seat.life for seat in ring.seats)  # where every keeper has left, one of those that stay sees to it
        alive = [life for life in known or seated if self._pulse.seems_alive(life)]
        wanted = self._wanted_keepers(ring, now.keepers)
        if alive[:1] == [self._life] and wanted and (now.following or set(wanted) != set(now.keepers)):
            await self._attempt(self._cartography.replace_keepers(chart, wanted))

    def _wanted_keepers(self, ring: RingMap, now: tuple[Keeper, ...]) -> tuple[Keeper, ...]:
        """Those there are, as far as they have a member in the ring, and further nodes that seem alive; in zones of
        their own as far as possible. One that is silent is replaced once the ring does without it. None is added that
        makes them even: the majority would be one more, and no more of them could be missing."""
        seated = {seat.life: None for seat in ring.seats}
        there = [keeper.life for keeper in now if keeper.life in seated]
        others = [life for life in seated if life not in there and self._pulse.seems_alive(life)]
        residents = {resident.life: resident for resident in ring.residents}
        count = next(keepers for nodes, keepers in KEEPERS if len(seated) >= nodes)
        chosen = there[:count]
        while len(chosen) < count and others:
            zones = [residents[life].zone for life in chosen]
            chosen.append(min(others, key=lambda life: zones.count(residents[life].zone)))
            others.remove(chosen[-1])
        if chosen and len(chosen) % 2 == 0 and chosen[-1] not in there:
            chosen.pop()
        return tuple(Keeper(life, residents[life].address) for life in chosen)

    async def _evict(self, ring: RingMap) -> None:
        """Take a node that has long been silent out of the ring, if this one comes right after one of its members."""
        lives = [seat.life for seat in ring.seats]
        for at, life in enumerate(lives):
            after = next((each for each in (*lives[at:], *lives) if self._pulse.seems_alive(each)), None)
            if after == self._life and self._pulse.silent_for(life) > self._settings.evict:
                await self._attempt(self._part(life))
                return

    async def _part(self, life: Life) -> None:
        chart = await self._cartography.current()
        if chart.ring.seats_of(life):
            resident = chart.ring.resident(life)
            address = resident.address if resident is not None else life.hex()
            Event.EVICTING.tell(
                log, "%s has been silent for %s s: others take its place", address, self._settings.evict
            )
            await self._cartography.replace(chart, chart.ring.parted(life))
