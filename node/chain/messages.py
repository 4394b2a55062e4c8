"""What the nodes of chains say to each other, and what they write down. Values only."""

from __future__ import annotations

from collections.abc import Iterable

from node.chain.ring_map import Entry, Life
from node.codec import Message, NameOnWire
from node.data import Scan, Scanned, Version
from node.identifiers import Arc, Identifier, Name
from node.register.messages import Record
from node.transport import Method

NEVER: Version = (0, 0)

Cover = bytes
"""Keys, by the first bytes of their positions one after the other; empty: all that is asked of."""
MARK = 8
"""How many bytes of each."""


def cover(names: Iterable[Name]) -> Cover:
    """The cover of these keys."""
    return b"".join([name[:MARK] for name in names])


def marks(covers: Cover) -> frozenset[bytes]:
    """A cover taken apart."""
    return frozenset(covers[at : at + MARK] for at in range(0, len(covers), MARK))


class Operation(Message, frozen=True):
    """The name of one write: attempts under one name are one write. A client has one write at a time in each slot."""

    client: bytes
    slot: int
    number: int


class Edit(Message, frozen=True):
    """A key and its new packed value, None to delete it; `conditional`: only if its version is `expected` (None: only
    if it is absent). With an `amount` the new value is the number there, or 0, and that much more."""

    key: bytes
    value: bytes | None
    conditional: bool = False
    expected: Version | None = None
    amount: int | float | None = None
    expires: int = 0
    """See `Stored`."""


class Write(Message, frozen=True):
    """Edits of keys of one arc, done together in this order."""

    operation: Operation
    edits: tuple[Edit, ...]


class Outcome(Message, frozen=True):
    """What a write came to when it was ordered: which of the keys it deletes were there; or that it did nothing, as a
    key had another version than expected, or held no number to add to; or the number it came to, packed."""

    gone: tuple[Identifier, ...] = ()
    conflict: tuple[bytes, Version | None] | None = None
    total: bytes | None = None
    unfit: str = ""


class Written(Message, frozen=True):
    """What became of a write, and the version it got."""

    version: Version
    outcome: Outcome


class Read(Message, frozen=True):
    """Keys of one arc to read."""

    keys: tuple[bytes, ...]


class Change(Message, frozen=True):
    """One record as a command leaves it; None: gone."""

    name: NameOnWire
    body: bytes | None


class Command(Message, frozen=True):
    """A write as it was ordered: what travels down a chain."""

    version: Version
    operation: Operation | None
    changes: tuple[Change, ...]
    outcome: Outcome
    covers: Cover = b""
    """What was ordered of the operation so far, this included: where its arc was split, it is tried again in parts."""
    overtaken: bool = False
    """Whether it was made of records that a later command had written: what it wrote itself is not known any more."""


class Logged(Message, frozen=True):
    """What is remembered of a command: enough to send it again, and to answer its operation again."""

    version: Version
    operation: Operation | None
    names: tuple[NameOnWire, ...]
    outcome: Outcome
    at: float
    """When it was stored here, by the clock of this host: operations are forgotten by it."""
    covers: Cover = b""


class ReplicaState(Message, frozen=True):
    """What a replica is, on disk. `base`: how far its content goes, not counting its log; `sealed`: the last epoch in
    which, as in all before, it takes nothing any more."""

    arc: Arc
    epoch: int
    chain: tuple[Life, ...]
    sealed: int
    base: Version


class Link(Message, frozen=True):
    """I come before you in the chain of this arc in this epoch."""

    entry: Entry
    sender: Life


class Linked(Message, frozen=True):
    """How far the next one's content goes, and how far it is stable from there on."""

    position: Version
    stable: Version


class Append(Message, frozen=True):
    """Commands that follow `after` directly in my history; answered when the rest of the chain has them, and all before
    them. There may be none: then the question is only that."""

    arc: Arc
    epoch: int
    sender: Life
    after: Version
    commands: tuple[Command, ...]

    @property
    def last(self) -> Version:
        """How far the answer reaches."""
        return self.commands[-1].version if self.commands else self.after


