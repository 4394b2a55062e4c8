"""The seam between the protocols and whatever carries their calls: RPyC on real hosts, virtual time in simulation.

Protocol code sees a `Transport` and is seen as a `Receiver`; it knows nothing else of the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from node.codec import Address

Receiver = Callable[[str, bytes], Awaitable[bytes]]
"""What answers calls: (method, packed arguments) to packed result. It may raise any RingError."""


class Transport(Protocol):
    """Carries calls to other nodes."""

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> bytes:
        """Call `method` of the node at `to` and return its packed result, within `deadline` seconds from now.

        Raises Unreachable if nothing was sent, OutcomeUnknown if it was sent and no answer came in time or the
        connection ended first, and otherwise the very RingError that the callee raised.
        """
        ...
