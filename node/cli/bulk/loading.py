"""Batches into a ring: several at a time, entered in the ledger in their order.

Two batches with a key in common are never under way together, so the later row wins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from node.cli.bulk.batches import Batch
from node.cli.bulk.ledger import Ledger
from node.cli.bulk.rows import Place

IN_FLIGHT = 4
"""Batches at a time."""

PutMany = Callable[[Mapping[bytes, Any]], Awaitable[None]]


class Loading:
    """One load; `moved` is told where each batch ends."""

    def __init__(self, put_many: PutMany, ledger: Ledger, moved: Callable[[Place], None]) -> None:
        self._put_many = put_many
        self._ledger = ledger
        self._moved = moved
        self._flying: deque[tuple[Batch, asyncio.Task[None]]] = deque()

    async def run(self, batches: AsyncIterator[Batch]) -> None:
        """All of them. Whatever ends it, the ledger is true. Raises what the batches or the ring raise."""
        try:
            async for batch in batches:
                while len(self._flying) >= IN_FLIGHT or self._clashes(batch):
                    await self._land()
                self._flying.append((batch, asyncio.ensure_future(self._put(batch))))
            while self._flying:
                await self._land()
        finally:
            await self._abandon()

    async def _put(self, batch: Batch) -> None:
        if batch.pairs:
            await self._put_many(batch.pairs)

    def _clashes(self, batch: Batch) -> bool:
        return any(not batch.pairs.keys().isdisjoint(other.pairs) for other, _ in self._flying)

    async def _land(self) -> None:
        """Wait for the first one. Raises what it raised."""
        batch, task = self._flying[0]
        await asyncio.wait({task})
        task.result()
        self._flying.popleft()
        self._ledger.enter(batch)
        self._moved(batch.after)

    async def _abandon(self) -> None:
        """Let go of those under way, after entering those that are done."""
        while self._flying and self._flying[0][1].done() and not self._failed(self._flying[0][1]):
            self._ledger.enter(self._flying.popleft()[0])
        tasks = [task for _, task in self._flying]
        self._flying.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _failed(task: asyncio.Task[None]) -> bool:
        return task.cancelled() or task.exception() is not None
