"""Changes of a chain that take long, or break off."""

from __future__ import annotations

import asyncio

import pytest

from node.chain.mirror import Destination
from node.data import Version
from node.simulation.faults import CALM
from node.simulation.seeds import for_each_seed
from tests.chain.rig import ChainRing
from tests.simulation.rings import persistently, until

SETTLED = 60.0
finish = Destination.finish


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What is left to copy under a seal takes so long, each time."""

    async def slow(self: Destination, epoch: int) -> Version:
        await asyncio.sleep(seconds)
        return await finish(self, epoch)

    monkeypatch.setattr(Destination, "finish", slow)


def test_a_newcomer_that_takes_longer_than_a_round_under_the_seal_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM)
        await ring.of(2)
        await until(ring.is_settled, SETTLED, "settled")
        slowed(monkeypatch, 2 * ring.settings.settle_period)
        copies = ring.world.network.served["chain.mirror"]
        await ring.start()
        await until(ring.is_settled, SETTLED, "settled with it")
        assert ring.world.network.served["chain.mirror"] - copies == len(ring.map.entries)

    for_each_seed(5, scenario)


def test_writes_go_on_soon_when_a_newcomer_dies_under_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM)
        (first,) = await ring.of(1)
        slowed(monkeypatch, 1.0)
        newcomer = await ring.start()
        loop = asyncio.get_running_loop()
        await until(lambda: any(not replica.follows for replica in ring.space(first).held), SETTLED, "sealed")
        ring.crash(newcomer)
        died_at = loop.time()
        for n in range(20):
            await persistently(lambda n=n: ring.space(first).operations.put(b"key %d" % n, b"value"))
        assert loop.time() - died_at < 3

    for_each_seed(5, scenario)
