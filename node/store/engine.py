"""RocksDB as we use it: the only module that talks to rocksdict, which has no types and raises bare Exceptions.

What is relied on, measured with rocksdict 0.3.29: `write` and everything it waits for holds the interpreter's lock, so
it is asked to fail instead of waiting; `flush_wal` and `get` let go of it; `key_may_exist` reads memory only; an
iterator that meets a damaged block just ends, its status tells; `close` neither waits for iterators nor works while
another thread reads; a database lives until its last iterator and its last caller are gone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from node.errors import OutcomeUnknown, RingError, StoreFull, Unavailable
from node.settings import KIB, MIB
from node.store.committer import Stalled
from node.store.names import Step

log = logging.getLogger(__name__)

CACHE = 32 * MIB
WRITE_BUFFER, MERGED = 4 * MIB, 4
"""Where writes are gathered in memory, and how many of these go to the disk as one table. Going into a small one costs
half as much as into one of their size together, most of which no cache of the processor holds."""
WRITE_BUFFERS = 3 * MERGED
"""What is in memory at most; beyond it writes wait for the disk."""
BLOOM = 0.05
"""Of a buffer, for telling quickly which names are not in it."""
LARGE = 64 * KIB
"""Values from this size on stand in files of their own, which are not written anew whenever tables are merged."""
ROOM = 1 * MIB
"""What must fit on the disk, beside what its logs hold, before a database that failed to write is opened anew."""
PATIENCE = 10.0
"""Seconds that reads under way may take before opening anew is given up for this time."""
PAUSE = 0.005
"""Seconds between two looks at something that will pass soon."""
FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT))


class EngineError(Exception):
    """What RocksDB said."""


class NotOpen(EngineError):
    """The database is closed, for good or while it is being opened anew."""


class _Closed:
    """Stands where a database is not."""

    def __getattr__(self, name: str) -> Any:
        raise NotOpen("the store was closed or opened anew meanwhile")

    def close(self) -> None:
        """Nothing to do."""


_CLOSED = _Closed()


class Iterator:
    """A view of one moment. Used by one thread at a time."""

    def __init__(self, of: Any) -> None:
        self._of: Any = of

    def seek(self, first: bytes) -> bytes | None:
        """Go to the first name at or behind `first`; that name, None at the end. Raises EngineError."""
        self._still().seek(first)
        return self._here()

    def next(self) -> bytes | None:
        """Go one further; the name there, None at the end. Raises EngineError."""
        self._still().next()
        return self._here()

    def content(self) -> bytes:
        """What stands under the name it is at. Raises EngineError."""
        return bytes(self._still().value())

    def drop(self) -> None:
        """Let go of the moment."""
        self._of = None

    def _here(self) -> bytes | None:
        if self._still().valid():
            name: bytes = self._still().key()
            return name
        with translated():
            self._still().status()
        return None

    def _still(self) -> Any:
        """It, unless another thread dropped it. Not kept in a variable: a traceback would keep the database open."""
        return self._of if self._of is not None else _CLOSED


class Engine:
    """One open database. `look` never waits, nor does a small `write_at_once` with `sync(False)` behind it; all other
    methods belong on threads of their own, never on the loop."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises EngineError."""
        self._path = path
        self._iterators: weakref.WeakSet[Iterator] = weakref.WeakSet()
        self._registering = threading.Lock()
        self._database: Any = _CLOSED
        self._open()

    def _open(self) -> None:
        with translated():
            self._database = Rdict(str(self._path), _options())

    def look(self, names: Iterable[bytes]) -> list[tuple[bool, bytes | None]]:
        """What memory knows of each of these names: (True, content), (False, None), or (True, None) if only the disk
        knows. Never waits. Raises EngineError."""
        try:
            may_exist = self._database.key_may_exist
            return [may_exist(name, fetch=True) for name in names]
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
            raise _meaning(error) from None

    def get(self, names: list[bytes]) -> list[bytes | None]:
        """What stands under these names. Raises EngineError."""
        with translated():
            contents: list[bytes | None] = self._database.get(names)
            return contents

    def iterator(self) -> Iterator:
        """A view of this moment. Raises EngineError."""
        with translated():
            iterator = Iterator(self._database.iter(ReadOptions()))
        with self._registering:
            self._iterators.add(iterator)
        return iterator

    def write(self, steps: list[Step]) -> None:
        """All of it or nothing. Raises StoreFull, Unavailable: then nothing was written."""
        while True:
            try:
                return self.write_at_once(steps)
            except Stalled:
                time.sleep(PAUSE)

    def write_at_once(self, steps: list[Step]) -> None:
        """As `write`; raises Stalled where that would have to wait."""
        together = WriteBatch(raw_mode=True)  # a write uses it up, whether it succeeds or not
        put = together.put
        for step in steps:
            if step[0] == "put":
                put(step[1], step[2])
            else:
                getattr(together, step[0])(*step[1:])
        try:
            self._database.write(together, _unwaiting())
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
            raise Stalled if "Write stall" in str(error) else self._refusal(error) from None

    def sync(self, to_disk: bool) -> None:
        """Everything written so far is in the page cache, or on disk. Raises OutcomeUnknown."""
        try:
            self._database.flush_wal(to_disk)
        except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
            raise OutcomeUnknown(
                f"the disk of {self._path.parent} failed to confirm a write, which may or may not last: {error}"
            ) from None

    def _refusal(self, error: Exception) -> RingError:
        directory = self._path.parent
        if is_full(error):
            return StoreFull(f"the disk of {directory} is full: free space and write again ({error})")
        return Unavailable(f"the store in {directory} cannot write: {error}")

    def reopen(self) -> None:
        """Open it anew: after a failed write RocksDB may refuse all others, and its log has all that was acknowledged.

        Not before there is room for it, until then it goes on serving reads. Raises StoreFull, Unavailable.
        """
        try:
            self._check_room()
        except OSError as error:
            raise self._refusal(error) from None
        self.close()
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._open()
            except EngineError as error:
                if "lock hold by current process" not in str(error) or time.monotonic() > until:
                    raise self._refusal(error) from None
            time.sleep(PAUSE)

    def _check_room(self) -> None:
        logs = sum(each.stat().st_size for each in self._path.glob("*.log"))
        space = os.statvfs(self._path)
        if space.f_bavail * space.f_frsize < logs + 2 * ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        probe = self._path.parent / "probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(ROOM))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it, once reads under way on other threads are done. Iterators end; whoever uses them gets NotOpen."""
        database, self._database = self._database, _CLOSED
        with self._registering:
            for iterator in self._iterators:
                iterator.drop()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                return database.close()  # type: ignore[no-any-return]
            except RuntimeError:  # another thread reads
                time.sleep(PAUSE)
            except Exception as error:  # noqa: BLE001 - it could not write what its log has anyway
                return log.info("closing %s: %s", self._path, error)
        return None


@contextlib.contextmanager
def translated() -> Generator[None, None, None]:
    """What rocksdict raises inside becomes an EngineError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - rocksdict raises bare Exceptions
        raise _meaning(error) from None


def is_full(error: Exception) -> bool:
    """True if what went wrong is that there is no space."""
    return any(reason in str(error) for reason in FULL)


def _meaning(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if type(error).__name__ == "DbClosedError" or "mutably borrowed" in str(error):
        return NotOpen(str(error))
    return EngineError(str(error))


def _unwaiting() -> WriteOptions:
    options = WriteOptions()
    options.no_slowdown = True
    return options


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_min_write_buffer_number_to_merge(MERGED)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_memtable_prefix_bloom_ratio(BLOOM)
    options.set_memtable_whole_key_filtering(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 * MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_max_open_files(256)
    options.set_max_total_wal_size(64 * MIB)
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_enable_blob_files(True)
    options.set_min_blob_size(LARGE)
    options.set_enable_blob_gc(True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(CACHE))
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    return options
