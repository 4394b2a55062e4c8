"""The store on RocksDB: a committer thread that groups commits, point reads on the loop, scans on another thread.

A commit is handed to the committer in call order; it writes all that has queued up as one batch, makes it durable, and
then resolves every commit in it. Why RocksDB and what it costs: docs/decisions/0002-storage-engine.md.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from node.errors import DirectoryDamaged, StoreFull, Unavailable
from node.identifiers import BYTES, Arc, Identifier
from node.settings import MIB
from node.store.directory import Directory
from node.store.interface import Batch, Cursor, Record

log = logging.getLogger(__name__)
T = TypeVar("T")

RECORD, RECORDS_END, NOTE = b"r", b"s", b"n"
CACHE = 32 * MIB
WRITE_BUFFER = 16 * MIB
GROUP = 8 * MIB
"""Bytes of commits written as one group at most."""
COUNT_CHUNK = 100_000
ROOM = 1 * MIB
"""What must fit on the disk before a database that failed to write is opened anew."""
REOPEN = 10.0
"""Seconds a read waits for that."""

Commit = tuple[Batch, "asyncio.Future[None]"]


async def open_store(directory: Path, *, durability: Literal["fsync", "os"] = "fsync") -> RocksStore:
    """Open or make the store in `directory`. Raises DirectoryInUse, DirectoryDamaged, BadUsage.

    `durability`: a commit is done when it is on disk ("fsync") or in the page cache ("os", survives kill -9 but not a
    power cut).
    """
    return await asyncio.to_thread(RocksStore, directory, durability, asyncio.get_running_loop())


class RocksStore:
    """`Store` on RocksDB."""

    def __init__(self, directory: Path, durability: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sync = durability == "fsync"
        self._directory = Directory(directory)
        self._path = str(directory / "db")
        try:
            self._db = self._opened()
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
            self._directory.close()
            raise DirectoryDamaged(f"the store in {directory} cannot be opened: {error}") from None
        self._commits: queue.SimpleQueue[Commit | None] = queue.SimpleQueue()
        self._committer = threading.Thread(target=self._commit_all, name="committer", daemon=True)
        self._committer.start()
        self._scans = ThreadPoolExecutor(1, "scan")
        self._failed = False
        self._open = threading.Event()
        self._open.set()

    def _opened(self) -> Any:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER)
        options.set_max_write_buffer_number(3)
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 * MIB)
        options.set_max_open_files(256)
        options.set_max_total_wal_size(64 * MIB)
        options.set_compression_type(DBCompressionType.lz4())
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(CACHE))
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        return Rdict(self._path, options)

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, position: Identifier, key: bytes) -> bytes | None:
        """See `Store.get`."""
        body: bytes | None = await self._read(_record(position, key))
        return body

    async def get_many(self, wanted: list[tuple[Identifier, bytes]]) -> list[bytes | None]:
        """See `Store.get_many`."""
        if not wanted:
            return []
        bodies: list[bytes | None] = await self._read([_record(position, key) for position, key in wanted])
        return bodies

    async def read_note(self, name: str) -> bytes | None:
        """See `Store.read_note`."""
        content: bytes | None = await self._read(NOTE + name.encode())
        return content

    async def _read(self, names: bytes | list[bytes]) -> Any:
        """From memory and page cache mostly: a few microseconds on the loop, where a thread would cost fifty."""
        while True:
            try:
                return self._db.get(names)
            except DbClosedError:
                if not await self._on_thread(partial(self._open.wait, REOPEN)):
                    raise Unavailable(f"the store in {self._directory.path} could not be opened again") from None

    async def snapshot(self) -> RocksSnapshot:
        """See `Store.snapshot`."""
        return RocksSnapshot(await self._on_thread(lambda: self._db.iter(ReadOptions())), self._on_thread)

    async def count(self, arc: Arc) -> int:
        """See `Store.count`."""
        snapshot = await self.snapshot()
        try:
            return await snapshot.count(arc)
        finally:
            await snapshot.close()

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._scans, work)

    # -- writing -------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Awaitable[None]:
        """See `Store.commit`."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._commits.put((batch, future))
        return future

    def _commit_all(self) -> None:
        """The committer thread: groups of what has queued up, until None comes."""
        going_on = True
        while going_on:
            group: list[Commit] = []
            item = self._commits.get()
            size = 0
            while item is not None:
                group.append(item)
                size += sum(len(change[-1]) for change in item[0].changes if isinstance(change[-1], bytes))
                if size >= GROUP or self._commits.empty():
                    break
                item = self._commits.get()
            going_on = item is not None
            if group:
                error = self._write([batch for batch, _ in group])
                self._loop.call_soon_threadsafe(_resolve, [future for _, future in group], error)

    def _write(self, batches: list[Batch]) -> Exception | None:
        """Write a group durably; the error if it could not be, and then nothing of it counts."""
        together = WriteBatch(raw_mode=True)
        for batch in batches:
            for change in batch.changes:
                _apply(together, change)
        try:
            if self._failed:
                self._recover()
            self._db.write(together)
            self._db.flush_wal(self._sync)
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
            self._failed = True
            log.error("a commit failed: %s", error)
            return StoreFull(f"the write could not be stored in {self._directory.path}: {error}; free space, try again")
        return None

    def _recover(self) -> None:
        """After a failed write RocksDB refuses all others until it is opened anew; its log has what was acknowledged.

        Only once there is room: until then the open database goes on serving reads.
        """
        self._directory.probe(ROOM)
        self._open.clear()
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001 - it tells once more what it could not write
            log.info("closing after a failed write: %s", error)
        try:
            self._db = self._opened()
        finally:
            self._open.set()
        self._failed = False

    async def close(self) -> None:
        """See `Store.close`."""
        self._commits.put(None)
        await asyncio.to_thread(self._committer.join)
        await self._on_thread(self._db.close)
        self._scans.shutdown(wait=False)
        self._directory.close()


