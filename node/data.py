"""What people are told of their data, whichever way it is replicated, and what a node's data side does for the node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol

from node.codec import Address, Message
from node.identifiers import EVERYTHING, Arc, Identifier

Version = tuple[int, int]
"""Of a record: grows with every write of a key. (epoch, sequence) in a chain, (microseconds, writer) in an eventual
ring."""


class Stored(Message, frozen=True):
    """The body of a record: its version and the packed value."""

    version: Version
    value: bytes
    expires: int = 0
    """Milliseconds since 1970 from which on it is as good as deleted, an odd number; 0: never."""


def is_lasting(body: bytes) -> bool:
    """Whether a packed Stored never expires. It ends with 0 just then: the lowest byte of an odd number is another."""
    return body[-1] == 0


class Scan(Message, frozen=True):
    """Records of an arc whose keys begin with `prefix`; `keys_only`: without their values."""

    arc: Arc
    prefix: bytes = b""
    keys_only: bool = False


class Scanned(Message, frozen=True):
    """Some, from the start of the arc on; `rest` is what is left of it, None at the end."""

    records: tuple[tuple[bytes, Stored], ...]
    rest: Arc | None


class Verified(Message, frozen=True):
    """What was found of one arc; `problem` is empty if as many replicas as there should be hold the same."""

    arc: Arc
    keys: int
    replicas: tuple[Address, ...]
    problem: str


@dataclass(slots=True)
class Traffic:
    """Operations on keys that came to a node: those it was the right one for, and those it was not."""

    straight: int = 0
    astray: int = 0


class Operations(Protocol):
    """What is done with keys. All raise Unavailable if nobody who could answer does; those that write raise StoreFull,
    and OutcomeUnknown if it may or may not have been written."""

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key."""
        ...

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        """Write a packed value; see `Stored` for the time it expires."""
        ...

    async def put_if(self, key: bytes, value: bytes, version: Version | None, expires: int = 0) -> Version:
        """Write it if the key has this version, None: if it is absent. Raises VersionConflict."""
        ...

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        ...

    async def delete_if(self, key: bytes, version: Version) -> None:
        """Remove a key that has this version. Raises VersionConflict."""
        ...

    async def increment(self, key: bytes, amount: int | float) -> tuple[bytes, Version]:
        """Add to a number, 0 where there is none; what it came to, packed. Raises BadValue for what is no number."""
        ...

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        """The records of keys."""
        ...

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes]], expires: int = 0) -> None:
        """Write packed values, each for itself; an error says how many were written."""
        ...

    async def delete_many(self, keys: Iterable[bytes]) -> int:
        """Remove keys; how many were there."""
        ...

    def scan(self, prefix: bytes = b"", *, keys_only: bool = False) -> AsyncIterator[tuple[tuple[bytes, Stored], ...]]:
        """All records whose keys begin with `prefix`, portion by portion, each as of the moment it is read."""
        ...

    async def count(self, arc: Arc = EVERYTHING) -> int:
        """How many keys an arc holds."""
        ...


class Data(Protocol):
    """One node's part in holding what a ring holds."""

    @property
    def operations(self) -> Operations:
        """Operations from this node."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What was asked of this node since it came up."""
        ...

    def begin(self) -> None:
        """Begin all rounds."""
        ...

    def ring_changed(self) -> None:
        """Members of this node have other neighbours."""
        ...

    async def wake(self, others: Iterable[Address]) -> None:
        """Come up, before others count on this node, in a ring of which these nodes are up or come up too."""
        ...

    async def join(self, seats: tuple[Identifier, ...]) -> None:
        """Take part with these members. Raises NoQuorum."""
        ...

    async def serves(self) -> bool:
        """Whether this node may answer."""
        ...

    async def close(self) -> None:
        """Let nothing in any more; done when what was let in is on the disk."""
        ...

    async def reopen(self) -> None:
        """Go on after `close`, as if it had not been."""
        ...

    async def part(self) -> bool:
        """Have other nodes take over all that this one holds; True once they have, False if nobody would. Raises
        RingErrors; whoever tries again goes on from where this broke off."""
        ...

    async def replicas(self, key: bytes) -> tuple[tuple[Address, str], ...]:
        """The nodes that hold a key, each with its role. Raises RingErrors of the network."""
        ...

    async def verify(self) -> tuple[Verified, ...]:
        """Compare the replicas of all arcs. Raises RingErrors of the network."""
        ...
