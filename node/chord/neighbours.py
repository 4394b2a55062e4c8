"""Calling other members, and telling whether they live.

Every call has a deadline that adapts to the peer; a failed call is evidence, never a verdict: a member is declared dead
only after a direct probe and indirect ones through others failed (Das et al., "SWIM", 2002, section 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from node.chord.messages import PING, PROBE, VIEW, Introduction, ToMember, View
from node.codec import Address, Contact
from node.errors import Definite, OutcomeUnknown, RingError, WrongRing
from node.identifiers import Identifier
from node.settings import Settings
from node.transport import A, Method, Q, Transport


@dataclass(slots=True)
class RoundTrip:
    """Mean and deviation of the answers' times of one peer (Jacobson, "Congestion Avoidance and Control", 1988)."""

    mean: float
    deviation: float

    def measured(self, seconds: float) -> None:
        """Take in one more round trip."""
        error = seconds - self.mean
        self.mean += error / 8
        self.deviation += (abs(error) - self.deviation) / 4

    @property
    def patience(self) -> float:
        """How long it is worth waiting for the next answer."""
        return self.mean + 4 * self.deviation


class Neighbours:
    """The other members as remote objects, as seen by all members of one node."""

    def __init__(self, transport: Transport, settings: Settings, random: Random, ring: bytes) -> None:
        self.transport = transport
        self.settings = settings
        self.random = random
        self.ring = ring
        self._trips: dict[Address, RoundTrip] = {}

    async def ask(self, method: Method[Q, A], to: Contact, question: Q, *, deadline: float | None = None) -> A:
        """Ask a member, patiently enough for this peer unless a deadline in seconds is given."""
        began = asyncio.get_running_loop().time()
        answer = await method.ask(self.transport, to.address, question, deadline=deadline or self.patience(to.address))
        self._measured(to.address, asyncio.get_running_loop().time() - began)
        return answer

    def patience(self, address: Address) -> float:
        """Seconds worth waiting for an answer from there: between `settings.probe` and `settings.call`."""
        trip = self._trips.get(address)
        least, most = self.settings.probe, self.settings.call
        return least if trip is None else min(max(least, trip.patience), most)

    def _measured(self, address: Address, seconds: float) -> None:
        trip = self._trips.get(address)
        if trip is None:
            self._trips[address] = RoundTrip(seconds, seconds / 2)
        else:
            trip.measured(seconds)

    async def view(self, of: Contact) -> View:
        """How a member sees itself. Raises WrongRing if what answers there now is of another ring."""
        view = await self.ask(VIEW, of, ToMember(of.id))
        if view.ring != self.ring:
            raise WrongRing(f"{of} belongs to another ring")
        return view

    async def view_if_alive(self, of: Contact) -> View | None:
        """Its view, or None if it did not answer as a member of this ring."""
        try:
            return await self.view(of)
        except RingError:
            return None

    async def answers(self, contact: Contact) -> bool:
        """One direct probe."""
        try:
            return await self.ask(PING, contact, ToMember(contact.id)) == self.ring
        except (Definite, OutcomeUnknown):
            return False

    async def is_dead(self, suspect: Contact, helpers: Iterable[Contact]) -> bool:
        """Probe `suspect` once more directly and through a few `helpers`, side by side; True if nobody reached it."""
        others = [h for h in helpers if h.address != suspect.address]
        chosen = self.random.sample(others, min(len(others), self.settings.indirect_probes))
        indirect = (self._probed_by(helper, suspect) for helper in chosen)
        verdicts = await asyncio.gather(self.answers(suspect), *indirect)
        return not any(verdicts)

    async def _probed_by(self, helper: Contact, suspect: Contact) -> bool:
        try:
            deadline = self.patience(helper.address) + self.settings.probe
            return await self.ask(PROBE, helper, Introduction(helper.id, suspect), deadline=deadline)
        except (Definite, OutcomeUnknown):
            return False


HEARSAY = 30.0
"""Seconds in which lists that still have a member that left go round."""


class Acquaintances:
    """Members once known, so that rings cut apart find each other again, and a restarted node its ring."""

    def __init__(self, clock: Callable[[], float], forget_after: float) -> None:
        self._clock = clock
        self._forget_after = forget_after
        self._seen: dict[Contact, float] = {}
        self._lost: dict[Contact, None] = {}
        self._parted: dict[Identifier, float] = {}
        """Members that left, and until when others may still speak of them."""

    def met(self, contacts: Iterable[Contact]) -> None:
        """These were seen in the ring just now, by somebody."""
        now = self._clock()
        self._parted = {each: until for each, until in self._parted.items() if until > now}
        for contact in contacts:
            if contact.id not in self._parted:
                self._seen[contact] = now
                self._lost.pop(contact, None)

    def came(self, contact: Contact) -> None:
        """It is here, and says so itself."""
        self._parted.pop(contact.id, None)
        self.met([contact])

    def lose(self, contact: Contact) -> None:
        """It does not answer any more: dead, or on the other side of a partition."""
        self._lost[contact] = None

    def parted(self, contact: Contact) -> None:
        """It left gracefully: no need to look for it."""
        self._parted[contact.id] = self._clock() + HEARSAY
        for known in [k for k in (*self._seen, *self._lost) if k.id == contact.id]:
            self._seen.pop(known, None)
            self._lost.pop(known, None)

    def lost(self) -> tuple[Contact, ...]:
        """Those that stopped answering and are not forgotten yet."""
        known = set(self.known())
        self._lost = {contact: None for contact in self._lost if contact in known}
        return tuple(self._lost)

    def known(self) -> tuple[Contact, ...]:
        """All not forgotten, the latest first."""
        horizon = self._clock() - self._forget_after
        for contact in [c for c, seen in self._seen.items() if seen < horizon]:
            del self._seen[contact]
        return tuple(sorted(self._seen, key=lambda contact: -self._seen[contact]))
