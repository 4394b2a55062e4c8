"""Many things at a time: how much goes into one question, and how many are asked side by side."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from node.errors import NoQuorum, OutcomeUnknown, RingError, Unavailable
from node.settings import MIB

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

MOST = 250
VOLUME = 1 * MIB
"""Keys and bytes of one question at most, about: enough that the question costs little, few enough that who asks and
who answers work at the same time."""
IN_VAIN = (NoQuorum, OutcomeUnknown, Unavailable)
"""What is raised when the time for an operation is over."""


def fitting(bodies: Iterable[bytes | None], most: int) -> int:
    """How many of these, from the first on, have at most so many bytes together; at least one."""
    sizes = accumulate([len(body) if body is not None else 0 for body in bodies])
    return max(bisect_right(list(sizes), most), 1)


def _one(_: object) -> int:
    return 0


def portions(
    things: Iterable[T], size_of: Callable[[T], int], group_of: Callable[[T], Hashable] = _one, *, most: int = MOST
) -> Iterator[list[T]]:
    """Things as they go into one question each: of one group, not too many, and not too large together. A portion comes
    as soon as it is full."""
    filling: defaultdict[Hashable, list[T]] = defaultdict(list)
    volumes: defaultdict[Hashable, int] = defaultdict(int)
    for thing in things:
        group, size = group_of(thing), size_of(thing)
        portion = filling[group]
        if portion and (len(portion) == most or volumes[group] + size > VOLUME):
            yield portion
            portion = filling[group] = []
            volumes[group] = 0
        portion.append(thing)
        volumes[group] += size
    yield from filling.values()


async def all_of(works: Iterable[Awaitable[A]]) -> list[A]:
    """All of them to their ends; then the worst that went wrong, if anything did."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    wrong = [each for each in ended if isinstance(each, BaseException)]
    if wrong:
        worst = min(wrong, key=lambda error: (isinstance(error, RingError), not isinstance(error, OutcomeUnknown)))
        try:
            raise worst
        finally:
            del ended, wrong, worst  # or they and this frame would hold each other
    return [each for each in ended if not isinstance(each, BaseException)]


async def side_by_side(do: Callable[[Q], Awaitable[A]], questions: Iterable[Q], most: int) -> list[A]:
    """All of them as `all_of`, so many at a time. Each is begun before the next question is made; none is once one has
    waited in vain, or each would wait for as long."""
    turns = asyncio.Semaphore(most)
    in_vain = False

    async def one(question: Q) -> A:
        nonlocal in_vain
        try:
            return await do(question)
        except IN_VAIN:
            in_vain = True
            raise
        finally:
            turns.release()

    begun: list[asyncio.Task[A]] = []
    try:
        for question in questions:
            await turns.acquire()
            if in_vain:
                break
            begun.append(asyncio.create_task(one(question)))
            await asyncio.sleep(0)
    except BaseException:
        for task in begun:
            task.cancel()
        raise
    return await all_of(begun)
