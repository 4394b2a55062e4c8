"""What a client is shown is on the disk: it is still there after a loss of power."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar

import pytest

from node.chain.router import Router
from node.simulation.seeds import for_each_seed
from node.store.interface import Batch
from tests.chain.rig import ChainRing
from tests.simulation.disks import SlowStore


class Late(SlowStore):
    """As an engine whose log is synced a good while after what was written can be read."""

    writing: ClassVar[list[Batch]] = []
    """Records that a power cut would take."""

    def commit(self, batch: Batch, *, to_disk: bool | None = None) -> Awaitable[None]:
        return asyncio.ensure_future(self._commit(batch, super().commit(batch, to_disk=to_disk)))

    async def _commit(self, batch: Batch, written: Awaitable[None]) -> None:
        if any(change[0] == "put" for change in batch.changes):
            self.writing.append(batch)
        await written
        await asyncio.sleep(0.2)
        if batch in self.writing:
            self.writing.remove(batch)


async def got(router: Router) -> bool:
    return await router.get(b"key") is not None


async def found(router: Router) -> bool:
    return any([page async for page in router.scan()])


@pytest.mark.parametrize("shown", [got, found])
def test_what_is_not_on_the_disk_yet_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, shown: Callable[[Router], Awaitable[bool]]
) -> None:
    monkeypatch.setattr("tests.chain.rig.SlowStore", Late)

    async def scenario(seed: int) -> None:
        ring = ChainRing(seed)
        await ring.of(1)
        client = ring.client()
        writing = asyncio.ensure_future(client.host.run(client.router.put(b"key", b"value")))
        while not await client.host.run(shown(client.router)):
            await asyncio.sleep(ring.random.uniform(0, 0.01))
        assert not Late.writing
        await writing

    for_each_seed(5, scenario)
