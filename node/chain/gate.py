"""Where writes wait at the head of a chain, in the order in which they came, while it carries what it can.

What is under way, and what was let in and is about to be, fits into one message with the largest write there may be: a
link may have to send all of it at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from node.chain.messages import NEVER
from node.chain.patience import Patience
from node.errors import Overloaded, StoreFull
from node.settings import MIB

if TYPE_CHECKING:
    from node.chain.replica import Replica

WINDOW = 3 * MIB
"""Bytes under way and let in beyond which writes wait."""

WAITING = 16 * MIB
"""Bytes of writes waiting beyond which more are refused."""

TOO_MUCH = "the chain of this key takes no more at the moment: slow down and try again"


class Gate:
    """That of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._inherited = replica.position if replica.log.entries else NEVER
        """What was ordered before this object was made: it may have to be sent again, and nothing is let in before."""
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._inside = 0
        """Bytes of writes that are let in and not ordered yet."""

    async def enter(self, size: int, patience: float) -> None:
        """Wait in turn until there is room for a write of so many bytes, for so many seconds; `leave` says when it is
        not needed any more. If there is another reason why it may not be taken nobody waits. Raises Overloaded."""
        if self._turn.locked() or not self._is_open():
            await self._queue(size, patience)
        self._inside += size

    async def _queue(self, size: int, patience: float) -> None:
        if self._waiting + size > WAITING:
            raise Overloaded(TOO_MUCH)
        self._waiting += size
        try:
            async with Patience(patience, Overloaded(TOO_MUCH)), self._turn:
                await self._replica.reached(self._is_open)
        finally:
            self._waiting -= size

    def leave(self, size: int) -> None:
        """A write of so many bytes is under way, or is none."""
        self._inside -= size
        if self._turn.locked():
            self._replica.stir()

    def _is_open(self) -> bool:
        replica = self._replica
        if not replica.follows or isinstance(replica.trouble, StoreFull):
            return True
        return replica.under_way.size + self._inside <= WINDOW and replica.stable >= self._inherited
