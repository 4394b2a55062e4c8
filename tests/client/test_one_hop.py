"""Operations of a client that knows the ring go straight to the right replica, counted by the nodes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from node import AsyncRing
from tests.ring.nodes import NodeProcess, RingOfProcesses

IN_FLIGHT = 64


@pytest.mark.parametrize(
    ("operations", "changes"),
    [(10_000, 2), pytest.param(1_000_000, 20, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_99_of_100_go_straight_though_members_join_and_leave(tmp_path: Path, operations: int, changes: int) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        nodes = processes.of(4)
        straight, astray = asyncio.run(_use(processes, nodes, operations, changes))
        assert straight + astray >= 0.9 * operations  # what a node that leaves was asked last is not counted
        assert straight >= 0.99 * (straight + astray), (straight, astray)
    finally:
        processes.close()


async def _use(processes: RingOfProcesses, nodes: list[NodeProcess], operations: int, changes: int) -> tuple[int, int]:
    """Read and write while nodes come and go; what the nodes counted."""
    left = operations
    chance = random.Random(operations)
    counted = [0, 0]

    async def worker(ring: AsyncRing) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            key = f"key {chance.randrange(10_000)}"
            await (ring.get(key) if chance.random() < 0.8 else ring.put(key, left))

    async def count(ring: AsyncRing) -> None:
        for health in (await ring.health()).values():
            if health is not None:
                counted[0] += health["straight"]
                counted[1] += health["astray"]

    async with await AsyncRing.connect(f"127.0.0.1:{nodes[0].port}", timeout=30) as ring:
        working = [asyncio.ensure_future(worker(ring)) for _ in range(IN_FLIGHT)]
        for n in range(changes):
            until = operations * (changes - 1 - n) // changes
            newcomer = await asyncio.to_thread(processes.node, first=nodes[0])
            while left > until:
                await asyncio.sleep(0.05)
            async with await AsyncRing.connect(f"127.0.0.1:{newcomer.port}") as own:
                for node, health in (await own.health()).items():
                    if node.port == newcomer.port and health is not None:
                        counted[0] += health["straight"]
                        counted[1] += health["astray"]
            assert await asyncio.to_thread(newcomer.terminate) == 0
        await asyncio.gather(*working)
        await count(ring)
    return counted[0], counted[1]
