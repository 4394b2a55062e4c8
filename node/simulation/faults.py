"""What may go wrong on a simulated network, and how often. Rates are shares of messages, 0 to 1; times are seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad the network is. The default loses nothing and is quick."""

    least_delay: float = 0.0001
    """Every message takes at least this long."""
    delay: float = 0.0004
    """Mean of the exponential delay on top; messages overtake each other as it varies."""
    slow: float = 0.0
    """Messages that take longer ..."""
    slow_by: float = 0.0
    """... by up to this much, evenly."""
    refuse: float = 0.0
    """Connections that cannot be made though the other side listens: Unreachable."""
    lose_request: float = 0.0
    """Requests that never arrive."""
    lose_reply: float = 0.0
    """Replies that never arrive, though the request was served."""
    reset: float = 0.5
    """Of the lost messages, those whose caller learns of it soon (a connection reset); the others run into the
    deadline."""
    duplicate: float = 0.0
    """Requests that are served twice; the caller sees the reply that comes first."""
    late: float = 0.5
    """Of the messages caught by a cut, those which arrive when it heals (TCP sends again); the others are lost."""
    user_timeout: float = 4.0
    """A connection that was cut off for so long is given up: calls are Unreachable from then on."""
    drift: float = 0.0
    """Largest drift of a node's clock, in seconds per second, drawn for each clock."""
    offset: float = 0.0
    """Largest error of a node's clock at the start, drawn for each clock."""


CALM = Faults()
LOSSY = Faults(
    slow=0.02, slow_by=0.2, refuse=0.05, lose_request=0.02, lose_reply=0.02, duplicate=0.02, drift=1e-4, offset=0.05
)
STORMY = Faults(
    delay=0.005,
    slow=0.1,
    slow_by=1.0,
    refuse=0.2,
    lose_request=0.08,
    lose_reply=0.08,
    duplicate=0.1,
    drift=1e-3,
    offset=1.0,
)
