"""Commands that fill a ring with the numbers 0..MAX and look for them: the quickest check that nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.arguments import FAILED
from node.cli.client import on_ring, ring_command
from node.cli.output import Progress, complain, print_json
from node.codec import Address

if TYPE_CHECKING:
    from node.client.ring import AsyncRing

PORTION = 5_000
"""Keys of one batch."""


def _portions(most: int) -> list[range]:
    return [range(first, min(first + PORTION, most + 1)) for first in range(0, most + 1, PORTION)]


@ring_command("range-insert")
@click.argument("most", type=click.IntRange(0), metavar="MAX")
def insert(most: int, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Store the numbers 0 to MAX, each under itself."""

    async def work(ring: AsyncRing) -> None:
        with Progress("inserting", most + 1) as progress:
            for numbers in _portions(most):
                await ring.put_many({number: number for number in numbers})
                progress.add(len(numbers))
        print_json({"stored": most + 1}) if as_json else print(f"stored 0..{most}")

    return on_ring(nodes, timeout, work)


@ring_command("range-search")
@click.argument("most", type=click.IntRange(0), metavar="MAX")
def search(most: int, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Look the numbers 0 to MAX up and name every one that is missing or wrong. Exit code 1 if there is one."""

    async def work(ring: AsyncRing) -> int:
        missing: list[int] = []
        wrong: list[int] = []
        with Progress("searching", most + 1) as progress:
            for numbers in _portions(most):
                found = await ring.get_many(numbers)
                progress.add(len(numbers))
                for number in numbers:
                    if number not in found:
                        missing.append(number)
                        complain(f"missing: {number}")
                    elif found[number] != number:
                        wrong.append(number)
                        complain(f"wrong: {number} is {found[number]!r}")
        if as_json:
            print_json({"searched": most + 1, "missing": missing, "wrong": wrong})
        else:
            print(f"searched 0..{most}: {len(missing)} missing, {len(wrong)} wrong")
        return FAILED if missing or wrong else 0

    return on_ring(nodes, timeout, work)
