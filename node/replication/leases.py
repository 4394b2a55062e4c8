"""May this node answer for its arcs? Its successors agree, for a while at a time.

A node asks the member that follows each of its runs of members. That one grants if the asker is right before it in the
ring and it holds nothing of the asker's arcs itself; it takes an arc over only when every lease it may have granted has
run out. The lease counts from the moment of asking, on a clock that counts the time a process is stopped.
Between two sides of a partition this guards nothing: with a single copy each side goes on with what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from node.chord.neighbours import Neighbours
from node.chord.residence import Residence
from node.codec import Contact
from node.errors import RingError
from node.identifiers import Arc
from node.replication.holder import Holder
from node.replication.holdings import Holdings, Piece
from node.replication.messages import LEASE, LeaseQuestion

log = logging.getLogger(__name__)

CLAIMS = 64
"""How many pieces of predecessors are passed on: enough for as many neighbours to die at once as a ring survives."""


class Leases:
    """The asking and the granting side of one node."""

    def __init__(self, residence: Residence, holder: Holder, clock: Callable[[], float]) -> None:
        self._residence = residence
        self._holder = holder
        self._clock = clock
        self._claims = Holdings()
        self.vacant: dict[Arc, float] = {}
        """Arcs that should be held here and that nobody seems to hold, and since when (loop time)."""

    # -- granting ------------------------------------------------------------------------------------------------

    def grant(self, question: LeaseQuestion) -> bool:
        """Whether the asker may go on; see the module's opening."""
        before = self._residence.member(question.to).state.predecessor
        if before is None or before.id != question.member or before.address != question.address:
            return False
        holdings = self._holder.holdings
        if any(holdings.within(piece.arc) for piece in question.holds):
            return False
        for piece in question.holds:
            self.vacant = {arc: since for arc, since in self.vacant.items() if not arc.intersect(piece.arc)}
        self._note(question.claims)
        self._note(question.holds)
        return True

    def _note(self, pieces: tuple[Piece, ...]) -> None:
        for piece in pieces:
            if all(known.epoch <= piece.epoch for known in self._claims.within(piece.arc)):
                self._claims = self._claims.adding((piece,))

    def successor_of(self, arc: Arc) -> tuple[Piece, ...]:
        """The pieces that begin when `arc`, which nobody holds, is taken over."""
        known = self._claims.within(arc)
        latest = max((piece.epoch for piece in (*self._claims.pieces, *self._holder.holdings.pieces)), default=0)
        unknown = tuple(Piece(gap, latest) for gap in Holdings(known).missing(arc))
        return tuple(piece.taken_over(piece.arc) for piece in (*known, *unknown))

    # -- asking --------------------------------------------------------------------------------------------------

    async def renew(self, neighbours: Neighbours) -> None:
        """Ask all whom it takes; confirm the holder if all agree."""
        asked_at = self._clock()
        if self._residence.is_alone():
            self._holder.confirm(float("inf"))
            return
        if self._holder.stands_for_ever:
            self._holder.confirm(asked_at + neighbours.settings.lease)
        borders = list(self._residence.borders())
        answers = await asyncio.gather(*(self._asked(neighbours, m.me, after) for m, after in borders))
        if borders and all(answers):
            self._holder.confirm(asked_at + neighbours.settings.lease)

    async def _asked(self, neighbours: Neighbours, member: Contact, after: Contact) -> bool:
        holds = self._holder.holdings.pieces
        claims = self._claims.excess(piece.arc for piece in holds)[:CLAIMS]
        question = LeaseQuestion(after.id, member.id, self._residence.address, holds, claims)
        try:
            return await neighbours.ask(LEASE, after, question)
        except RingError as error:
            log.debug("%s was not asked for a lease: %s", after, error)
            return False
