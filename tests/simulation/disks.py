"""Disks as bad as they get."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from random import Random

from node.identifiers import Name
from node.store.interface import Batch
from node.store.memory import MemoryDisk, MemoryStore


class SlowStore(MemoryStore):
    """A disk that takes a moment to read too, and sometimes, where told so, very long. What it finds is what was there
    at the beginning of that moment or at its end. A commit is answered a moment after it may be found."""

    stalls = 0.0
    """Share of reads that take up to eight seconds."""

    def __init__(self, disk: MemoryDisk, random: Random) -> None:
        super().__init__(disk, random)
        self._told = 0.0

    def peek_many(self, names: Sequence[Name]) -> None:
        return None

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        stalls = self._random.random() < self.stalls
        early = await super().get_many(names)
        await asyncio.sleep(self._random.uniform(0, 8) if stalls else self._random.expovariate(1 / 0.0005))
        return early if self._random.random() < 0.5 else await super().get_many(names)

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        return asyncio.ensure_future(self._answered(super().commit(batch, to_disk=to_disk)))

    async def _answered(self, committed: Awaitable[None]) -> None:
        await committed
        now = asyncio.get_running_loop().time()
        self._told = max(self._told, now + self._random.expovariate(1 / 0.0005))  # in the order of commits
        await asyncio.sleep(self._told - now)
