"""Many operations in flight, those on one key one after the other: what a file says is done in the order of the file.

Knows nothing of rings: it is given coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Window:
    """At most `most` operations of together about `volume` bytes at a time."""

    def __init__(self, most: int, volume: int) -> None:
        self._most = most
        self._volume = volume
        self._running: dict[asyncio.Task[None], int] = {}
        self._size = 0
        self._last: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None

    async def admit(self, key: str, size: int, work: Coroutine[Any, Any, None]) -> None:
        """Start an operation behind the last one on its key, once there is room. Raises what an earlier one raised."""
        try:
            while self._running and (len(self._running) >= self._most or self._size + size > self._volume):
                await self._change()
            self._check()
        except BaseException:
            work.close()
            raise
        before = self._last.get(key)
        task = asyncio.get_running_loop().create_task(work if before is None else self._after(before, work))
        self._last[key] = task
        self._running[task] = size
        self._size += size
        task.add_done_callback(lambda done: self._finished(key, done))

    async def drain(self) -> None:
        """Wait for all that was admitted. Raises what one of them raised."""
        while self._running:
            await self._change()
        self._check()

    async def close(self) -> None:
        """End what is still under way."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    @staticmethod
    async def _after(before: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait({before})
        except BaseException:
            work.close()
            raise
        await work

    async def _change(self) -> None:
        self._check()
        self._changed.clear()
        await self._changed.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _finished(self, key: str, task: asyncio.Task[None]) -> None:
        self._size -= self._running.pop(task)
        if self._last.get(key) is task:
            del self._last[key]
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = self._failure or failure
        self._changed.set()
