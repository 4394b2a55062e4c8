"""Things that are made on a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing

from node.cli.bulk.batches import AHEAD, ahead


def test_who_stops_early_has_what_makes_the_rest_end_on_its_own_thread() -> None:
    ended = threading.Event()
    began_and_ended_on: list[int] = []

    def numbers() -> Generator[int, None, None]:
        began_and_ended_on.append(threading.get_ident())
        try:
            yield from range(10 * AHEAD)
        finally:
            began_and_ended_on.append(threading.get_ident())
            ended.set()

    things = numbers()  # not left to whoever lets go of it last

    async def scenario() -> None:
        async with aclosing(ahead(things)) as made:
            async for number in made:
                if number == AHEAD:
                    break

    asyncio.run(scenario())
    assert ended.wait(10)
    first, last = began_and_ended_on
    assert first == last != threading.get_ident()