class RocksSnapshot:
    """One open iterator: a consistent view for as long as it lives."""

    def __init__(self, iterator: Any, on_thread: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._iterator = iterator
        self._on_thread = on_thread

    async def scan(self, arc: Arc, after: Cursor | None, limit: int) -> tuple[list[Record], Cursor | None]:
        """See `Snapshot.scan`."""
        result: tuple[list[Record], Cursor | None] = await self._on_thread(lambda: self._scanned(arc, after, limit))
        return result

    def _scanned(self, arc: Arc, after: Cursor | None, limit: int) -> tuple[list[Record], Cursor | None]:
        iterator = self._iterator
        records: list[Record] = []
        size = 0
        for start, end in _ranges(arc, after):
            iterator.seek(start)
            while iterator.valid() and (name := iterator.key()) < end:
                if size >= limit:
                    last = records[-1]
                    return records, Cursor(last.position, last.key)
                body = iterator.value()
                position = Identifier.from_bytes(name[1 : 1 + BYTES], "big")
                records.append(Record(position, name[1 + BYTES :], body))
                size += len(name) + len(body)
                iterator.next()
        return records, None

    async def count(self, arc: Arc) -> int:
        """How many records the arc holds, a chunk at a time so that others get the thread."""
        counted = 0
        for start, end in _ranges(arc, None):
            at: bytes | None = start
            while at is not None:
                more, at = await self._on_thread(lambda at=at, end=end: self._counted(at, end))  # type: ignore[misc]
                counted += more
        return counted

    def _counted(self, start: bytes, end: bytes) -> tuple[int, bytes | None]:
        iterator, counted = self._iterator, 0
        iterator.seek(start)
        while iterator.valid() and (name := iterator.key()) < end:
            if counted == COUNT_CHUNK:
                return counted, name
            counted += 1
            iterator.next()
        return counted, None

    async def close(self) -> None:
        """See `Snapshot.close`."""
        self._iterator = None


def _record(position: Identifier, key: bytes) -> bytes:
    return RECORD + position.packed + key


def _ranges(arc: Arc, after: Cursor | None) -> list[tuple[bytes, bytes]]:
    """The arc as half-open ranges of stored names, clockwise from its start, from behind the cursor on."""
    ordered = sorted(arc.ranges(), key=lambda each: arc.start.distance_to(Identifier(each[0])) or 1 << 160)
    ranges = [(RECORD + Identifier(low).packed, _behind(high)) for low, high in ordered]
    if after is None:
        return ranges
    behind = _record(after.position, after.key) + b"\x00"
    while ranges and not ranges[0][0] <= behind < ranges[0][1]:
        ranges.pop(0)
    return [(behind, ranges[0][1]), *ranges[1:]] if ranges else []


def _behind(high: int) -> bytes:
    """The first name behind all records at positions up to `high`."""
    following = int(Identifier(high).plus(1))
    return RECORD + Identifier(following).packed if following else RECORDS_END


def _apply(together: Any, change: tuple[Any, ...]) -> None:
    match change:
        case ("put", position, key, body):
            together.put(_record(position, key), body)
        case ("delete", position, key):
            together.delete(_record(position, key))
        case ("delete_arc", arc):
            for start, end in _ranges(arc, None):
                together.delete_range(start, end)
        case ("note", name, content):
            together.put(NOTE + name.encode(), content)


def _resolve(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
