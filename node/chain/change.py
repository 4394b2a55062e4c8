"""Changes of a chain. Any node may run one; running it twice, or by two nodes at once, is harmless.

    read    the map, linearizably: an arc in epoch e
    seal    e at its members. Those that answer with the registered life are full: what is committed is on all of them
    join    a newcomer takes the rest of the frozen content of one of them, and is sealed and full too
    set     the arc in epoch e + 1, with a chain of full members; a member that is dropped and did not seal has no lease
    tell    the members; they adopt it, and each sends the next one what that lacks

Full members are put in the order of how far their histories go, the longest first: then each holds a prefix of what the
one before it holds. Those that go equally far stand as the ring wants them. (Vertical Paxos II, Lamport et al. 2009.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from node.chain.cartography import Cartography, Chart
from node.chain.messages import NEWS, SEAL, STILL, Seal, Still
from node.chain.mirror import Destination
from node.chain.ring_map import Entry, Life, Resident, RingMap
from node.data import Version
from node.errors import Conflict, RingError, Unavailable
from node.identifiers import Arc
from node.settings import Settings
from node.transport import Transport

log = logging.getLogger(__name__)


class Changer:
    """Runs changes for one node. Members that do not seem alive are not waited for."""

    def __init__(
        self,
        cartography: Cartography,
        transport: Transport,
        settings: Settings,
        life: Life,
        seems_alive: Callable[[Life], bool],
    ) -> None:
        self._cartography = cartography
        self._transport = transport
        self._settings = settings
        self._life = life
        self._seems_alive = seems_alive

    async def rechain(self, arc: Arc, joining: Destination | None = None) -> None:
        """The next epoch of an arc: with those members that answer, with `joining`, without those not wanted.

        Raises Unavailable if no member answers, NoQuorum, Conflict, OutcomeUnknown; trying again later is safe.
        """
        chart = await self._cartography.current()
        entry = chart.ring.entry(arc)
        if entry is None or (joining is not None and self._life in entry.chain):
            return
        full = await self._seal(chart.ring, entry)
        if joining is not None:
            if joining.source_life not in full:
                raise Unavailable(f"the node that {arc} was copied from does not answer: begin again")
            full[self._life] = await self._finished(chart.ring, entry, tuple(full), joining)
        drops = tuple(life for life in entry.chain if life not in full)
        await self._set(chart, (entry,), lambda ring: ring.changed(entry, chosen(ring, entry, full)), drops)

    async def split(self, arc: Arc) -> None:
        """Two arcs in place of one that a member lies in. Raises as `rechain` does."""
        chart = await self._cartography.current()
        entry = chart.ring.entry(arc)
        at = chart.ring.cut(arc)
        if entry is None or at is None:
            return
        await self._all_sealed(chart.ring, entry)
        await self._set(chart, (entry,), lambda ring: ring.split(entry, at))

    async def merge(self, arc: Arc) -> None:
        """One arc in place of this one and the next, if nothing of their histories is lacking anywhere.

        Raises as `rechain` does, and Unavailable if something is: then both begin another epoch, which mends it. While
        writes go on something always is, so both heads let arrive what is under way and hold up what is new.
        """
        chart = await self._cartography.current()
        entry = chart.ring.entry(arc)
        following = chart.ring.mergeable(entry) if entry is not None else None
        if entry is None or following is None:
            return
        await asyncio.gather(self._stilled(chart.ring, entry), self._stilled(chart.ring, following))
        one, other = await asyncio.gather(self._all_sealed(chart.ring, entry), self._all_sealed(chart.ring, following))
        if len(set(one.values())) > 1 or len(set(other.values())) > 1:
            raise Unavailable(f"the members of {arc} are not equally far: it is merged another time")
        await self._set(chart, (entry, following), lambda ring: ring.merged(entry, following))

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _stilled(self, ring: RingMap, entry: Entry) -> None:
        """Have the head let everything under way arrive, and order nothing more until the arc is sealed."""
        resident = ring.resident(entry.head)
        if resident is None:
            raise Unavailable(f"the head of {entry.arc} has left")
        question = Still(entry.arc, entry.epoch)
        await STILL.ask(self._transport, resident.address, question, deadline=self._settings.freeze)

    async def _seal(self, ring: RingMap, entry: Entry) -> dict[Life, Version]:
        """Seal all members of a chain; who did, and how far each goes. Raises Unavailable if none did."""
        alive = [life for life in entry.chain if self._seems_alive(life)]
        answers = await asyncio.gather(*(self._sealed(ring, entry, life) for life in alive))
        full = {life: position for life, position in zip(alive, answers, strict=True) if position is not None}
        if not full:
            raise Unavailable(f"no member of the chain of {entry.arc} answers: {self._names(ring, entry.chain)}")
        return full

    async def _finished(self, ring: RingMap, entry: Entry, full: tuple[Life, ...], joining: Destination) -> Version:
        """How far a newcomer goes that has taken the rest. The others hear that it goes on, for as long as writes may
        wait: or the first of them would begin another epoch without it."""

        async def tell() -> None:
            until = asyncio.get_running_loop().time() + self._settings.freeze
            while asyncio.get_running_loop().time() < until:
                spell = self._settings.settle_period
                await asyncio.gather(*(self._sealed(ring, entry, life, spell) for life in full))
                await asyncio.sleep(spell / 3)

        telling = asyncio.ensure_future(tell())
        try:
            return await joining.finish(entry.epoch)
        finally:
            telling.cancel()

    async def _all_sealed(self, ring: RingMap, entry: Entry) -> dict[Life, Version]:
        full = await self._seal(ring, entry)
        if len(full) < len(entry.chain):
            missing = self._names(ring, tuple(life for life in entry.chain if life not in full))
            raise Unavailable(f"the chain of {entry.arc} is not whole: {missing} did not answer")
        return full

    async def _sealed(self, ring: RingMap, entry: Entry, life: Life, spell: float = 0.0) -> Version | None:
        resident = ring.resident(life)
        if resident is None:
            return None
        question = Seal(entry.arc, entry.epoch, life, spell)
        try:
            answer = await SEAL.ask(self._transport, resident.address, question, deadline=self._settings.probe)
        except RingError as error:
            log.debug("%s was not sealed at %s: %s", entry.arc, resident.address, error)
            return None
        return answer.position

    async def _set(
        self,
        chart: Chart,
        entries: tuple[Entry, ...],
        change: Callable[[RingMap], RingMap],
        drops: tuple[Life, ...] = (),
    ) -> None:
        """Change the map; again while others change other entries. Raises Conflict if they changed one of these."""
        while True:
            try:
                after = await self._cartography.replace(chart, change(chart.ring), drops)
                break
            except Conflict:
                chart = await self._cartography.current()
                if any(chart.ring.entry(entry.arc) != entry for entry in entries):
                    raise
        lives = {life for arc in (entry.arc for entry in entries) for e in after.ring.within(arc) for life in e.chain}
        await self.tell(after, lives | {life for entry in entries for life in entry.chain})

    async def tell(self, chart: Chart, concerned: set[Life]) -> None:
        """Bring the map to the nodes that it concerns most; all others learn it with their next lease."""
        others = (r for r in chart.ring.residents if r.life in concerned and r.life != self._life)

        async def told(resident: Resident) -> None:
            try:
                await NEWS.ask(self._transport, resident.address, chart.record, deadline=self._settings.probe)
            except RingError as error:
                log.debug("%s was not told of the map: %s", resident.address, error)

        await asyncio.gather(*(told(resident) for resident in others if self._seems_alive(resident.life)))

    @staticmethod
    def _names(ring: RingMap, lives: tuple[Life, ...]) -> str:
        residents = [ring.resident(life) for life in lives]
        return " ".join(str(resident.address) for resident in residents if resident is not None)


def chosen(ring: RingMap, entry: Entry, full: dict[Life, Version]) -> tuple[Life, ...]:
    """The next chain of an arc, out of its full members: those wanted, and others while there are too few of them."""
    wanted = ring.wanted(entry.arc)
    keep = [life for life in wanted if life in full]
    others = [life for life in entry.chain if life in full and life not in keep]
    room = min(ring.policy.replicas, len(wanted) or ring.policy.replicas) - len(keep)
    return tuple(sorted((*keep, *others[: max(0, room)]), key=lambda life: _backwards(full[life])))


def _backwards(version: Version) -> Version:
    epoch, sequence = version
    return -epoch, -sequence
