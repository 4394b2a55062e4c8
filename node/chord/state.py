"""The ring state of one member and its transitions, named after the events of the protocol.

Pure and frozen: no awaits, no clock, no network. Every transition re-checks what may have moved since its question was
asked, so a late answer changes nothing. Follows Zave, "Reasoning about identifier spaces: how to make Chord correct"
(2017), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from node.chord.messages import View
from node.codec import Contact
from node.identifiers import Arc, Identifier, between


@dataclass(frozen=True, slots=True)
class MemberState:
    """Whom a member knows beside itself. `limit` is r, the length of a full successor list."""

    me: Contact
    limit: int
    predecessor: Contact | None = None
    successors: tuple[Contact, ...] = ()

    @classmethod
    def alone(cls, me: Contact, limit: int) -> MemberState:
        """A ring of one."""
        return cls(me, limit, predecessor=me)

    @property
    def successor(self) -> Contact:
        """The head of the list; a member that knows nobody follows itself."""
        return self.successors[0] if self.successors else self.me

    @property
    def arc(self) -> Arc | None:
        """The arc this member owns as far as it knows: (predecessor, me]; None before it has a predecessor."""
        return Arc(self.predecessor.id, self.me.id) if self.predecessor else None

    def joined(self, view: View) -> MemberState:
        """*Join*: copy the whole list of m, where m < me < m's successor; m is the predecessor."""
        return replace(self, predecessor=view.me, successors=self._listed(view.successors or (view.me,)))

    def stabilized(self, view: View) -> MemberState:
        """*Stabilize from successor*, which answered: list = [s] + s.list[:-1]."""
        if view.me.id != self.successor.id:
            return self
        return replace(self, successors=self._listed((view.me, *view.successors)))

    def adopted(self, view: View) -> MemberState:
        """*Stabilize from predecessor* of my successor, p, which answered: list = [p] + p.list[:-1]."""
        if not between(self.me.id, view.me.id, self.successor.id):
            return self
        return replace(self, successors=self._listed((view.me, *view.successors)))

    def dropped(self, dead: Contact) -> MemberState:
        """A successor is dead: out of the list. The shorter list equals Zave's padding with a non-member."""
        return replace(self, successors=tuple(s for s in self.successors if s.id != dead.id))

    def rectified(self, candidate: Contact, dead: Contact | None = None) -> MemberState:
        """*Rectify*: adopt a live candidate between my predecessor and me, or any if the predecessor is `dead`."""
        now = self.predecessor
        vacant = now is None or now.id == candidate.id or (dead is not None and now.id == dead.id)
        if vacant or (now is not None and candidate.id != self.me.id and between(now.id, candidate.id, self.me.id)):
            return replace(self, predecessor=candidate)
        return self

    def preceding(self, point: Identifier, known: Iterable[Contact]) -> list[Contact]:
        """Of `known` and my successors, those strictly between me and `point`, the closest to it first."""
        found = {c.id: c for c in (*known, *self.successors) if between(self.me.id, c.id, point)}
        return sorted(found.values(), key=lambda contact: contact.id.distance_to(point))

    def owners(self, point: Identifier) -> tuple[Contact, ...]:
        """The successor of `point` and who follows it, r of them or all there are, if it is I or my successor; else
        empty.

        The rest of the list may be a round behind: it helps to get closer, not to give the last word.
        """
        if not self.successors or (self.arc is not None and point in self.arc):
            return (self.me, *self.successors)[: self.limit]
        if point in Arc(self.me.id, self.successor.id):
            return (*self.successors, self.me)[: self.limit]  # a list that is not full ends before it comes to me
        return ()

    def _listed(self, contacts: Iterable[Contact]) -> tuple[Contact, ...]:
        """At most r of them, ordered clockwise from me, ending before the list would come around to me."""
        result: list[Contact] = []
        last = self.me.id
        for contact in contacts:
            if contact.id != self.me.id and between(last, contact.id, self.me.id):
                result.append(contact)
                last = contact.id
        return tuple(result[: self.limit])
