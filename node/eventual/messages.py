"""What nodes ask each other about records that any of them may write."""

from __future__ import annotations

from node.codec import Contact, Message
from node.data import Scan, Scanned, Stored, Version
from node.eventual.cells import Cell, Context
from node.eventual.stamps import Stamp
from node.identifiers import Arc
from node.transport import Method


class Deposit(Message, frozen=True):
    """Write a packed value, None to delete, at this time, in place of what `seen` covers. All attempts of one write say
    the same time, so that a late one changes nothing that was written since."""

    key: bytes
    value: bytes | None
    time: int
    seen: Context = ()


class Deposited(Message, frozen=True):
    """The write is on the disk of this replica; or it is not, since the key holds something of that time or later."""

    taken: bool
    newest: Stamp
    """Of the write, or of what stands in its way."""
    existed: bool
    """Whether the key had a value there."""


class Sum(Message, frozen=True):
    """What is held of an arc: the fingerprints of its records added up, how many there are, how many have a value."""

    total: bytes
    records: int
    living: int


class Listing(Message, frozen=True):
    """Keys and fingerprints of all records held of an arc; without an arc, of these keys."""

    arc: Arc | None
    records: tuple[tuple[bytes, bytes], ...]


class Differences(Message, frozen=True):
    """Keys of which the one asked holds something else than listed, and keys it should be given."""

    other: tuple[bytes, ...]
    wanted: tuple[bytes, ...]


class Cells(Message, frozen=True):
    """All that is known of some keys."""

    cells: tuple[tuple[bytes, Cell], ...]


class Burial(Message, frozen=True):
    """All replicas of an arc hold every tombstone that reached them before `known`; those stamped before `horizon` may
    go. Microseconds."""

    arc: Arc
    horizon: int
    known: int


DEPOSIT: Method[Deposit, Deposited] = Method("eventual.deposit", Deposit, Deposited)
PICK: Method[bytes, Cell] = Method("eventual.pick", bytes, Cell)  # after asking others, if need be
HELD: Method[bytes, Cell] = Method("eventual.held", bytes, Cell)  # what is held right there
SUMS: Method[tuple[Arc, ...], tuple[Sum, ...]] = Method("eventual.sums", tuple[Arc, ...], tuple[Sum, ...])
COMPARE: Method[Listing, Differences] = Method("eventual.compare", Listing, Differences)
FETCH: Method[tuple[bytes, ...], Cells] = Method("eventual.fetch", tuple[bytes, ...], Cells)
"""As many of these, in their order, as fit into a message, at least one."""
GIVE: Method[Cells, Cells] = Method("eventual.give", Cells, Cells)
"""Answered with what is not the same as given once it was taken in."""
BURY: Method[Burial, None] = Method("eventual.bury", Burial, type(None))
CONTACTS: Method[None, tuple[Contact, ...]] = Method("eventual.contacts", type(None), tuple[Contact, ...])
"""The members of the ring that answer."""
GET_MANY: Method[tuple[bytes, ...], tuple[Stored | None, ...]] = Method(
    "eventual.get_many", tuple[bytes, ...], tuple[Stored | None, ...]
)
"""As many of these, in their order, as fit into a message, at least one."""
PUT_MANY: Method[tuple[tuple[bytes, bytes], ...], tuple[Version, ...]] = Method(
    "eventual.put_many", tuple[tuple[bytes, bytes], ...], tuple[Version, ...]
)
DELETE_MANY: Method[tuple[bytes, ...], int] = Method("eventual.delete_many", tuple[bytes, ...], int)
SCAN: Method[Scan, Scanned] = Method("eventual.scan", Scan, Scanned)  # any node can be asked
PART: Method[Scan, Scanned] = Method("eventual.part", Scan, Scanned)  # the owner of the beginning of the arc only
COUNT: Method[Arc, int] = Method("eventual.count", Arc, int)
CLOCK: Method[None, int] = Method("eventual.clock", type(None), int)
