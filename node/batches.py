"""Many things at a time: how much goes into one question, and how many are asked side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from node.errors import OutcomeUnknown, RingError
from node.settings import MIB

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

MOST = 1_000
VOLUME = 1 * MIB
"""Keys and bytes of one question at most, about."""


def portions(things: Iterable[T], size_of: Callable[[T], int]) -> list[list[T]]:
    """Things as they go into one question each: not too many, and not too large together."""
    listed = list(things)
    if len(listed) <= MOST and sum(map(size_of, listed)) <= VOLUME:
        return [listed] if listed else []
    made: list[list[T]] = []
    size = 0
    for thing in listed:
        if not made or len(made[-1]) == MOST or size + size_of(thing) > VOLUME:
            made.append([])
            size = 0
        made[-1].append(thing)
        size += size_of(thing)
    return made


async def all_of(works: Iterable[Awaitable[A]]) -> list[A]:
    """All of them to their ends; then the worst that went wrong, if anything did."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    wrong = [each for each in ended if isinstance(each, BaseException)]
    if wrong:
        raise min(wrong, key=lambda error: (isinstance(error, RingError), not isinstance(error, OutcomeUnknown)))
    return [each for each in ended if not isinstance(each, BaseException)]


async def side_by_side(do: Callable[[Q], Awaitable[A]], questions: Iterable[Q], most: int) -> list[A]:
    """All of them as `all_of`, so many at a time."""
    turns = asyncio.Semaphore(most)

    async def one(question: Q) -> A:
        async with turns:
            return await do(question)

    return await all_of(map(one, questions))
