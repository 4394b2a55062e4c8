"""Operations on single keys that are under way at a time travel together (after Nagle's algorithm, RFC 896).

One that finds no question about its arc under way goes at once. Those that come while there is one wait for the end of
the turn of the loop and go as one question; while there are more of them, for an answer to one, but not for long.
So a caller alone waits for nothing, and many callers cost about as few messages as a batch.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from node.batches import portions
from node.errors import BadValue
from node.identifiers import Name
from node.settings import KIB

T = TypeVar("T")
R = TypeVar("R")
Named = tuple[Name, T]
"""Something, and the name of its key."""

FEW = 4
"""Operations in one arc under way, from which on the next question waits for an answer."""
PATIENCE = 0.02
"""Seconds that it waits at most."""
LARGE = 16 * KIB
"""Bytes from which on something travels alone: its size is what it costs."""


class Gathering(Generic[T, R]):
    """One kind of operation, from one place."""

    def __init__(
        self,
        do: Callable[[Sequence[Named[T]], dict[Name, R]], Awaitable[None]],
        size_of: Callable[[Named[T]], int],
        arc_of: Callable[[Named[T]], int],
    ) -> None:
        """`do` does all of these and puts the results where it is told to, by name; if it raises, that is about those
        that have none."""
        self._do = do
        self._size_of = size_of
        self._arc_of = arc_of
        self._loop = asyncio._get_running_loop()
        """Where it is made. What is begun elsewhere, on a thread that has no loop or one of its own, goes alone."""
        self._under_way: Counter[int] = Counter()
        """Operations asked for, by arc."""
        self._waiting: dict[int, _Waiting[T, R]] = {}
        self._asked: set[asyncio.Task[None]] = set()

    @property
    def goes_alone(self) -> bool:
        """Whether what is begun here does."""
        loop = self._loop
        return loop is None or asyncio._get_running_loop() is not loop

    async def one(self, named: Named[T]) -> R:
        """Do one. Raises what `do` raises."""
        results: dict[Name, R] = {}
        if self.goes_alone or self._size_of(named) >= LARGE:
            await self._do((named,), results)
            return results[named[0]]
        loop = asyncio.get_running_loop()
        arc = self._arc_of(named)
        if not self._under_way[arc]:
            self._under_way[arc] += 1
            try:
                await self._do((named,), results)
                return results[named[0]]
            finally:
                self._answered(arc, 1)
        waiting = self._waiting.get(arc)
        if waiting is None:
            waiting = self._waiting[arc] = _Waiting()
            if self._under_way[arc] < FEW:
                loop.call_soon(self._go, arc)
            else:
                waiting.alarm = loop.call_later(PATIENCE, self._go, arc)
        done: asyncio.Future[R] = loop.create_future()
        waiting.add(named, done)
        return await done

    def _answered(self, arc: int, number: int) -> None:
        """So many were. Who waited for them may ask again in this turn, so those that wait go at its end."""
        self._under_way[arc] -= number
        if not self._under_way[arc]:
            del self._under_way[arc]
        waiting = self._waiting.get(arc)
        if waiting is not None and waiting.alarm is not None:
            waiting.alarm.cancel()
            waiting.alarm = None
            asyncio.get_running_loop().call_soon(self._go, arc)

    def _go(self, arc: int) -> None:
        """They have waited enough."""
        for callers in self._waiting.pop(arc).questions:
            wanted = [named for named, done in callers.values() if not done.done()]
            for portion in portions(wanted, self._size_of):
                self._under_way[arc] += len(portion)
                waiting = [callers[name][1] for name, _ in portion]
                task = asyncio.get_running_loop().create_task(self._ask(arc, portion, waiting))
                self._asked.add(task)
                task.add_done_callback(self._asked.discard)

    async def _ask(self, arc: int, portion: Sequence[Named[T]], waiting: Sequence[asyncio.Future[R]]) -> None:
        """Ask one question, and tell whoever still waits for an answer to it."""
        results: dict[Name, R] = {}
        failure: Exception | None = None
        try:
            await self._do(portion, results)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever waits for the results
            failure = error
        except asyncio.CancelledError:
            for done in waiting:
                done.cancel()
            raise
        finally:
            self._answered(arc, len(portion))
        left: list[tuple[Named[T], asyncio.Future[R]]] = []
        for named, done in zip(portion, waiting, strict=True):
            if done.done():
                continue
            if named[0] in results:
                done.set_result(results[named[0]])
            else:
                left.append((named, done))
        if isinstance(failure, BadValue) and len(portion) > 1:  # that of one of them: nothing was done for it
            self._under_way[arc] += len(left)
            await asyncio.gather(*(self._ask(arc, (named,), (done,)) for named, done in left))
            return
        for _, done in left:
            assert failure is not None
            done.set_exception(copy.copy(failure))


class _Waiting(Generic[T, R]):
    """Who waits to be asked for in one arc."""

    def __init__(self) -> None:
        self.questions: list[dict[Name, tuple[Named[T], asyncio.Future[R]]]] = []
        """One question has a key once."""
        self.alarm: asyncio.TimerHandle | None = None

    def add(self, named: Named[T], done: asyncio.Future[R]) -> None:
        """One more."""
        for question in self.questions:
            if named[0] not in question:
                question[named[0]] = named, done
                return
        self.questions.append({named[0]: (named, done)})
