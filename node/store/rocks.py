"""The store on RocksDB: commits on one thread, scans on another, point reads from memory on the loop.

This file puts the parts together; why RocksDB and what it costs: docs/decisions/0002-storage-engine.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from node.errors import DirectoryDamaged, RingError, StoreFull, Unavailable
from node.identifiers import Arc, Name
from node.store.committer import Committer
from node.store.directory import CONTENT, Directory
from node.store.engine import Engine, EngineError, Iterator, NotOpen, is_full
from node.store.hot import HotRecords
from node.store.interface import Batch, Record
from node.store.names import RECORD, note_name, note_of, notes_range, ranges_of, record_of
from node.store.reader import Reader

T = TypeVar("T")

COUNT_CHUNK = 20_000
"""Records counted before another scan may have the thread."""


async def open_store(directory: Path) -> RocksStore:
    """Open or make the store in `directory`. Raises DirectoryInUse, DirectoryDamaged, BadUsage, StoreFull."""
    return await asyncio.to_thread(RocksStore, directory, asyncio.get_running_loop())


class RocksStore:
    """`Store` on RocksDB. Belongs to the loop it was opened on.

    Beside what `Store` says, a commit raises OutcomeUnknown if the disk took it and then failed to confirm it, and
    Unavailable (nothing was applied) if the disk fails otherwise; a read raises Unavailable if it cannot be done.
    """

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._directory = Directory(directory)
        try:
            self._engine = Engine(directory / CONTENT)
        except EngineError as error:
            self._directory.undo()
            if is_full(error):
                raise StoreFull(f"the disk of {directory} is full: free space and start again ({error})") from None
            raise DirectoryDamaged(f"the store in {directory} cannot be opened: {error}") from None
        self._loop = loop
        self._committer = Committer(self._engine, loop)
        self._reader = Reader(self._engine, loop)
        self._hot = HotRecords()
        self._commits = 0
        """How many have begun."""
        self._scanner = ThreadPoolExecutor(1, "scan")
        self._closing: asyncio.Task[None] | None = None
        self._let_go = self._directory.close

    def wait_for_disk(self, wanted: bool) -> None:
        """See `Store.wait_for_disk`."""
        self._committer.to_disk = wanted

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, name: Name) -> bytes | None:
        """See `Store.get`."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """See `Store.get_many`."""
        self._check_open()
        found = self._hot.find(names)
        if missed := _missed(names, found):
            began = self._moment
            bodies = await self._read(partial(self._reader.get_many, [RECORD + name for name in missed]))
            self._complete(found, missed, bodies, began)
        return found

    def peek_many(self, names: Sequence[Name]) -> list[bytes | None] | None:
        """See `Store.peek_many`."""
        self._check_open()
        found = self._hot.find(names)
        if missed := _missed(names, found):
            try:
                bodies = self._reader.peek_many([RECORD + name for name in missed])
            except EngineError:
                return None  # who waits for it is told why
            if bodies is None:
                return None
            self._complete(found, missed, bodies, self._moment)
        return found

    @property
    def _moment(self) -> int | None:
        """The same as long as nothing is being written."""
        return self._commits if self._committer.quiet else None

    def _complete(
        self, found: list[bytes | None], missed: Sequence[Name], bodies: Sequence[bytes | None], began: int | None
    ) -> None:
        """Put what was read in place of what was not found; remember it, if nothing was written since that moment."""
        if began is not None and began == self._moment:
            self._hot.learn(missed, bodies)
        rest = iter(bodies)
        found[:] = [body if body is not None else next(rest) for body in found]

    async def read_note(self, name: str) -> bytes | None:
        """See `Store.read_note`."""
        return await self._read(partial(self._reader.get, note_name(name)))

    async def read_notes(self, prefix: str) -> dict[str, bytes]:
        """See `Store.read_notes`."""
        return await self._read(partial(self._on_scanner, partial(self._notes, prefix)))

    def _notes(self, prefix: str) -> dict[str, bytes]:
        iterator = self._engine.iterator()
        first, behind = notes_range(prefix)
        found: dict[str, bytes] = {}
        try:
            name = iterator.seek(first)
            while name is not None and name < behind:
                found[note_of(name)] = iterator.content()
                name = iterator.next()
        finally:
            iterator.drop()
        return found

    async def snapshot(self) -> RocksSnapshot:
        """See `Store.snapshot`."""
        return RocksSnapshot(await self._read(partial(self._on_scanner, self._engine.iterator)), self._on_scanner)

    async def count(self, arc: Arc) -> int:
        """See `Store.count`."""
        snapshot = await self.snapshot()
        try:
            return await snapshot.count(arc)
        finally:
            await snapshot.close()

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read, waiting out that the database is opened anew. Raises Unavailable."""
        while True:
            self._check_open()
            try:
                return await read()
            except NotOpen:
                await self._opened()
            except EngineError as error:
                raise _unreadable(error) from None

    async def _opened(self) -> None:
        """The committer opens it, with any commit; so an empty one waits for that."""
        try:
            await self._committer.commit(Batch())
        except RingError as error:
            raise Unavailable(f"the store cannot be read now: {error}") from None

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Unavailable("the store is closed")

    async def _on_scanner(self, work: Callable[[], T]) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._scanner, work)

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        """See `Store.commit`."""
        self._commits += 1
        self._hot.forget(batch)
        return self._committer.commit(batch, to_disk=to_disk)

    def undo(self) -> None:
        """Have `close` leave nothing of a store that was made here."""
        self._let_go = self._directory.undo

    async def close(self) -> None:
        """See `Store.close`. Snapshots still open end."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._committer.close()
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._reader.close()
        self._scanner.shutdown()
        self._engine.close()
        self._let_go()


class RocksSnapshot:
    """One open iterator: a consistent view for as long as it lives. All of it is used on the scanning thread."""

    def __init__(self, iterator: Iterator, on_scanner: Callable[[Callable[[], T]], Awaitable[T]]) -> None:
        self._iterator = iterator
        self._on_scanner = on_scanner

    async def scan(self, arc: Arc, after: Name | None, limit: int) -> tuple[list[Record], Name | None]:
        """See `Snapshot.scan`. Raises Unavailable if the disk fails or the store was opened anew: begin again."""
        return await self._work(lambda: self._scanned(arc, after, limit))

    async def count(self, arc: Arc) -> int:
        """How many records the arc holds. Raises as `scan` does."""
        counted = 0
        for start, end in ranges_of(arc):
            at: bytes | None = start
            while at is not None:
                more, at = await self._work(partial(self._counted, at, end))
                counted += more
        return counted

    async def close(self) -> None:
        """See `Snapshot.close`."""
        self._iterator.drop()

    async def _work(self, work: Callable[[], T]) -> T:
        try:
            return await self._on_scanner(work)  # type: ignore[arg-type, return-value]
        except EngineError as error:
            raise _unreadable(error) from None

    def _scanned(self, arc: Arc, after: Name | None, limit: int) -> tuple[list[Record], Name | None]:
        records: list[Record] = []
        size = 0
        for start, end in ranges_of(arc, after):
            name = self._iterator.seek(start)
            while name is not None and name < end:
                if records and size >= limit:
                    return records, records[-1].name
                record = record_of(name, self._iterator.content())
                records.append(record)
                size += len(name) + len(record.body)
                name = self._iterator.next()
        return records, None

    def _counted(self, start: bytes, end: bytes) -> tuple[int, bytes | None]:
        """How many names there are up to `end`, and where to go on if that was enough for once."""
        counted = 0
        name = self._iterator.seek(start)
        while name is not None and name < end:
            if counted == COUNT_CHUNK:
                return counted, name
            counted += 1
            name = self._iterator.next()
        return counted, None


def _missed(names: Sequence[Name], found: list[bytes | None]) -> list[Name]:
    """Those of which nothing was found."""
    return [name for name, body in zip(names, found, strict=True) if body is None] if None in found else []


def _unreadable(error: EngineError) -> Unavailable:
    return Unavailable(f"the store cannot be read: {error}")
