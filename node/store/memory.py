"""The simulated disk: what is committed becomes durable a moment later, in order; a crash loses what is not.

Implements the store on virtual time. No threads, no files, nothing drawn but from the Random it is given.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from node.errors import StoreFull, Unavailable
from node.identifiers import Arc, Name
from node.store.interface import Batch, Record
from node.store.names import RECORD, spans_of


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
            case ("put", name, body):
                if name not in self.records:
                    insort(self.names, name)
                self.records[name] = body
            case ("delete", name):
                if self.records.pop(name, None) is not None:
                    del self.names[bisect_left(self.names, name)]
            case ("delete_arc", arc):
                for first, behind in spans(self.names, arc):
                    for name in self.names[first:behind]:
                        del self.records[name]
                    del self.names[first:behind]
            case ("note", note, content):
                self.notes[note] = content
            case ("forget", note):
                self.notes.pop(note, None)
            case ("forget_all", prefix):
                self.notes = {note: content for note, content in self.notes.items() if not note.startswith(prefix)}


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

    async def get(self, name: Name) -> bytes | None:
        """See `Store.get`."""
        return self._disk.records.get(name)

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Store.get_many`."""
        return [self._disk.records.get(name) for name in names]

    def peek_many(self, names: Sequence[Name]) -> list[bytes | None] | None:
        """See `Store.peek_many`."""
        return [self._disk.records.get(name) for name in names]

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

    async def scan(self, arc: Arc, after: Name | None, limit: int) -> tuple[list[Record], Name | None]:
        """See `Snapshot.scan`."""
        chunk: list[Record] = []
        size = 0
        for first, behind in spans(self._names, arc, after):
            for name in self._names[first:behind]:
                if chunk and size >= limit:
                    return chunk, chunk[-1].name
                chunk.append(Record(name, self._records[name]))
                size += len(RECORD) + len(name) + len(chunk[-1].body)
        return chunk, None

    async def close(self) -> None:
        """See `Snapshot.close`."""
        self._records, self._names = {}, []


def spans(names: list[Name], arc: Arc, after: Name | None = None) -> list[tuple[int, int]]:
    """Where the ascending `names` lie in `arc`, as half-open slices, clockwise from its start, behind `after`."""
    return [
        (bisect_left(names, first), len(names) if behind is None else bisect_left(names, behind))
        for first, behind in spans_of(arc, after)
    ]
