"""What nodes say to each other about keys and arcs."""

from __future__ import annotations

from node.codec import Address, Contact, Message
from node.identifiers import Arc, Identifier
from node.replication.holdings import Piece
from node.store.interface import Cursor
from node.transport import Method

Version = tuple[int, int]
"""(epoch, sequence): grows with every write of a key, whoever holds it."""


class Stored(Message, frozen=True):
    """The body of a record: its version and the packed value; None marks a delete that others may not know of yet."""

    version: Version
    value: bytes | None


class KeyQuestion(Message, frozen=True):
    """A key, to get or delete."""

    key: bytes


class PutQuestion(Message, frozen=True):
    """A key and its packed value."""

    key: bytes
    value: bytes


class Hello(Message, frozen=True):
    """What a node says of itself to whoever asks."""

    node: bytes
    """The id of this life of its data directory."""
    ring: bytes
    serving: bool
    members: tuple[Contact, ...]
    alone: bool


class Adoption(Message, frozen=True):
    """Leave your ring of one and join mine, with this id."""

    ring: bytes
    seed: Contact
    id: Identifier


class LeaseQuestion(Message, frozen=True):
    """May I, whose member `member` comes right before your member `to`, go on answering for what I hold?"""

    to: Identifier
    member: Identifier
    address: Address
    holds: tuple[Piece, ...]
    claims: tuple[Piece, ...]
    """What my predecessors hold as far as I know: whoever takes over from us both needs it."""


class Offer(Message, frozen=True):
    """I hold these and should not: come and fetch them. `leaving`: take them whatever the ring says."""

    source: Address
    pieces: tuple[Piece, ...]
    leaving: bool


class Begin(Message, frozen=True):
    """I, the node at `by`, want to answer for `arc` from now on."""

    arc: Arc
    by: Address


class Begun(Message, frozen=True):
    """A hand-over has begun: of this piece, under this name."""

    transfer: bytes
    piece: Piece


class Pull(Message, frozen=True):
    """The next records after `after`."""

    transfer: bytes
    after: Cursor | None


class Copy(Message, frozen=True):
    """One record in transfer."""

    position: Identifier
    key: bytes
    body: bytes | None


class Pulled(Message, frozen=True):
    """A chunk of records, and where to go on; None at the end."""

    records: tuple[Copy, ...]
    after: Cursor | None


class Delta(Message, frozen=True):
    """What changed meanwhile, chunk `number`; `freeze`: and take no writes from now on."""

    transfer: bytes
    number: int
    freeze: bool


class Changes(Message, frozen=True):
    """Changed records; `left` more are waiting."""

    records: tuple[Copy, ...]
    left: int


GET: Method[KeyQuestion, Stored | None] = Method("ring.get", KeyQuestion, Stored | None)  # type: ignore[arg-type]
PUT: Method[PutQuestion, Version] = Method("ring.put", PutQuestion, Version)  # type: ignore[arg-type]
DELETE: Method[KeyQuestion, bool] = Method("ring.delete", KeyQuestion, bool)
COUNT: Method[Arc, int] = Method("ring.count", Arc, int)
HELLO: Method[None, Hello] = Method("ring.hello", type(None), Hello)
ADOPT: Method[Adoption, None] = Method("ring.adopt", Adoption, type(None))
LEASE: Method[LeaseQuestion, bool] = Method("arc.lease", LeaseQuestion, bool)
HOLDS: Method[Arc, tuple[Piece, ...]] = Method("arc.holds", Arc, tuple[Piece, ...])
OFFER: Method[Offer, bool] = Method("arc.offer", Offer, bool)
BEGIN: Method[Begin, Begun] = Method("arc.begin", Begin, Begun)
PULL: Method[Pull, Pulled] = Method("arc.pull", Pull, Pulled)
DELTA: Method[Delta, Changes] = Method("arc.delta", Delta, Changes)
RELEASE: Method[bytes, bool] = Method("arc.release", bytes, bool)
CONFIRM: Method[bytes, None] = Method("arc.confirm", bytes, type(None))
