"""What time it is, by our own clock and those of the nodes we talk to. The wall clocks may jump and drift.

While our clock is near the middle of all of them it is believed; otherwise the middle is (of two the lower), so that a
clock that is years ahead neither stamps writes nor ages tombstones, as long as its node hears others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median_low

from node.codec import Address

MICROS = 1_000_000

FRESH = 60.0
"""Seconds that a look at another clock counts."""


class AgreedTime:
    """The time of one node, in microseconds since 1970."""

    def __init__(self, clock: Callable[[], float], tolerance: float) -> None:
        """`tolerance`: seconds our own clock may be away from the middle and still be believed."""
        self._clock = clock
        self._tolerance = int(tolerance * MICROS)
        self._offsets: dict[Address, tuple[float, int]] = {}

    def sampled(self, node: Address, theirs: int, asked: float) -> None:
        """That node's clock showed `theirs`, between the loop time `asked` and now."""
        now = asyncio.get_running_loop().time()
        self._offsets[node] = (now, theirs - int((asked + now) / 2 * MICROS))

    def micros(self) -> int:
        """The time."""
        now = asyncio.get_running_loop().time()
        own = int(self._clock() * MICROS)
        fresh = [offset + int(now * MICROS) for at, offset in self._offsets.values() if now - at < FRESH]
        if not fresh:
            return own
        middle = median_low([own, *fresh])
        return own if abs(own - middle) <= self._tolerance else middle

    def own(self) -> int:
        """Our own clock, as it is: what others are told, so that one wrong clock counts once."""
        return int(self._clock() * MICROS)
