"""Changes of a chain that take long, or break off."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from node.chain.mirror import Destination
from node.data import Version
from node.identifiers import RING
from node.settings import KIB
from node.simulation.faults import CALM, Faults
from node.simulation.seeds import for_each_seed
from tests.chain.rig import ChainRing
from tests.simulation.rings import persistently, quick, until

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


def test_a_newcomer_enters_while_much_is_written_of_which_little_fits_into_a_message() -> None:
    """What is left to copy is many messages, though few records: it would take longer than writes may wait."""

    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, Faults(least_delay=0.01, delay=0.0), quick(chunk=KIB), replicas=2)
        await ring.of(1)
        client = ring.client()
        keys = count()

        async def write(gap: float) -> None:
            await client.router.put(b"key %d" % next(keys), b"." * KIB)
            await asyncio.sleep(gap)

        async def go_on() -> None:
            while True:
                await write(0.02)

        await client.host.run(client.router.put_many((b"key %d" % next(keys), b"." * KIB) for _ in range(1000)))
        writing = client.host.spawn(go_on())
        copies = ring.world.network.served["chain.mirror"]
        await ring.start(seat=ring.map.seats[0].id.plus(RING // 2))
        await until(ring.is_settled, 2 * SETTLED, "settled with it")
        assert not writing.done(), "writes went on"
        assert ring.world.network.served["chain.mirror"] - copies == len(ring.map.entries)

    for_each_seed(2, scenario)
