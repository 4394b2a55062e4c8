"""Stamps that order writes: hybrid logical clocks (Kulkarni et al., "Logical Physical Clocks", 2014).

A stamp is at least as high as the time it was given at and higher than everything its giver had seen; the logical part
is the last microseconds. One too far in the future is refused, so what is seen never drags a clock further than that.
"""

from __future__ import annotations

from random import Random

from node.codec import Message
from node.errors import BadValue
from node.eventual.agreed_time import MICROS, AgreedTime


class Stamp(Message, frozen=True, order=True):
    """When something was written (microseconds since 1970), and by which replica; no two writes of a key have the
    same."""

    time: int
    writer: int


def new_writer(random: Random) -> int:
    """A node as it signs stamps, for as long as it holds all that it signs so."""
    return random.getrandbits(63)


class HybridClock:
    """The clock of one node."""

    def __init__(self, time: AgreedTime, max_future: float) -> None:
        """`max_future`: seconds a stamp may be ahead of our time."""
        self._time = time
        self._max_future = max_future
        self._last = 0

    def next(self, after: int = 0) -> int:
        """A new time, higher than all before and than `after`."""
        now = self._time.micros()
        if self._last > now + self._max_future * MICROS:
            self._last = 0  # we had been far ahead ourselves
        self._last = max(now, self._last + 1, after + 1)
        return self._last

    def observe(self, time: int) -> None:
        """This was seen: times given from now on are higher. Raises BadValue for one too far in the future."""
        ahead = (time - self._time.micros()) / MICROS
        if ahead > self._max_future:
            raise BadValue(
                f"a write is stamped {ahead:.1f} s in the future (at most {self._max_future:g} s is taken): "
                "set the clock of the node that it came through"
            )
        self._last = max(self._last, time)
