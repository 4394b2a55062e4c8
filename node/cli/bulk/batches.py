"""Rows in batches that go to the ring as one, made on a thread of their own while the ring works on those before."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from node.cli.bulk.rows import Place, Reject, Row
from node.settings import MIB

T = TypeVar("T")

MOST = 1_000
VOLUME = 1 * MIB
"""Rows and bytes of a batch."""
AHEAD = 2
"""Batches that are made and not asked for yet."""


@dataclass(slots=True)
class Batch:
    """Rows that follow each other. Of those with the same key only the last one is in `pairs`."""

    after: Place
    pairs: dict[bytes, Any] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    rows: int = 0
    repeated: int = 0
    """Rows whose key an earlier row had."""
    size: int = 0

    def add(self, row: Row | Reject) -> None:
        """One more row."""
        self.after = row.after
        self.size += row.size
        if isinstance(row, Row):
            self.rows += 1
            self.pairs[row.key] = row.value
        else:
            self.rejects.append(row)

    @property
    def full(self) -> bool:
        """Whether it is to be sent."""
        return self.size >= VOLUME or self.rows + len(self.rejects) >= MOST


def batches(rows: Iterable[Row | Reject]) -> Generator[Batch, None, None]:
    """All rows, in batches in their order."""
    with closing(_Seen()) as seen:
        batch: Batch | None = None
        for row in rows:
            batch = batch or Batch(row.after)
            batch.add(row)
            if batch.full:
                batch.repeated = batch.rows - seen.new(batch.pairs)
                yield batch
                batch = None
        if batch is not None:
            batch.repeated = batch.rows - seen.new(batch.pairs)
            yield batch


class _Seen:
    """Keys there have been, in a temporary file, as 8 bytes of their hashes: of ten million keys two are taken for one
    in three files of a million."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a temporary file of sqlite's own, gone when closed
        for line in ("cache_size = -16384", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {line}")
        self._database.execute("CREATE TABLE seen (hash INTEGER PRIMARY KEY)")

    def new(self, keys: Iterable[bytes]) -> int:
        """How many of them there have not been before."""
        hashes = [(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big", signed=True),) for key in keys]
        self._database.execute("BEGIN")
        before = self._database.total_changes
        self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?)", hashes)
        self._database.execute("COMMIT")
        return self._database.total_changes - before

    def close(self) -> None:
        self._database.close()


async def ahead(things: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """The same things, made on a thread so that the loop does not wait for them.

    Who stops early does not wait for the thread either: it may be reading from somebody who never says anything more.
    """
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)
    stopped = threading.Event()

    def hand_over(thing: tuple[T] | BaseException | None) -> None:
        if not stopped.is_set():
            loop.call_soon_threadsafe(made.put_nowait, thing)

    def make() -> None:
        try:
            with closing(things):  # here, where what they are made with was opened
                for thing in things:
                    room.acquire()
                    if stopped.is_set():
                        return
                    hand_over((thing,))
        except BaseException as error:  # noqa: BLE001 - raised again where the things are awaited
            hand_over(error)
        else:
            hand_over(None)

    threading.Thread(target=make, name="reading", daemon=True).start()
    try:
        while (thing := await made.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            room.release()
            yield thing[0]
    finally:
        stopped.set()
        room.release()
