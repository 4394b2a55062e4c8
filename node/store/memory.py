"""The simulated disk: what is committed becomes durable a moment later, in order; a crash loses what is not.

Implements the store on virtual time. No threads, no files, nothing drawn but from the Random it is given.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from random import Random
from typing import Any

from node.errors import StoreFull, Unavailable
from node.identifiers import Arc, Identifier
from node.store.interface import Batch, Cursor, Record
from node.store.names import record_name

Name = tuple[Identifier, bytes]


class MemoryDisk:
    """What outlives a process: the durable records and notes."""

    def __init__(self) -> None:
        self.records: dict[Name, bytes] = {}
        self.names: list[Name] = []
        self.notes: dict[str, bytes] = {}
        self.full = False
        """A full disk refuses every commit."""
        self.life = 0
        self._seen = False
        self._on_disk: tuple[dict[Name, bytes], list[Name], dict[str, bytes]] | None = None
        """As it was when the page cache was written back last; None: just so."""

    def crash(self, *, power: bool = False) -> None:
        """The process is gone, and with it every commit under way; with the power also what is in the page cache."""
        self.life += 1
        if power and self._on_disk is not None:
            self.records, self.names, self.notes = self._on_disk
            self._on_disk, self._seen = None, False

    def write_back(self) -> None:
        """The kernel writes its page cache to the disk, as it does from time to time."""
        self._on_disk = None

    def wipe(self) -> None:
        """The disk was replaced."""
        self.records, self.names, self.notes = {}, [], {}

    def view(self) -> tuple[dict[Name, bytes], list[Name]]:
        """Records and names as they are now; later changes are made to a copy."""
        self._seen = True
        return self.records, self.names

    def apply(self, batch: Batch, *, synced: bool = True) -> None:
        """All changes of a batch, in order; with `synced` they and all before them reach the disk."""
        if synced:
            self._on_disk = None
        elif self._on_disk is None:
            self._on_disk = dict(self.records), list(self.names), dict(self.notes)
        if self._seen:
            self.records, self.names, self._seen = dict(self.records), list(self.names), False
        for change in batch.changes:
            self._apply(change)

    def _apply(self, change: tuple[Any, ...]) -> None:
        match change:
            case ("put", position, key, body):
                if (position, key) not in self.records:
                    insort(self.names, (position, key))
                self.records[position, key] = body
            case ("delete", position, key):
                if self.records.pop((position, key), None) is not None:
                    del self.names[bisect_left(self.names, (position, key))]
            case ("delete_arc", arc):
                for first, behind in spans(self.names, arc):
                    for name in self.names[first:behind]:
                        del self.records[name]
                    del self.names[first:behind]
            case ("note", name, content):
                self.notes[name] = content
            case ("forget", name):
                self.notes.pop(name, None)
            case ("forget_all", prefix):
                self.notes = {name: content for name, content in self.notes.items() if not name.startswith(prefix)}


class MemoryStore:
    """`Store` on a MemoryDisk, for as long as the process that opened it lives."""

    def __init__(self, disk: MemoryDisk, random: Random, latency: float = 0.001) -> None:
        """`latency`: mean seconds until a commit is durable."""
        self._disk = disk
        self._random = random
        self._latency = latency
        self._life = disk.life
        self._due = 0.0
        self._queue: deque[tuple[Batch, bool | None, asyncio.Future[None]]] = deque()
        self._closed = False
        self._waits = True

    async def get(self, position: Identifier, key: bytes) -> bytes | None:
        """See `Store.get`."""
        return self._disk.records.get((position, key))

    async def get_many(self, wanted: list[Name]) -> list[bytes | None]:
        """See `Store.get_many`."""
        return [self._disk.records.get(name) for name in wanted]

    def peek_many(self, wanted: list[Name]) -> list[bytes | None] | None:
        """See `Store.peek_many`."""
        return [self._disk.records.get(name) for name in wanted]

    def wait_for_disk(self, wanted: bool) -> None:
        """See `Store.wait_for_disk`."""
        self._waits = wanted

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        """See `Store.commit`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._closed:
            done.set_exception(Unavailable("the store is closed"))
            return done
        self._due = max(self._due, loop.time() + self._random.expovariate(1 / self._latency))
        self._queue.append((Batch(batch.changes.copy()), to_disk, done))
        loop.call_at(self._due, self._commit_next)
        return done

    def _commit_next(self) -> None:
        batch, to_disk, done = self._queue.popleft()
        if self._disk.life != self._life:
            return
        if self._disk.full:
            if not done.done():
                done.set_exception(StoreFull("the simulated disk is full"))
            return
        self._disk.apply(batch, synced=self._waits if to_disk is None else to_disk)
        if not done.done():
            done.set_result(None)

    async def snapshot(self) -> MemorySnapshot:
        """See `Store.snapshot`."""
        return MemorySnapshot(*self._disk.view())

    async def count(self, arc: Arc) -> int:
        """See `Store.count`."""
        return sum(behind - first for first, behind in spans(self._disk.names, arc))

    async def read_note(self, name: str) -> bytes | None:
        """See `Store.read_note`."""
        return self._disk.notes.get(name)

    async def read_notes(self, prefix: str) -> dict[str, bytes]:
        """See `Store.read_notes`."""
        return {name: self._disk.notes[name] for name in sorted(self._disk.notes) if name.startswith(prefix)}

    async def close(self) -> None:
        """See `Store.close`: waits for what was committed."""
        if not self._closed:
            last = self.commit(Batch())
            self._closed = True
            with suppress(StoreFull):
                await last


class MemorySnapshot:
    """What there was when it was taken."""

    def __init__(self, records: dict[Name, bytes], names: list[Name]) -> None:
        self._records = records
        self._names = names

    async def scan(self, arc: Arc, after: Cursor | None, limit: int) -> tuple[list[Record], Cursor | None]:
        """See `Snapshot.scan`."""
        chunk: list[Record] = []
        size = 0
        for first, behind in spans(self._names, arc, after):
            for position, key in self._names[first:behind]:
                if chunk and size >= limit:
                    return chunk, Cursor(chunk[-1].position, chunk[-1].key)
                body = self._records[position, key]
                chunk.append(Record(position, key, body))
                size += len(record_name(position, key)) + len(body)
        return chunk, None

    async def close(self) -> None:
        """See `Snapshot.close`."""
        self._records, self._names = {}, []


def spans(names: list[Name], arc: Arc, after: Cursor | None = None) -> list[tuple[int, int]]:
    """Where the ascending `names` lie in `arc`, as half-open slices, clockwise from its start, behind the cursor."""
    found: list[tuple[int, int]] = []
    for low, high in reversed(arc.ranges()):
        first = (Identifier(low), b"")
        if after is not None and low <= after.position <= high:
            found.clear()
            first = (after.position, after.key + b"\x00")
        found.append((bisect_left(names, first), bisect_left(names, (Identifier(high + 1), b""))))
    return found
