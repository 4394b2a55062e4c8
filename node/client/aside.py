"""Blocking reads and writes of files and pipes, on a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """One thread that does what it is given, one after the other. Work that blocks for ever, such as reading a pipe
    that nobody writes to, does not keep the process from ending."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="aside", daemon=True).start()

    async def do(self, work: Callable[[], T]) -> T:
        """What the work comes to, or raises."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((work, done))
        return await done

    def end(self) -> None:
        """Let the thread end behind what it was given."""
        self._queue.put(None)

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            work, done = given
            result, error = None, None
            try:
                result = work()
            except Exception as raised:  # noqa: BLE001 - whatever it is, it is for whoever waits for the work
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, done, result, error)


def _resolve(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
