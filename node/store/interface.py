"""What the upper floors ask of a disk, a dozen methods. The real engine and the simulated one both implement it.

Records are opaque bytes under names, ordered by position, so that an arc is a range scan. Beside them live a
few named notes (identity, holdings, known members). Everything in one `Batch` becomes durable at once or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.identifiers import Arc, Name


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record."""

    name: Name
    body: bytes


@dataclass(slots=True)
class Batch:
    """Changes that become durable together, applied in the order they were added."""

    changes: list[tuple[object, ...]] = field(default_factory=list)

    def put(self, name: Name, body: bytes) -> None:
        """Write one record."""
        self.changes.append(("put", name, body))

    def delete(self, name: Name) -> None:
        """Remove one record; nothing happens if there is none."""
        self.changes.append(("delete", name))

    def delete_arc(self, arc: Arc) -> None:
        """Remove every record of an arc."""
        self.changes.append(("delete_arc", arc))

    def note(self, name: str, content: bytes) -> None:
        """Write one note."""
        self.changes.append(("note", name, content))

    def forget(self, name: str) -> None:
        """Remove one note; nothing happens if there is none."""
        self.changes.append(("forget", name))

    def forget_all(self, prefix: str) -> None:
        """Remove every note whose name begins with `prefix`."""
        self.changes.append(("forget_all", prefix))


class Snapshot(Protocol):
    """The store as it was at one moment, while writes go on. Close it soon: it pins old data."""

    async def scan(self, arc: Arc, after: Name | None, limit: int) -> tuple[list[Record], Name | None]:
        """The next records of `arc` in scan order, clockwise from its start, behind the one named `after`, about
        `limit` bytes of them, at least one if any is left; and the name to go on from, None at the end."""
        ...

    async def close(self) -> None: ...


class Store(Protocol):
    """An ordered store of one node. Nothing here blocks the event loop."""

    async def get(self, name: Name) -> bytes | None:
        """The body of one record as of the latest applied commit, or None."""
        ...

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """Bodies in the order asked for."""
        ...

    def peek_many(self, names: Sequence[Name]) -> list[bytes | None] | None:
        """What `get_many` finds, if all of it is found in memory; None if it has to wait."""
        ...

    def wait_for_disk(self, wanted: bool) -> None:
        """Whether a commit is done when it is on the disk, as at first, or when it is in the page cache: that survives
        the end of the process, but not of power."""
        ...

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        """Take in a batch now, in call order; the result is done once it is durable and visible to `get`.

        `to_disk`: whether it, and all before it, must be on the disk then, whatever `wait_for_disk` says.
        Not a coroutine, so that the order of calls is the order of commits. Raises (from the awaitable) StoreFull if
        the disk is full; then nothing of the batch was applied.
        """
        ...

    async def snapshot(self) -> Snapshot:
        """A consistent view of all commits that are done."""
        ...

    async def count(self, arc: Arc) -> int:
        """How many records the arc holds."""
        ...

    async def read_note(self, name: str) -> bytes | None:
        """One note, or None."""
        ...

    async def read_notes(self, prefix: str) -> dict[str, bytes]:
        """All notes whose names begin with `prefix`, in the order of their names. For starting up: it may be slow."""
        ...

    async def close(self) -> None:
        """Finish what was committed and let go of the directory."""
        ...
