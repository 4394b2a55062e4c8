"""Group commit: a thread that writes all that has queued up as one, makes it durable, then answers every commit in it.

No timer: a commit waits for the group before it and for nothing else. A commit that cannot be encoded, or whose caller
went away, changes nothing for the others of its group. What is small, need not reach the disk and finds no other before
it is done without the thread: the interpreter's lock would be held for it all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from node.errors import RingError, StoreFull, Unavailable
from node.events import Event
from node.settings import KIB, MIB
from node.store.interface import Batch
from node.store.names import Step, steps_of

log = logging.getLogger(__name__)

GROUP_BYTES = 8 * MIB
GROUP_STEPS = 8_000
"""Where a group ends at the latest: writing one holds the interpreter's lock, about a microsecond for a step."""

SMALL, SMALL_BYTES = 512, 256 * KIB
"""Changes, and bytes of them, up to which a commit is done without the thread."""

Answer = tuple["asyncio.Future[None]", Exception | None]


@dataclass(slots=True)
class Group:
    """What is written at once, and whom to answer: with an error of their own, if they have one."""

    steps: list[Step] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    to_disk: bool = False


class Stalled(Exception):
    """A write would have to wait for earlier ones to be merged."""


class Disk(Protocol):
    """What the committer needs of the engine."""

    def write(self, steps: list[Step]) -> None:
        """All or nothing. Raises RingError."""
        ...

    def write_at_once(self, steps: list[Step]) -> None:
        """As `write`. Raises Stalled where that would have to wait: then nothing was written."""
        ...

    def sync(self, to_disk: bool) -> None:
        """Make it durable. Raises OutcomeUnknown."""
        ...

    def reopen(self) -> None:
        """Start anew after a failure. Raises RingError if that is not possible yet."""
        ...


class Committer:
    """The thread. It belongs to one event loop, from which all methods are called."""

    def __init__(self, disk: Disk, loop: asyncio.AbstractEventLoop) -> None:
        self._disk = disk
        self._loop = loop
        self.to_disk = True
        """Done means on disk, not in the page cache."""
        self._failed = False
        self._closed = False
        self._queued = 0
        """Commits that the thread has not answered yet."""
        self._queue: queue.SimpleQueue[tuple[Batch, bool | None, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        """See `Store.commit`."""
        done: asyncio.Future[None] = self._loop.create_future()
        if self._closed:
            done.set_exception(Unavailable("the store is closed"))
        elif to_disk or (to_disk is None and self.to_disk) or not self._committed_at_once(batch, done):
            self._queued += 1
            self._queue.put((Batch(batch.changes.copy()), to_disk, done))
        return done

    def _committed_at_once(self, batch: Batch, done: asyncio.Future[None]) -> bool:
        """Commit to the page cache without the thread, if it has nothing else to do and nothing has to wait."""
        if self._queued or self._failed or len(batch.changes) > SMALL:
            return False
        try:
            steps = steps_of(batch)
            if _size(steps) > SMALL_BYTES:
                return False
            error = self._stored(Group(steps), self._disk.write_at_once)
        except (Stalled, TypeError):  # what cannot be encoded is told by the thread
            return False
        _resolve([(done, error)])
        return True

    @property
    def quiet(self) -> bool:
        """Whether nothing is being written, and the last thing that was is where it should be."""
        return not self._queued and not self._failed

    async def close(self) -> None:
        """Take in nothing more, and wait until all that was taken in is answered."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- on the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        going_on = True
        while going_on:
            group, going_on = self._next_group()
            error = self._stored(group, self._disk.write)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                answers = [(done, refused or error) for done, refused in group.answers]
                self._loop.call_soon_threadsafe(self._answer, answers)

    def _answer(self, answers: list[Answer]) -> None:
        self._queued -= len(answers)
        _resolve(answers)

    def _next_group(self) -> tuple[Group, bool]:
        """What to write, and whether more may come."""
        group = Group()
        size = 0
        while True:
            item = self._queue.get()
            if item is None:
                return group, False
            batch, to_disk, done = item
            try:
                added = steps_of(batch)
                group.steps += added
                group.to_disk |= self.to_disk if to_disk is None else to_disk
                size += _size(added)
                group.answers.append((done, None))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it is the business of who made it
                group.answers.append((done, error))
            if size >= GROUP_BYTES or len(group.steps) >= GROUP_STEPS or self._queue.empty():
                return group, True

    def _stored(self, group: Group, write: Callable[[list[Step]], None]) -> Exception | None:
        """Write a group durably; the error if it could not be."""
        try:
            if self._failed:
                self._disk.reopen()
            if group.steps:
                write(group.steps)
                self._disk.sync(group.to_disk)
        except Stalled:
            raise
        except RingError as error:
            if not self._failed:
                event = Event.DISK_FULL if isinstance(error, StoreFull) else Event.DISK_FAILED
                event.tell(log, "reads go on, writes are refused: %s", error)
            self._failed = True
            return error
        except Exception as error:  # the thread must live, and nobody may take this for a success
            log.exception("a commit failed")
            self._failed = True
            return Unavailable(f"the store failed ({type(error).__name__}): the log of the node has the details")
        if self._failed:
            self._failed = False
            Event.DISK_WORKS.tell(log, "writes are taken again")
        return None


def _size(steps: list[Step]) -> int:
    return sum([len(step[1]) + len(step[-1]) for step in steps])


def _resolve(answers: list[Answer]) -> None:
    for done, error in answers:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
