"""The finger table: finger i of a member n is successor(n + 2**i) (Chord, section 4.3).

Kept as runs, since a table of 160 fingers holds only about log2 n different members. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.chord.messages import Fingers
from node.codec import Contact
from node.identifiers import BITS, Arc, Identifier


@dataclass(frozen=True, slots=True)
class FingerTable:
    """The fingers of `me`, each run being (first i, contact) and reaching to the next run."""

    me: Contact
    runs: tuple[tuple[int, Contact], ...] = ()

    def contacts(self) -> tuple[Contact, ...]:
        """The different members it points at."""
        return tuple(contact for _, contact in self.runs)

    def finger(self, i: int) -> Contact:
        """Finger i; the member itself where nothing is known yet."""
        found = self.me
        for first, contact in self.runs:
            if first > i:
                break
            found = contact
        return found

    def without(self, dead: Contact) -> FingerTable:
        """A dead member taken out; its run falls to the run after it, which is the next member clockwise."""
        runs: list[tuple[int, Contact]] = []
        gap: int | None = None
        for first, contact in self.runs:
            if contact.id == dead.id:
                gap = first if gap is None else gap
            else:
                runs.append((first if gap is None else gap, contact))
                gap = None
        if gap is not None:
            runs.append((gap, self.me))
        return FingerTable(self.me, tuple(runs))

    @property
    def packed(self) -> Fingers:
        """As it travels."""
        return Fingers(self.runs)


def first_finger_beyond(me: Identifier, member: Identifier, i: int) -> int:
    """The first j > i whose start no longer lies in (n + 2**i, member], that is, whose finger must be looked up anew.

    If `member` is successor(n + 2**i) then it is also successor(n + 2**j) for all starts up to `member`.
    """
    reach = Arc(me, member)
    j = i + 1
    while j < BITS and me.finger_start(j) in reach:
        j += 1
    return j
