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

from node.batches import MOST, VOLUME
from node.errors import BadValue
from node.identifiers import Name
from node.settings import KIB

T = TypeVar("T")
R = TypeVar("R")
Named = tuple[Name, T]
"""Something, and the name of its key."""
_Question = dict[Name, tuple[Named[T], "asyncio.Future[R]"]]
"""What is asked at once, each key once, and who waits for it."""

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

    def one(self, named: Named[T]) -> Awaitable[R]:
        """Do one; to be awaited at once. Raises what `do` raises."""
        return self.alone(named) if self.goes_alone else self.together(named)

    async def alone(self, named: Named[T]) -> R:
        """Do it by itself."""
        results: dict[Name, R] = {}
        await self._do((named,), results)
        return results[named[0]]

    def together(self, named: Named[T]) -> Awaitable[R]:
        """Do it, in the loop of this, with others where there are any."""
        size = self._size_of(named)
        if size >= LARGE:
            return self.alone(named)
        arc = self._arc_of(named)
        if arc not in self._under_way:
            return self._first(arc, named)
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(arc)
        if waiting is None:
            waiting = self._waiting[arc] = _Waiting()
            if self._under_way[arc] < FEW:
                loop.call_soon(self._go, arc)
            else:
                waiting.alarm = loop.call_later(PATIENCE, self._go, arc)
        done: asyncio.Future[R] = loop.create_future()
        waiting.add(named, size, done)
        return done

    async def _first(self, arc: int, named: Named[T]) -> R:
        self._under_way[arc] += 1
        try:
            return await self.alone(named)
        finally:
            self._answered(arc, 1)

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
        for question in self._waiting.pop(arc).questions:
            self._under_way[arc] += len(question)
            task = asyncio.get_running_loop().create_task(self._ask(arc, question))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _ask(self, arc: int, question: _Question[T, R]) -> None:
        """Ask one question, and tell whoever still waits for an answer to it."""
        results: dict[Name, R] = {}
        failure: Exception | None = None
        try:
            if wanted := [named for named, done in question.values() if not done.done()]:
                await self._do(wanted, results)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever waits for the results
            failure = error
        except asyncio.CancelledError:
            for _, done in question.values():
                done.cancel()
            raise
        finally:
            self._answered(arc, len(question))
        left: _Question[T, R] = {}
        for name, (named, done) in question.items():
            if done.done():
                continue
            if name in results:
                done.set_result(results[name])
            else:
                left[name] = named, done
        if isinstance(failure, BadValue) and len(question) > 1:  # that of one of them: nothing was done for it
            self._under_way[arc] += len(left)
            await asyncio.gather(*(self._ask(arc, {name: each}) for name, each in left.items()))
            return
        for _, done in left.values():
            assert failure is not None
            done.set_exception(copy.copy(failure))


class _Waiting(Generic[T, R]):
    """Who waits to be asked for in one arc."""

    def __init__(self) -> None:
        self.questions: list[_Question[T, R]] = [{}]
        """The last one may grow."""
        self._volume = 0
        """Bytes of it."""
        self.alarm: asyncio.TimerHandle | None = None

    def add(self, named: Named[T], size: int, done: asyncio.Future[R]) -> None:
        """One more, of so many bytes."""
        question = self.questions[-1]
        if named[0] in question or len(question) == MOST or self._volume + size > VOLUME:
            question = {}
            self.questions.append(question)
            self._volume = 0
        question[named[0]] = named, done
        self._volume += size
