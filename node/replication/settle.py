"""Bringing what a node holds in line with what the ring says it should hold, in rounds.

What is missing is fetched from whoever holds it. What is held in excess is offered to its owner. What nobody holds is
taken over, after every lease for it has run out. Whatever goes wrong is tried again in the next round.
"""

from __future__ import annotations

import asyncio
import logging

from node.chord.neighbours import Neighbours
from node.chord.residence import Residence
from node.codec import Address, Contact
from node.errors import Moved, RingError
from node.identifiers import Arc
from node.replication.handover import Destination, Source
from node.replication.holder import Holder
from node.replication.holdings import Piece, subtract
from node.replication.leases import Leases
from node.replication.messages import HOLDS, OFFER, Offer

log = logging.getLogger(__name__)


class Settlement:
    """The settling rounds of one node."""

    def __init__(
        self,
        residence: Residence,
        neighbours: Neighbours,
        holder: Holder,
        leases: Leases,
        source: Source,
        destination: Destination,
    ) -> None:
        self._residence = residence
        self._neighbours = neighbours
        self._holder = holder
        self._leases = leases
        self._source = source
        self._destination = destination
        self._settings = neighbours.settings
        self._offers: dict[Address, Offer] = {}
        self.leaving = False
        self.wanted = asyncio.Event()
        self._one_round = asyncio.Lock()

    # -- handlers ------------------------------------------------------------------------------------------------

    def offered(self, offer: Offer) -> bool:
        """Record an offer for the next round; False if this node is about to leave itself."""
        if self.leaving:
            return False
        self._offers[offer.source] = offer
        self.wanted.set()
        return True

    # -- rounds --------------------------------------------------------------------------------------------------

    async def keep_settled(self) -> None:
        """Round after round, until cancelled."""
        while True:
            self.wanted.clear()
            await self.round()
            try:
                async with asyncio.timeout(self._settings.settle_period):
                    await self.wanted.wait()
            except TimeoutError:
                continue

    async def round(self) -> None:
        """Look once at everything that is not as it should be."""
        async with self._one_round:
            await self._round()

    async def _round(self) -> None:
        self._source.expire()
        for prepared in self._holder.holdings.prepared:
            await self._attempt(self._destination.resolve(prepared, attempts=1))
        if self.leaving:
            return
        await self._take_offers()
        await self._fill_gaps()
        await self._offer_excess()

    async def _take_offers(self) -> None:
        offers, self._offers = self._offers, {}
        for offer in offers.values():
            wanted = self._residence.responsible()
            for piece in offer.pieces:
                parts = (piece.arc,) if offer.leaving else tuple(p for a in wanted for p in piece.arc.intersect(a))
                for part in parts:
                    await self._fetch(offer.source, part)

    async def _fill_gaps(self) -> None:
        vacant: set[Arc] = set()
        certain: set[Arc] = set()
        for member in list(self._residence.members.values()):
            arc = member.state.arc
            if arc is None or not self._holder.holdings.missing(arc):
                continue
            others = self._residence.others_after(member)
            answers = await asyncio.gather(*(self._holds(other, arc) for other in others))
            for other, held in zip(others, answers, strict=True):
                await self._fetch_from(other, arc, held or ())
            if not any(answers):
                gaps = self._holder.holdings.missing(arc)
                vacant.update(gaps)
                if all(held is not None for held in answers):
                    certain.update(gaps)
        self._leases.vacant = self._since(vacant, certain)
        await self._take_over(certain)

    async def _fetch_from(self, other: Contact, arc: Arc, held: tuple[Piece, ...]) -> None:
        """Fetch what is missing of `arc` and another node holds."""
        for piece in held:
            for gap in self._holder.holdings.missing(arc):
                for part in gap.intersect(piece.arc):
                    self._holder.went_to(part, other.address)
                    await self._fetch(other.address, part)

    def _since(self, vacant: set[Arc], certain: set[Arc]) -> dict[Arc, float]:
        """Since when arcs are vacant, counted from now or from when it was known before.

        A node that does not answer may hold one: that begins no waiting and ends none. A lease granted meanwhile does.
        """
        now = asyncio.get_running_loop().time()
        result: dict[Arc, float] = {}
        for arc in vacant:
            before = [since for old, since in self._leases.vacant.items() if not subtract((arc,), (old,))]
            if before or arc in certain:
                result[arc] = min(before, default=now)
        return result

    async def _take_over(self, certain: set[Arc]) -> None:
        """Take over what has been vacant for longer than any lease and is vacant for certain."""
        now = asyncio.get_running_loop().time()
        patience = self._settings.lease + self._settings.lease_margin
        due = [arc for arc, since in self._leases.vacant.items() if arc in certain and now - since >= patience]
        if not due:
            return
        pieces = tuple(piece for arc in due for piece in self._leases.successor_of(arc))
        log.warning("taking over %s: the node that held it does not answer", ", ".join(str(arc) for arc in due))
        await self._attempt(self._holder.change(lambda holdings: holdings.adding(pieces)))
        for arc in due:
            self._leases.vacant.pop(arc, None)

    async def _offer_excess(self) -> None:
        for piece in self._holder.holdings.excess(self._residence.responsible()):
            try:
                found = await self._residence.first.find_successor(piece.arc.start.plus(1))
            except RingError as error:
                log.debug("no owner found for %s: %s", piece.arc, error)
                continue
            if found.owner.address != self._residence.address:
                await self._offer(found.owner.address, (piece,), leaving=False)

    async def hand_everything_over(self) -> bool:
        """Before leaving: offer all there is to the next node that is not leaving itself; True once all is released."""
        self.leaving = True
        async with self._one_round:  # let the round under way finish: it may be fetching
            log.debug("leaving with %s", self._holder.holdings.pieces)
        loop = asyncio.get_running_loop()
        while self._holder.holdings.pieces:
            members = self._residence.members.values()
            heirs = {c.address: c for member in members for c in self._residence.others_after(member)}
            answers: list[bool | None] = []
            for heir in heirs:
                answers.append(await self._offer(heir, self._holder.holdings.pieces, leaving=True))
                if answers[-1]:
                    break
            if all(answer is False for answer in answers):
                return False
            again = loop.time() + 1.0
            while self._holder.holdings.pieces and loop.time() < again:
                await asyncio.sleep(self._settings.backoff)
        patience = loop.time() + self._settings.operation
        while self._source.unconfirmed and loop.time() < patience:
            await asyncio.sleep(self._settings.backoff)
        return True

    # -- small things --------------------------------------------------------------------------------------------

    async def _offer(self, to: Address, pieces: tuple[Piece, ...], *, leaving: bool) -> bool | None:
        """Whether another node will come and fetch; None if it did not say."""
        try:
            offer = Offer(self._residence.address, pieces, leaving)
            return await OFFER.ask(self._neighbours.transport, to, offer, deadline=self._settings.call)
        except RingError as error:
            log.debug("%s did not take an offer: %s", to, error)
            return None

    async def _holds(self, other: Contact, arc: Arc) -> tuple[Piece, ...] | None:
        """What another node holds of `arc`; None if it did not say."""
        try:
            return await self._neighbours.ask(HOLDS, other, arc)
        except RingError:
            return None

    async def _fetch(self, source: Address, arc: Arc) -> None:
        """Fetch all that `source` holds of `arc`, piece by piece."""
        left: tuple[Arc, ...] = (arc,)
        while left:
            try:
                covered = await self._destination.fetch(source, left[0])
            except Moved:
                return
            except RingError as error:
                log.info("fetching %s from %s: %s; trying again", left[0], source, error)
                return
            left = subtract(left, (covered,))

    @staticmethod
    async def _attempt(step: object) -> None:
        try:
            await step  # type: ignore[misc]
        except RingError as error:
            log.info("settling: %s; trying again", error)
