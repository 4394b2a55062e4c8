"""The calls of one connection that wait for their answers: by number, each with a deadline.

A deadline is for silence: while something is on its way, which on a slow line may be what others asked for, it begins
anew with every piece that comes or leaves, up to what any operation may take.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.errors import OutcomeUnknown, Unreachable
from node.settings import Settings


def due(began: float, deadline: float, moved: float, settings: Settings) -> float:
    """Until when is waited for what began then, if a part of a message was last seen to come or leave at `moved`."""
    longest = max(deadline, settings.operation)
    return max(began + deadline, min(moved + deadline, began + longest))


@dataclass(slots=True)
class Call:
    """One of them: under which number of the wire it was sent, and until when it waits."""

    answer: asyncio.Future[Any]
    ticket: int
    asked: float
    deadline: float
    due: float


class Calls:
    """All of one connection. One timer serves them: it goes off at the first deadline, or before."""

    def __init__(self, peer: Callable[[], str], moved: Callable[[], float], settings: Settings) -> None:
        """`peer`: who is asked, for messages. `moved`: when a part of a message was last seen to come or leave."""
        self._peer = peer
        self._moved = moved
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Call] = {}
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = math.inf

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, seq: object) -> bool:
        return seq in self._waiting

    async def answer(self, seq: int, ticket: int, deadline: float) -> Any:
        """What number `seq` is answered within `deadline` seconds. Raises OutcomeUnknown, and what it failed with."""
        now = self._loop.time()
        call = Call(self._loop.create_future(), ticket, now, deadline, now + deadline)
        self._waiting[seq] = call
        if call.due < self._alarm_at:
            self._set_alarm(call.due)
        try:
            return await call.answer
        finally:
            self._waiting.pop(seq, None)

    def answered(self, seq: Any, content: Any) -> None:
        """This is the answer to that number, if it is still waited for."""
        call = self._waiting.get(seq)
        if call is not None and not call.answer.done():
            call.answer.set_result(content)

    def failed(self, seq: Any, error: Exception) -> None:
        """This came of that number, if it is still waited for."""
        call = self._waiting.get(seq)
        if call is not None and not call.answer.done():
            call.answer.set_exception(error)

    def end(self, sent: int, reason: str) -> None:
        """The connection has ended; what had a ticket beyond `sent` was never sent."""
        if self._alarm is not None:
            self._alarm.cancel()
        for seq, call in self._waiting.items():
            kind = Unreachable if call.ticket > sent else OutcomeUnknown
            self.failed(seq, kind(f"the connection with {self._peer()} ended: {reason}"))

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = self._loop.call_at(when, self._expire), when

    def _expire(self) -> None:
        """The time of some may be over."""
        self._alarm, self._alarm_at = None, math.inf
        now, moved = self._loop.time(), self._moved()
        for seq, call in self._waiting.items():
            call.due = due(call.asked, call.deadline, moved, self._settings)
            if call.due <= now:
                self.failed(seq, OutcomeUnknown(f"no answer from {self._peer()} within {call.due - call.asked:.3g} s"))
        if left := [call.due for call in self._waiting.values() if call.due > now]:
            self._set_alarm(min(left))
