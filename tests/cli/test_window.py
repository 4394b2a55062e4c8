"""Many operations at a time, those on one key in order."""

from __future__ import annotations

import asyncio
import random

import pytest

from node.cli.window import Window


def test_operations_on_one_key_keep_their_order_and_others_do_not_wait() -> None:
    async def main() -> None:
        window, chance = Window(64, 1000), random.Random(1)
        done: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        at_once = most = 0

        async def work(key: str, number: int) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(chance.random() / 1000)
            at_once -= 1
            done[key].append(number)

        for number in range(300):
            key = chance.choice("abc")
            await window.admit(key, 1, work(key, number))
        await window.drain()
        assert all(numbers == sorted(numbers) for numbers in done.values())
        assert sum(map(len, done.values())) == 300
        assert most == 3

    asyncio.run(main())


@pytest.mark.parametrize(("most", "volume", "size", "expected"), [(8, 1000, 1, 8), (100, 50, 10, 5), (100, 50, 80, 1)])
def test_there_are_never_more_than_fit(most: int, volume: int, size: int, expected: int) -> None:
    async def main() -> None:
        window = Window(most, volume)
        running = peak = 0

        async def work() -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0)
            running -= 1

        for number in range(200):
            await window.admit(str(number), size, work())
        await window.drain()
        assert (running, peak) == (0, expected)

    asyncio.run(main())


def test_what_an_operation_raises_ends_the_whole() -> None:
    async def main() -> None:
        window = Window(8, 1000)

        async def work(number: int) -> None:
            if number == 3:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            for number in range(100):
                await window.admit("k", 1, work(number))
                await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            await window.drain()
        await window.close()

    asyncio.run(main())


def test_closing_ends_what_is_under_way() -> None:
    async def main() -> None:
        window = Window(8, 1000)
        for _ in range(4):
            await window.admit("k", 1, asyncio.sleep(3600))
        await asyncio.sleep(0)
        await asyncio.wait_for(window.close(), 10)
        await asyncio.wait_for(window.drain(), 10)

    asyncio.run(main())
