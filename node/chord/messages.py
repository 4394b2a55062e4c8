"""What members say to each other. Values only; handlers are in `member`, who asks is in the rounds."""

from __future__ import annotations

from node.codec import Contact, Message
from node.identifiers import Identifier
from node.transport import Method


class ToMember(Message, frozen=True):
    """A question with no more to it than whom it is for."""

    to: Identifier


class View(Message, frozen=True):
    """A member as it sees itself: the answer everything in the protocol is decided on."""

    ring: bytes
    me: Contact
    predecessor: Contact | None
    successors: tuple[Contact, ...]


class Introduction(Message, frozen=True):
    """Somebody for `to` to consider in its next round."""

    to: Identifier
    contact: Contact


class Departure(Message, frozen=True):
    """`leaver` leaves the ring and names whom it leaves behind."""

    to: Identifier
    leaver: Contact
    predecessor: Contact | None
    successors: tuple[Contact, ...]


class RouteQuestion(Message, frozen=True):
    """Which way to the successor of `point`?"""

    to: Identifier
    point: Identifier


class Route(Message, frozen=True):
    """Either `owners` (the successor of the point, then who follows it) or members `closer` to it, closest first."""

    owners: tuple[Contact, ...]
    closer: tuple[Contact, ...]


class Admission(Message, frozen=True):
    """May I have half of the widest arc you own, which I take to be `width` points wide?"""

    to: Identifier
    width: bytes


class Numbering(Message, frozen=True):
    """`to` is number `number` of the ring, the highest number is `highest`."""

    to: Identifier
    number: int
    highest: int


class Fingers(Message, frozen=True):
    """A whole finger table, run-length coded: the first `i` a contact is finger of, and the contact."""

    runs: tuple[tuple[int, Contact], ...]


class MemberReport(Message, frozen=True):
    """What a member tells people about itself."""

    me: Contact
    neighbour: Contact
    predecessor: Contact | None
    successors: tuple[Contact, ...]
    fingers: Fingers
    number: int
    highest: int


PING: Method[ToMember, bytes] = Method("chord.ping", ToMember, bytes)
VIEW: Method[ToMember, View] = Method("chord.view", ToMember, View)
NOTIFY: Method[Introduction, None] = Method("chord.notify", Introduction, type(None))
INTRODUCE: Method[Introduction, None] = Method("chord.introduce", Introduction, type(None))
PROBE: Method[Introduction, bool] = Method("chord.probe", Introduction, bool)
DEPART: Method[Departure, None] = Method("chord.depart", Departure, type(None))
ROUTE: Method[RouteQuestion, Route] = Method("chord.route", RouteQuestion, Route)
ADMIT: Method[Admission, Identifier] = Method("chord.admit", Admission, Identifier)
GRANTS: Method[ToMember, tuple[Identifier, ...]] = Method("chord.grants", ToMember, tuple[Identifier, ...])
NUMBER: Method[Numbering, None] = Method("chord.number", Numbering, type(None))
FIX_FINGERS: Method[ToMember, None] = Method("chord.fix_fingers", ToMember, type(None))
REPORT: Method[ToMember, MemberReport] = Method("chord.report", ToMember, MemberReport)