class Seal(Message, frozen=True):
    """Take nothing of epochs up to `epoch` any more, in this arc."""

    arc: Arc
    epoch: int
    life: Life
    spell: float = 0.0
    """Seconds from now on in which a newcomer takes the rest, and the change has not broken off."""


class Still(Message, frozen=True):
    """Order no more writes for a moment, and answer when all ordered before are on every member's disk."""

    arc: Arc
    epoch: int


class Sealed(Message, frozen=True):
    """It is sealed for good, and its content goes so far."""

    position: Version


class BeginMirror(Message, frozen=True):
    """I want a copy of this arc."""

    arc: Arc


class Pull(Message, frozen=True):
    """The next records after `after`."""

    mirror: bytes
    after: NameOnWire | None


class Pulled(Message, frozen=True):
    """Records, and where to go on; None at the end."""

    records: tuple[Change, ...]
    after: NameOnWire | None


class Summed(Message, frozen=True):
    """A fingerprint of the next records, and where to go on; None at the end."""

    digest: bytes
    after: NameOnWire | None


class Delta(Message, frozen=True):
    """What changed meanwhile, chunk `number`; with `sealed` not 0, all of it, from a replica sealed in that epoch."""

    mirror: bytes
    number: int
    sealed: int


class Changes(Message, frozen=True):
    """Changed records, then the operations remembered; `left` more are waiting. At the end: how far this goes."""

    records: tuple[Change, ...]
    left: int
    position: Version
    log: tuple[Logged, ...]


class Watching(Message, frozen=True):
    """Tell me of changes of keys that begin with `key` (`exact`: of that key alone), in these arcs after these
    versions; without versions: from where you are."""

    places: tuple[tuple[Arc, Version | None], ...]
    key: bytes
    exact: bool
    patience: float
    """Seconds to wait for something to tell."""


class Watched(Message, frozen=True):
    """What happened up to a version; `unknown`: that is not known here any more, another member may know it."""

    events: tuple[tuple[Version, Change], ...]
    upto: Version
    unknown: bool = False


class Sign(Message, frozen=True):
    """Of life, and the ring map if it is newer than that of who asked: its keepers may all have changed unheard."""

    life: Life
    news: Record | None


class Digest(Message, frozen=True):
    """A fingerprint of a replica's records of an arc, and how far its content goes."""

    digest: bytes
    count: int
    position: Version


WRITE: Method[Write, Written] = Method("chain.write", Write, Written)
READ: Method[Read, tuple[bytes | None, ...]] = Method("chain.read", Read, tuple[bytes | None, ...])
"""As many of these, packed `Stored`, in their order, as fit into a message, at least one."""
SCAN: Method[Scan, Scanned] = Method("chain.scan", Scan, Scanned)
CHART: Method[int, Record] = Method("chain.chart", int, Record)
"""The ring map, newer than this revision if there is a newer one."""
LINK: Method[Link, Linked] = Method("chain.link", Link, Linked)
APPEND: Method[Append, None] = Method("chain.append", Append, type(None))
STILL: Method[Still, None] = Method("chain.still", Still, type(None))
SEAL: Method[Seal, Sealed] = Method("chain.seal", Seal, Sealed)
BEGIN: Method[BeginMirror, bytes] = Method("chain.mirror", BeginMirror, bytes)
PULL: Method[Pull, Pulled] = Method("chain.pull", Pull, Pulled)
SUM: Method[Pull, Summed] = Method("chain.sum", Pull, Summed)
DELTA: Method[Delta, Changes] = Method("chain.delta", Delta, Changes)
WATCH: Method[Watching, Watched] = Method("chain.watch", Watching, Watched)
NEWS: Method[Record, None] = Method("chain.news", Record, type(None))
DIGEST: Method[Arc, Digest] = Method("chain.digest", Arc, Digest)
COUNT: Method[Arc, int] = Method("chain.count", Arc, int)
ALIVE: Method[int, Sign] = Method("chain.alive", int, Sign)
"""Asked with the revision of the map that the asker knows."""
