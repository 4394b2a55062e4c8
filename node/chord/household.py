"""The members that live on one node: how they found a ring or enter one, go on together, and say goodbye.

Chord only: who holds data, and on which disk this is remembered, is not known here. Every change of a member's pointers
is told to whoever made the household.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any, TypeVar

from node.chord import messages as chord
from node.chord.census import census, size_estimate
from node.chord.lookup import Found, find_successor
from node.chord.member import Member
from node.chord.neighbours import Acquaintances, Neighbours
from node.chord.placement import bisect_widest
from node.chord.residence import Residence
from node.codec import Address, Contact
from node.errors import IdTaken, NotAMember, NotGranted, OutcomeUnknown, RingError, Unavailable, Unreachable
from node.events import Event
from node.identifiers import BITS, RING, Arc, Identifier
from node.settings import Settings
from node.tasks import Tasks
from node.transport import Switchboard, Transport

log = logging.getLogger(__name__)

T = TypeVar("T")

REFUSALS = 4
"""How often an address may turn out to be unreachable before coming up is given up."""

SURVEYED = 128
"""Up to so many members a newcomer sees every arc before it chooses; of a larger ring it sees about as many of them."""


class Household:
    """A node's members and what it takes to have them in the ring."""

    def __init__(
        self,
        address: Address,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
        tasks: Tasks,
        changed: Callable[[Member], None],
    ) -> None:
        self.address = address
        self.settings = settings
        self.random = random
        self.residence = Residence(address)
        self.neighbours = Neighbours(transport, settings, random, b"")
        self.acquaintances = Acquaintances(clock, settings.forget_after)
        self._tasks = tasks
        self._changed = changed
        self._rounds: dict[Identifier, list[asyncio.Task[None]]] = {}

    def connect(self, receive: Switchboard) -> None:
        """Answer what members ask each other."""
        connect, member = receive.connect, self.residence.member
        connect(chord.PING, soon(lambda q: (member(q.to), self.neighbours.ring)[1]))
        connect(chord.VIEW, soon(lambda q: member(q.to).view()))
        connect(chord.NOTIFY, soon(lambda q: member(q.to).notified(q)))
        connect(chord.INTRODUCE, soon(lambda q: member(q.to).introduced(q)))
        connect(chord.PROBE, lambda q: self.neighbours.answers(q.contact))
        connect(chord.DEPART, soon(lambda q: member(q.to).departed(q)))
        connect(chord.ROUTE, soon(lambda q: member(q.to).route(q)))
        connect(chord.ADMIT, soon(lambda q: member(q.to).admit(q)))
        connect(chord.GRANTS, soon(lambda q: member(q.to).granted()))
        connect(chord.NUMBER, soon(lambda q: member(q.to).numbered(q)))
        connect(chord.FIX_FINGERS, lambda q: member(q.to).fingers_fixed())
        connect(chord.REPORT, soon(lambda q: member(q.to).report()))

    # -- coming ----------------------------------------------------------------------------------------------------

    def found(self, identifier: Identifier) -> None:
        """Be a ring of one."""
        self._settle_in(self._newcomer(identifier))

    async def join(self, through: Contact, wanted: Identifier | None) -> None:
        """Bring one member into the ring, at the id wanted or where the widest arc is.

        Raises IdTaken if a live member has the id wanted, Unavailable and Unreachable if nobody lets it in.
        """
        for _ in range(8):
            identifier = wanted if wanted is not None else await self.insisting(partial(self._place, through))
            try:
                await self.insisting(partial(self._join_as, self._newcomer(identifier), through))
            except IdTaken:
                if wanted is not None:
                    raise
                continue
            return
        raise Unavailable("no place in the ring stayed free long enough to join: try again")

    def _newcomer(self, identifier: Identifier) -> Member:
        return Member(Contact(identifier, self.address), self.neighbours, self.acquaintances)

    async def _join_as(self, member: Member, through: Contact) -> None:
        await member.enter(through)
        self._settle_in(member)
        await member.integrate()

    def _settle_in(self, member: Member) -> None:
        self.residence.members[member.me.id] = member
        member.on_change = partial(self._changed, member)
        spawn = self._tasks.spawn
        self._rounds[member.me.id] = [spawn(member.keep_stable()), spawn(member.keep_fingers())]
        self._changed(member)

    async def insisting(self, step: Callable[[], Awaitable[T]]) -> T:
        """A step of coming up, tried again while messages are lost or the other side is not ready, within the time of
        four look-ups; a dead address is given up sooner."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 4 * self.settings.lookup
        refusals = 0
        while True:
            try:
                return await step()
            except (Unreachable, OutcomeUnknown, NotAMember, Unavailable) as error:
                refusals += isinstance(error, Unreachable)
                if refusals > REFUSALS or loop.time() > deadline:
                    raise
                log.debug("coming up: %s; trying again", error)
            await asyncio.sleep(self.settings.backoff * self.random.uniform(1, 4))

    async def _place(self, through: Contact) -> Identifier:
        """An id that bisects the widest arc, as far as a survey shows."""
        contacts: dict[Identifier, Contact] = {}

        async def survey() -> dict[Identifier, int]:
            views = await self._survey(await self.insisting(partial(self.neighbours.view, through)))
            self.acquaintances.met(view.me for view in views if view.me.address != self.address)
            contacts.update({contact.id: contact for view in views for contact in (view.me, *view.successors)})
            return _widths(views)

        async def admit(owner: Identifier, width: int) -> Identifier:
            request = chord.Admission(owner, width.to_bytes(21, "big"))
            try:
                return await self.neighbours.ask(chord.ADMIT, contacts[owner], request)
            except (NotAMember, OutcomeUnknown, Unreachable) as error:
                raise NotGranted(f"{contacts[owner]} does not admit yet: {error}", bytes(21)) from None

        return await bisect_widest(survey, admit, self.random, self.settings.backoff)

    async def _survey(self, start: chord.View) -> tuple[chord.View, ...]:
        """The views of all members, or of members at random places of a large ring."""
        if size_estimate(start) <= SURVEYED:
            return await census(self.neighbours, start)
        begin = chord.Route((), (start.me,))
        points = (Identifier(self.random.getrandbits(BITS)) for _ in range(SURVEYED // self.settings.successors))

        async def seen(point: Identifier) -> chord.View | None:
            try:
                found = await find_successor(self.neighbours, point, None, begin)
            except RingError as error:
                log.debug("nothing seen at %s: %s", point, error)
                return None
            return await self.neighbours.view_if_alive(found.owner)

        views = await asyncio.gather(*map(seen, points))
        return (start, *{view.me.id: view for view in views if view is not None}.values())

    # -- going on --------------------------------------------------------------------------------------------------

    async def reunite(self) -> None:
        """Look for one member that vanished: after a partition it is in another ring, to be merged with this one."""
        lost = self.acquaintances.lost()
        if not lost:
            return
        contact = self.random.choice(lost)
        if await self.neighbours.view_if_alive(contact) is not None:
            self.acquaintances.met([contact])
            for member in list(self.residence.members.values()):
                await self._attempt(member.reunite(contact))

    async def give_way(self) -> bool:
        """Have each member whose id another live member has too, and which is the one to move, join anew elsewhere.
        True if one did."""
        moved = False
        for member in [m for m in self.residence.members.values() if m.twin is not None]:
            moved |= await self._move(member)
        return moved

    async def _move(self, member: Member) -> bool:
        twin, through = member.twin, member.state.successor
        if twin is None or not await self.neighbours.answers(twin):
            member.twin = None
            return False
        Event.MEMBER_MOVES.tell(log, "%s has the same id as %s: moving to another place", member.me, twin)
        for task in self._rounds.pop(member.me.id):
            task.cancel()
        del self.residence.members[member.me.id]
        while True:
            try:
                await self.join(through, None)
                return True
            except RingError as error:
                log.warning("%s found no other place yet: %s", member.me, error)
                through = self.random.choice([through, *self.acquaintances.known()])

    async def _attempt(self, step: Awaitable[None]) -> None:
        try:
            await step
        except RingError as error:
            log.debug("%s; trying again later", error)

    async def say_goodbye(self) -> None:
        """Tell every other member that all of these go."""
        views = await self.census()
        for member in list(self.residence.members.values()):
            await member.leave(view.me for view in views if view.me.address != self.address)

    # -- the ring as a whole -----------------------------------------------------------------------------------------

    async def census(self) -> tuple[chord.View, ...]:
        """The views of all live members, from the smallest id on."""
        views = await census(self.neighbours, self.residence.first.view())
        return tuple(sorted(views, key=lambda view: view.me.id))

    async def find_successor(self, point: Identifier) -> Found:
        """A cold look-up through fingers."""
        return await self.residence.first.find_successor(point)

    async def update_numbers(self) -> None:
        """Number all members 0..n-1 clockwise from the smallest id; returns when each knows its number."""
        views = await self.census()

        async def tell(number: int, to: Contact) -> None:
            await self.neighbours.ask(chord.NUMBER, to, chord.Numbering(to.id, number, len(views) - 1))

        await _everyone(tell(number, view.me) for number, view in enumerate(views))

    async def update_finger_table(self) -> None:
        """Have every member look up all its fingers; returns when all have."""
        deadline = self.settings.operation

        async def tell(to: Contact) -> None:
            await self.neighbours.ask(chord.FIX_FINGERS, to, chord.ToMember(to.id), deadline=deadline)

        await _everyone(tell(view.me) for view in await self.census())


def _widths(views: Iterable[chord.View]) -> dict[Identifier, int]:
    """The arcs that views show, by their owners, and how wide they are."""
    widths: dict[Identifier, int] = {}
    for view in views:
        chain = [c.id for c in (view.predecessor, view.me, *view.successors) if c is not None]
        for start, end in pairwise(chain):
            widths[end] = min(Arc(start, end).width, widths.get(end, RING))
    return widths


async def _everyone(calls: Iterable[Awaitable[None]]) -> None:
    """All of them side by side; raises the first error once all are done."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def soon(handler: Callable[[Any], T]) -> Callable[[Any], Awaitable[T]]:
    """An immediate answer as an awaitable one."""

    async def answer(question: Any) -> T:
        return handler(question)

    return answer
