"""The ring map as one node knows it: never newer than what is committed, sometimes older."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from node.chain.ring_map import RingMap
from node.codec import pack, unpack
from node.errors import WrongRing
from node.register.messages import Keeper, Record


class Register(Protocol):
    """Where the map is. Everything but `learn` raises NoQuorum; what changes it raises OutcomeUnknown too."""

    async def read(self) -> Record:
        """What it holds now, linearizably."""
        ...

    async def compare_and_set(self, revision: int, value: bytes, drops: tuple[bytes, ...] = ()) -> Record:
        """Change it, if it is still at `revision`, and no lease of the nodes in `drops` runs any more.

        Raises Conflict if it is not at that revision any more.
        """
        ...

    async def lease(self, life: bytes, revision: int) -> float | None:
        """Until when, by the clock of this node, it may answer as the map of this revision says; None if there is a
        newer one."""
        ...

    async def replace(self, revision: int, wanted: tuple[Keeper, ...]) -> Record:
        """Have other nodes keep it, if it is still at `revision`. Raises Conflict if it is not."""
        ...

    def learn(self, record: Record) -> None:
        """Something committed that came from elsewhere."""
        ...


@dataclass(frozen=True, slots=True)
class Chart:
    """A committed map, and the record it came in."""

    record: Record
    ring: RingMap


class Cartography:
    """The latest map known here. `adopt` is awaited with every newer one, before it counts as known."""

    def __init__(self, register: Register, adopt: Callable[[Chart], Awaitable[None]]) -> None:
        self._register = register
        self._adopt = adopt
        self._one = asyncio.Lock()
        self.chart: Chart | None = None
        self.generation = 0
        """The latest that this node is part of: a map of a later one was made without it."""

    @property
    def ring(self) -> RingMap | None:
        """The map as far as it is known here; None before anything is."""
        return self.chart.ring if self.chart is not None else None

    @property
    def revision(self) -> int:
        """Of that map; 0 before anything is known."""
        return self.chart.record.revision if self.chart is not None else 0

    async def learn(self, record: Record) -> None:
        """Take a committed map, if it is newer. Raises WrongRing if this node was given up before it was made."""
        if record.generation > self.generation:
            raise WrongRing(
                "this node was given up when its ring was repaired by force: start it with an empty data directory, "
                "and it joins anew; keep this one as long as it may hold what the ring lost"
            )
        async with self._one:
            if record.revision > self.revision:
                chart = Chart(record, unpack(RingMap, record.value))
                await self._adopt(chart)
                self.chart = chart
                self._register.learn(record)

    async def current(self) -> Chart:
        """The map as it is now. Raises NoQuorum, OutcomeUnknown."""
        return await self._learned(await self._register.read())

    async def replace(self, chart: Chart, by: RingMap, drops: tuple[bytes, ...] = ()) -> Chart:
        """Change the map, if it still is as in the chart. Raises Conflict, NoQuorum, OutcomeUnknown."""
        return await self._learned(await self._register.compare_and_set(chart.record.revision, pack(by), drops))

    async def replace_keepers(self, chart: Chart, wanted: tuple[Keeper, ...]) -> None:
        """Have other nodes keep the map, if it still is as in the chart. Raises Conflict, NoQuorum, OutcomeUnknown."""
        await self._learned(await self._register.replace(chart.record.revision, wanted))

    async def _learned(self, record: Record) -> Chart:
        await self.learn(record)
        assert self.chart is not None
        return self.chart
