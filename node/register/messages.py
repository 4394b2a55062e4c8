"""What keepers are asked, and what they write down. Values only."""

from __future__ import annotations

from node.codec import Address, Message
from node.transport import Method

Ballot = tuple[int, bytes]
"""(round, life of the proposer): grows with every attempt, and no two proposers share one."""

ZERO: Ballot = (0, b"")


GENERATION = 1 << 40
"""Revisions of one generation of the register. A repair by force begins another, beyond all that the one before can
reach."""


class Keeper(Message, frozen=True):
    """A node that keeps the register: which life of its disk, and where it is."""

    life: bytes
    address: Address


class Configuration(Message, frozen=True):
    """Who keeps the register. While keepers are replaced (`following` is not empty), majorities of both count."""

    keepers: tuple[Keeper, ...]
    following: tuple[Keeper, ...] = ()

    @property
    def groups(self) -> tuple[tuple[Keeper, ...], ...]:
        """Of each of these a majority is needed."""
        return (self.keepers, self.following) if self.following else (self.keepers,)


class Record(Message, frozen=True):
    """The content of the register after `revision` changes, the last of which is named `change`."""

    revision: int
    change: bytes
    value: bytes
    configuration: Configuration
    drops: tuple[bytes, ...] = ()
    """Lives that this change leaves without a right to answer, and that did not say that they know."""

    @property
    def generation(self) -> int:
        """How often the register was begun anew by force before this."""
        return self.revision // GENERATION


class State(Message, frozen=True):
    """What a keeper has on disk."""

    promised: Ballot
    accepted: Ballot
    record: Record | None


class Prepare(Message, frozen=True):
    """*Prepare*, 1a."""

    to: bytes
    ballot: Ballot


class Promise(Message, frozen=True):
    """*Promise*, 1b: what was accepted last; or, if `granted` is false, the ballot that stands in the way."""

    granted: bool
    ballot: Ballot
    record: Record | None


class Accept(Message, frozen=True):
    """*Accept*, 2a."""

    to: bytes
    ballot: Ballot
    record: Record


class Accepted(Message, frozen=True):
    """*Accepted*, 2b; or the ballot in the way; or how many seconds a lease of a dropped node still runs."""

    granted: bool
    ballot: Ballot
    wait: float = 0.0


class LeaseQuestion(Message, frozen=True):
    """May this node answer, for as long as the map of this revision says?"""

    to: bytes
    life: bytes
    revision: int


class LeaseAnswer(Message, frozen=True):
    """Whether it may; and the revision that this keeper has accepted."""

    granted: bool
    revision: int


INSPECT: Method[bytes, Promise] = Method("register.inspect", bytes, Promise)
PREPARE: Method[Prepare, Promise] = Method("register.prepare", Prepare, Promise)
ACCEPT: Method[Accept, Accepted] = Method("register.accept", Accept, Accepted)
LEASE: Method[LeaseQuestion, LeaseAnswer] = Method("register.lease", LeaseQuestion, LeaseAnswer)
