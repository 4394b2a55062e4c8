"""The clock of one simulated host: it runs a little fast or slow, and somebody may set it."""

from __future__ import annotations

from node.simulation.loop import VirtualLoop

EPOCH = 1_700_000_000.0
"""What a clock without error shows when a simulation starts."""


class Clock:
    """Call it for the time in seconds. It goes on while the process is paused or dead, as the host does."""

    __slots__ = ("_loop", "_set_at", "_set_to", "drift")

    def __init__(self, loop: VirtualLoop, *, drift: float = 0.0, offset: float = 0.0) -> None:
        self._loop = loop
        self.drift = drift
        self._set_at = loop.time()
        self._set_to = EPOCH + self._set_at + offset

    def __call__(self) -> float:
        return self._set_to + (self._loop.time() - self._set_at) * (1.0 + self.drift)

    def jump(self, by: float) -> None:
        """Set the clock forward, or back if `by` is negative."""
        self._restart(self() + by)

    def run_at(self, drift: float) -> None:
        """Gain (or lose, if negative) `drift` seconds per second from now on."""
        self._restart(self())
        self.drift = drift

    def _restart(self, at: float) -> None:
        self._set_at, self._set_to = self._loop.time(), at
