"""Bodies of records that were read lately, in memory: a look there costs a twentieth of one into the engine.

Never stale, by two rules. What is about to be written is forgotten before it is handed to the engine, and while writes
are under way, or have come since a read began, nothing that was read is remembered. Belongs to one event loop.

Two generations stand for an order of use: what is found in the old one moves to the young one, and when that is full it
becomes the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from node.identifiers import Name
from node.settings import KIB, MIB
from node.store.interface import Batch

ROOM = 16 * MIB
"""Bytes of one generation, about."""
OVERHEAD = 150
"""What a record costs beside its name and body."""
LARGE = 64 * KIB
"""Bodies from this size on are not kept: looking for them is not what they cost."""


class HotRecords:
    """What is remembered."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._young: dict[Name, bytes] = {}
        self._old: dict[Name, bytes] = {}
        self._size = 0

    def find(self, names: Sequence[Name]) -> list[bytes | None]:
        """The bodies of these, None of those that are not known here."""
        young = self._young
        found = [young.get(name) for name in names]
        if self._old and None in found:
            for n, body in enumerate(found):
                if body is None and (body := self._old.pop(names[n], None)) is not None:
                    found[n] = body
                    self._keep(names[n], body)
        return found

    def learn(self, names: Iterable[Name], bodies: Iterable[bytes | None]) -> None:
        """Remember what was read."""
        for name, body in zip(names, bodies, strict=True):
            if body is not None and len(body) < LARGE:
                self._keep(name, body)

    def _keep(self, name: Name, body: bytes) -> None:
        if name in self._young:  # two may have missed it at a time
            return
        self._young[name] = body
        self._size += _size(name, body)
        if self._size > self._room:
            self._young, self._old, self._size = {}, self._young, 0

    def forget(self, batch: Batch) -> None:
        """What this touches is about to be another."""
        if not self._young and not self._old:
            return
        for change in batch.changes:
            if change[0] == "put" or change[0] == "delete":
                self._drop(change[1])  # type: ignore[arg-type]
            elif change[0] == "delete_arc":
                self._young, self._old, self._size = {}, {}, 0

    def _drop(self, name: Name) -> None:
        self._old.pop(name, None)  # it may be in both
        body = self._young.pop(name, None)
        if body is not None:
            self._size -= _size(name, body)


def _size(name: Name, body: bytes) -> int:
    return len(name) + len(body) + OVERHEAD
