"""The ring map as one node knows it: never newer than what is committed, sometimes older."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from node.chain.messages import News
from node.chain.ring_map import RingMap
from node.codec import pack, unpack

log = logging.getLogger(__name__)


class Reading(Protocol):
    """What a register held: the map, packed, after `revision` changes."""

    @property
    def revision(self) -> int: ...

    @property
    def value(self) -> bytes: ...


class Register(Protocol):
    """Where the map is. Both are linearizable; both raise NoQuorum, OutcomeUnknown."""

    async def read(self) -> Reading:
        """What it holds now."""
        ...

    async def compare_and_set(self, revision: int, value: bytes, drops: tuple[bytes, ...] = ()) -> Reading:
        """Change it, if it is still at `revision`, and no lease of the nodes in `drops` runs any more.

        Raises Conflict if it is not at that revision any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chart:
    """A committed map and its revision."""

    revision: int
    ring: RingMap

    @property
    def news(self) -> News:
        """As it is told to others."""
        return News(self.revision, pack(self.ring))


class Cartography:
    """The latest map known here. `adopt` is awaited with every newer one, before it counts as known."""

    def __init__(self, register: Register, adopt: Callable[[RingMap], Awaitable[None]]) -> None:
        self._register = register
        self._adopt = adopt
        self._one = asyncio.Lock()
        self.chart: Chart | None = None

    @property
    def ring(self) -> RingMap | None:
        """The map as far as it is known here; None before anything is."""
        return self.chart.ring if self.chart is not None else None

    @property
    def revision(self) -> int:
        """Of that map; 0 before anything is known."""
        return self.chart.revision if self.chart is not None else 0

    async def learn(self, news: News) -> None:
        """Take a committed map, if it is newer."""
        async with self._one:
            if news.revision <= self.revision:
                return
            chart = Chart(news.revision, unpack(RingMap, news.map))
            await self._adopt(chart.ring)
            self.chart = chart

    async def current(self) -> Chart:
        """The map as it is now. Raises NoQuorum, OutcomeUnknown."""
        return await self._learned(await self._register.read())

    async def replace(self, chart: Chart, by: RingMap, drops: tuple[bytes, ...] = ()) -> Chart:
        """Change the map, if it still is as in the chart. Raises Conflict, NoQuorum, OutcomeUnknown."""
        return await self._learned(await self._register.compare_and_set(chart.revision, pack(by), drops))

    async def _learned(self, reading: Reading) -> Chart:
        await self.learn(News(reading.revision, reading.value))
        assert self.chart is not None
        return self.chart
