"""Disks as bad as they get."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from node.identifiers import Name
from node.store.memory import MemoryStore


class SlowStore(MemoryStore):
    """A disk that takes a moment to read too, and sometimes, where told so, very long. What it finds is what was there
    at the beginning of that moment or at its end."""

    stalls = 0.0
    """Share of reads that take up to eight seconds."""

    def peek_many(self, names: Sequence[Name]) -> None:
        return None

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        stalls = self._random.random() < self.stalls
        early = await super().get_many(names)
        await asyncio.sleep(self._random.uniform(0, 8) if stalls else self._random.expovariate(1 / 0.0005))
        return early if self._random.random() < 0.5 else await super().get_many(names)
