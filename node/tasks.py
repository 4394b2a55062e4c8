"""Background work of a node: rounds that run until they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Coroutines that never return. One that ends by itself is a bug, and `failed` carries what it raised."""

    def __init__(self, among: Tasks | None = None) -> None:
        """`among`: others, that these fail together with, and end before."""
        self.failed: asyncio.Future[None] = among.failed if among else asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start one."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The node cannot go on."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def stop(self) -> None:
        """End them all."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
