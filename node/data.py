"""What people are told of their data, whichever way it is replicated, and what a node's data side does for the node."""

from __future__ import annotations

from typing import Protocol

from node.codec import Address, Message
from node.identifiers import Arc, Identifier

Version = tuple[int, int]
"""Of a record: grows with every write of a key. (epoch, sequence) in a chain, (microseconds, writer) in an eventual
ring."""


class Stored(Message, frozen=True):
    """The body of a record: its version and the packed value."""

    version: Version
    value: bytes
    expires: int = 0
    """Milliseconds since 1970 from which on it is as good as deleted; 0: never."""


class Verified(Message, frozen=True):
    """What was found of one arc; `problem` is empty if as many replicas as there should be hold the same."""

    arc: Arc
    keys: int
    replicas: tuple[Address, ...]
    problem: str


class Operations(Protocol):
    """Single operations. All raise Unavailable if nobody who could answer does."""

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key."""
        ...

    async def put(self, key: bytes, value: bytes) -> Version:
        """Write a packed value. Raises StoreFull, and OutcomeUnknown if it may or may not have been written."""
        ...

    async def put_if(self, key: bytes, value: bytes, version: Version | None) -> Version:
        """Write it if the key has this version, None: if it is absent. Raises VersionConflict, and as `put` does."""
        ...

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        ...


class Data(Protocol):
    """One node's part in holding what a ring holds."""

    @property
    def operations(self) -> Operations:
        """Single operations from this node."""
        ...

    def begin(self) -> None:
        """Begin all rounds."""
        ...

    def ring_changed(self) -> None:
        """Members of this node have other neighbours."""
        ...

    async def join(self, seats: tuple[Identifier, ...]) -> None:
        """Take part with these members. Raises NoQuorum."""
        ...

    async def serves(self) -> bool:
        """Whether this node may answer."""
        ...

    async def part(self) -> bool:
        """Have other nodes take over all that this one holds; True once they have, False if nobody would. Raises
        RingErrors; whoever tries again goes on from where this broke off."""
        ...

    async def count(self, arc: Arc) -> int:
        """How many keys there are in the arc of a member. Raises RingErrors of the network."""
        ...

    async def replicas(self, key: bytes) -> tuple[tuple[Address, str], ...]:
        """The nodes that hold a key, each with its role. Raises RingErrors of the network."""
        ...

    async def verify(self) -> tuple[Verified, ...]:
        """Compare the replicas of all arcs. Raises RingErrors of the network."""
        ...
