"""One member of the ring: what it answers, and the rounds in which it acts.

Handlers record, rounds act: no handler here asks a peer, but for `probe`, which passes one ping on and ends there.
Thus no knot of calls can tie itself, whoever calls whom. State changes only through `MemberState`'s transitions.
Knows neither sockets nor clocks nor stores: it is given neighbours, settings, a seeded Random and the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from node.chord.fingers import FingerTable, first_finger_beyond
from node.chord.lookup import Found, find_successor, predecessor_of
from node.chord.messages import (
    DEPART,
    GRANTS,
    INTRODUCE,
    NOTIFY,
    Admission,
    Departure,
    Introduction,
    MemberReport,
    Numbering,
    Route,
    RouteQuestion,
    ToMember,
    View,
)
from node.chord.neighbours import Acquaintances, Neighbours
from node.chord.placement import Grants
from node.chord.state import MemberState
from node.codec import Contact
from node.errors import IdTaken, NotAMember, RingError
from node.events import Event
from node.identifiers import BITS, Arc, Identifier, between

log = logging.getLogger(__name__)

CANDIDATES = 4
"""How many closer members a route names, so that the asker can go round a dead one."""

INTEGRATION = 40
"""How often a newcomer looks, right after joining, whether its successor knows it; later its rounds do."""


class Member:
    """A member: an id on the ring, its pointers, and the rounds that keep them right."""

    def __init__(self, me: Contact, neighbours: Neighbours, acquaintances: Acquaintances) -> None:
        self.me = me
        self.neighbours = neighbours
        self.settings = neighbours.settings
        self.acquaintances = acquaintances
        self.state = MemberState.alone(me, self.settings.successors)
        self.fingers = FingerTable(me)
        self.number = 0
        self.highest = 0
        self.grants = Grants(valid_for=4 * self.settings.lookup)
        self._admits = True
        self.twin: Contact | None = None
        """Another live member with my id, which came at the same moment; the one that is to move away knows of it."""
        self.on_change: Callable[[], None] = lambda: None
        self._predecessor_candidates: dict[Identifier, Contact] = {}
        self._introduced: dict[Identifier, Contact] = {}
        self._departed: set[Identifier] = set()
        self._round_wanted = asyncio.Event()
        self._fingers_wanted = asyncio.Event()
        self._fingers_tickets: list[asyncio.Future[None]] = []

    # -- entering and leaving ------------------------------------------------------------------------------------

    async def enter(self, through: Contact) -> None:
        """*Join* (Zave): find m with me between m and its successor, copy m's list; m is my predecessor.

        Raises IdTaken if a live member elsewhere has my id, Unavailable if no place is found in time.
        """
        before = await predecessor_of(self.neighbours, self.me.id, through)
        if before.me.id == self.me.id:
            raise IdTaken(f"id {self.me.id.hex} is in use by {before.me.address}: choose another with --id")
        for twin in before.successors:
            if twin.id == self.me.id and twin.address != self.me.address and await self.neighbours.answers(twin):
                raise IdTaken(f"id {twin.id.hex} is in use by {twin.address}: choose another with --id")
        self._admits = False
        self._become(self.state.joined(before))

    async def integrate(self) -> None:
        """Make myself known to my neighbours, and wait a moment until my successor knows me. To be called once I answer
        calls; whatever is missing at the end, rounds will do."""
        await self._notify()
        before = self.state.predecessor
        if before is not None and before.id != self.me.id:
            await self._introduce(self.me, to=before)
        for _ in range(INTEGRATION):
            view = await self.neighbours.view_if_alive(self.state.successor)
            if view is not None and await self._inherit_grants(view):
                return
            await asyncio.sleep(self.settings.backoff / 4)

    async def _inherit_grants(self, view: View) -> bool:
        """Once my successor knows me as its predecessor, it grants nothing in my arc any more: then I learn what it has
        granted there and may grant myself. True if that is done."""
        if view.predecessor is None or view.predecessor.id != self.me.id:
            return False
        try:
            granted = await self.neighbours.ask(GRANTS, view.me, ToMember(view.me.id))
        except RingError as error:
            log.debug("%s: grants not learnt from %s: %s", self.me, view.me, error)
            return False
        self.grants.inherit(granted, asyncio.get_running_loop().time())
        self._admits = True
        return True

    async def reunite(self, lost: Contact) -> None:
        """A member that had vanished answers again. Find my place in its ring, which may be another one by now, and let
        my next round adopt the successor I have there: rings cut apart zip together again."""
        point = self.me.id.plus(1)
        found = await find_successor(self.neighbours, point, self.me, Route((), (lost,)))
        self.introduced(Introduction(self.me.id, found.owner))

    def known(self) -> tuple[Contact, ...]:
        """All members it points at."""
        return (*self.state.successors, *self.fingers.contacts())

    async def leave(self, others: Iterable[Contact]) -> None:
        """Tell `others` that I am going and whom they have instead of me. Who does not hear it finds out by probing."""
        gone = Departure(self.me.id, self.me, self.state.predecessor, self.state.successors)

        async def tell(other: Contact) -> None:
            try:
                await self.neighbours.ask(
                    DEPART, other, Departure(other.id, gone.leaver, gone.predecessor, gone.successors)
                )
            except RingError as error:
                log.debug("%s did not hear of my departure: %s", other, error)

        await asyncio.gather(*(tell(other) for other in others if other.id != self.me.id))

    # -- what it answers -----------------------------------------------------------------------------------------

    def view(self) -> View:
        """How this member sees itself."""
        return View(self.neighbours.ring, self.me, self.state.predecessor, self.state.successors)

    def report(self) -> MemberReport:
        """What people are told."""
        state = self.state
        return MemberReport(
            self.me,
            state.successor,
            state.predecessor,
            state.successors,
            self.fingers.packed,
            self.number,
            self.highest,
        )

    def route(self, question: RouteQuestion) -> Route:
        """*find_successor*, one step of it: the owner if my pointers tell, else closest_preceding members."""
        owners = self.state.owners(question.point)
        if owners:
            return Route(owners, ())
        return Route((), tuple(self.state.preceding(question.point, self.fingers.contacts())[:CANDIDATES]))

    def notified(self, hello: Introduction) -> None:
        """*notify*: somebody believes to be my predecessor. Recorded; the next round rectifies."""
        self._departed.discard(hello.contact.id)
        self.acquaintances.came(hello.contact)
        now = self.state.predecessor
        if now is None or now != hello.contact:
            self._predecessor_candidates[hello.contact.id] = hello.contact
            self._round_wanted.set()

    def introduced(self, hello: Introduction) -> None:
        """Somebody who may be a better successor. Recorded; the next round looks."""
        if between(self.me.id, hello.contact.id, self.state.successor.id):
            self._departed.discard(hello.contact.id)
            self.acquaintances.came(hello.contact)
            self._introduced[hello.contact.id] = hello.contact
            self._round_wanted.set()

    def departed(self, news: Departure) -> None:
        """A member said goodbye. Recorded; the next round acts as if it had been found dead."""
        self.acquaintances.parted(news.leaver)
        self._departed.add(news.leaver.id)
        if self.state.predecessor and self.state.predecessor.id == news.leaver.id and news.predecessor:
            self._predecessor_candidates[news.predecessor.id] = news.predecessor
        for heir in news.successors[:1]:
            if self.state.successor.id == news.leaver.id and heir.id != self.me.id:
                self._introduced[heir.id] = heir
        self._round_wanted.set()

    def admit(self, request: Admission) -> Identifier:
        """Give a newcomer the middle of the widest part of my arc. Raises NotGranted, see `placement`."""
        self._check_admits()
        now = asyncio.get_running_loop().time()
        return self.grants.grant(
            Arc((self.state.predecessor or self.me).id, self.me.id), int.from_bytes(request.width, "big"), now
        )

    def granted(self) -> tuple[Identifier, ...]:
        """Ids given away that have not joined yet. Raises NotAMember before I know them all."""
        self._check_admits()
        return self.grants.pending(asyncio.get_running_loop().time())

    def _check_admits(self) -> None:
        if self.state.successors and not self._admits:
            raise NotAMember(f"{self.me} is joining itself: ask again")

    def numbered(self, numbering: Numbering) -> None:
        """The ring was counted."""
        self.number, self.highest = numbering.number, numbering.highest

    async def fingers_fixed(self) -> None:
        """Done once every finger was looked up anew, all of them after this call."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fingers_tickets.append(ticket)
        self._fingers_wanted.set()
        await ticket

    # -- rounds --------------------------------------------------------------------------------------------------

    async def keep_stable(self) -> None:
        """Stabilize and rectify, again and again, until cancelled."""
        while True:
            self._round_wanted.clear()
            await self.round()
            await self._pause(self.settings.stabilize_period, self._round_wanted)

    async def keep_fingers(self) -> None:
        """Fix one finger after the other, again and again, until cancelled; all at once when asked to."""
        runs: list[tuple[int, Contact]] = []
        i = 0
        while True:
            await self._pause(self.settings.fingers_period, self._fingers_wanted)
            if self._fingers_wanted.is_set():
                self._fingers_wanted.clear()
                tickets, self._fingers_tickets = self._fingers_tickets, []
                await self._answer(tickets, self.fix_fingers())
                runs, i = [], 0
                continue
            try:
                i = await self._fix_finger(runs, i)
            except RingError as error:
                log.debug("%s: finger %d not fixed: %s", self.me, i, error)
            if i >= BITS:
                self.fingers, runs, i = FingerTable(self.me, tuple(runs)), [], 0

    async def round(self) -> None:
        """One round: stabilize from successor, from its predecessor and from those introduced, notify, rectify."""
        before = self.state
        view = await self._stabilize_from_successor()
        if view is not None:
            self._look_for_twin(view.predecessor)
            if not self._admits:
                await self._inherit_grants(view)
            await self._stabilize_from_predecessor(view)
            await self._notify()
        await self._rectify()
        mentioned = {c.id for c in (self.state.predecessor, *self.state.successors) if c}
        self._departed &= mentioned
        self.acquaintances.met(c for c in (self.state.predecessor, *self.state.successors) if c and c.id != self.me.id)
        if self.state != before:
            log.debug("%s: %s | %s", self.me, self.state.predecessor, self.state.successors)

    def _look_for_twin(self, known: Contact | None) -> None:
        """My successor may know another member under my id: of two, the one at the higher address moves."""
        mine = (self.me.address.host, self.me.address.port)
        if known is not None and known.id == self.me.id and mine > (known.address.host, known.address.port):
            self.twin = known

    async def _stabilize_from_successor(self) -> View | None:
        """Ask the head of the list; drop heads that are dead. None if the head lives but did not answer us."""
        while (head := self.state.successor).id != self.me.id:
            if head.id not in self._departed:
                view = await self.neighbours.view_if_alive(head)
                if view is not None:
                    self._become(self.state.stabilized(view))
                    return view
                if not await self.neighbours.is_dead(head, self._helpers()):
                    return None
            self._bury(head)
        for known in (self.state.predecessor, *self.fingers.contacts()):
            if known is not None and known.id != self.me.id and known.id not in self._departed:
                self._introduced[known.id] = known
        return self.view()

    async def _stabilize_from_predecessor(self, view: View) -> None:
        """Adopt live members between me and my successor: its predecessor, and whoever was introduced to me."""
        introduced, self._introduced = self._introduced, {}
        if view.predecessor is not None:
            introduced[view.predecessor.id] = view.predecessor
        for contact in sorted(introduced.values(), key=lambda c: -self.me.id.distance_to(c.id)):
            old = self.state.successor
            if not between(self.me.id, contact.id, old.id) or contact.id in self._departed:
                continue
            closer = await self.neighbours.view_if_alive(contact)
            if closer is None:
                continue
            self._become(self.state.adopted(closer))
            if old.id != self.me.id and old.id not in {s.id for s in closer.successors}:
                await self._introduce(old, to=closer.me)

    async def _introduce(self, contact: Contact, to: Contact) -> None:
        """After a partition the new successor may never have heard of my old one."""
        try:
            await self.neighbours.ask(INTRODUCE, to, Introduction(to.id, contact))
        except RingError as error:
            log.debug("%s: could not introduce %s to %s: %s", self.me, contact, to, error)

    async def _notify(self) -> None:
        """Tell my successor that I believe to be its predecessor; alone, I am my own."""
        head = self.state.successor
        if head.id == self.me.id:
            self._predecessor_candidates[self.me.id] = self.me
            return
        try:
            await self.neighbours.ask(NOTIFY, head, Introduction(head.id, self.me))
        except RingError as error:
            log.debug("%s: %s was not notified: %s", self.me, head, error)

    async def _rectify(self) -> None:
        """Adopt a better predecessor, or any that offers itself if the present one is dead."""
        candidates, self._predecessor_candidates = self._predecessor_candidates, {}
        for candidate in candidates.values():
            now = self.state.predecessor
            dead = None
            if now is not None and now.id not in (candidate.id, self.me.id):
                better = candidate.id != self.me.id and between(now.id, candidate.id, self.me.id)
                gone = now.id in self._departed
                if not better and (gone or await self.neighbours.is_dead(now, self._helpers())):
                    dead = now
            if dead is not None and dead.id not in self._departed:
                self.acquaintances.lose(dead)
            self._become(self.state.rectified(candidate, dead))

    async def fix_fingers(self) -> None:
        """Look up the whole table. Raises Unavailable if a look-up fails; then the old table stays."""
        runs: list[tuple[int, Contact]] = []
        i = 0
        while i < BITS:
            i = await self._fix_finger(runs, i)
        self.fingers = FingerTable(self.me, tuple(runs))

    async def _fix_finger(self, runs: list[tuple[int, Contact]], i: int) -> int:
        """Look up finger i, append its run, return the first finger that needs a look-up of its own."""
        found = await self.find_successor(self.me.id.finger_start(i))
        runs.append((i, found.owner))
        return first_finger_beyond(self.me.id, found.owner.id, i)

    async def find_successor(self, point: Identifier) -> Found:
        """The successor of `point`, looked up from here through fingers. Raises Unavailable."""
        first = self.route(RouteQuestion(self.me.id, point))
        return await find_successor(self.neighbours, point, self.me, first, self.doubt)

    # -- small things --------------------------------------------------------------------------------------------

    def doubt(self, contact: Contact) -> None:
        """A finger did not answer: do without it until it is looked up again."""
        self.fingers = self.fingers.without(contact)

    def _helpers(self) -> list[Contact]:
        """Members that can be asked to probe another."""
        known = {c.id: c for c in (*self.state.successors, *self.fingers.contacts()) if c.id != self.me.id}
        if self.state.predecessor is not None and self.state.predecessor.id != self.me.id:
            known[self.state.predecessor.id] = self.state.predecessor
        return list(known.values())

    def _become(self, state: MemberState) -> None:
        changed = state != self.state
        self.state = state
        if changed:
            self.on_change()

    def _bury(self, dead: Contact) -> None:
        if dead.id in self._departed:
            Event.MEMBER_LEFT.tell(log, "%s has left, %s goes on without it", dead, self.me)
        else:
            Event.MEMBER_DEAD.tell(log, "%s does not answer %s or those it asked", dead, self.me)
            self.acquaintances.lose(dead)
        self.fingers = self.fingers.without(dead)
        self._become(self.state.dropped(dead))

    async def _pause(self, period: float, wanted: asyncio.Event) -> None:
        """Wait a period, give or take a quarter, or until woken."""
        jitter = self.neighbours.random.uniform(0.75, 1.25)
        try:
            async with asyncio.timeout(period * jitter):
                await wanted.wait()
        except TimeoutError:
            return

    @staticmethod
    async def _answer(tickets: list[asyncio.Future[None]], work: Awaitable[None]) -> None:
        """Do the work and give all who wait its outcome."""
        try:
            await work
        except RingError as error:
            for ticket in tickets:
                if not ticket.done():
                    ticket.set_exception(error)
        else:
            for ticket in tickets:
                if not ticket.done():
                    ticket.set_result(None)
