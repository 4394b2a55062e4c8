"""Many keys at a time in an eventual ring."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from node.batches import VOLUME
from node.codec import Address, pack
from node.data import Stored
from node.errors import OutcomeUnknown, Unavailable
from node.eventual.exchange import Exchange
from node.eventual.guest import Guest
from node.eventual.messages import Listing
from node.identifiers import EVERYTHING
from node.simulation.seeds import for_each_seed
from tests.eventual.test_commons import commons, eventual_ring
from tests.simulation.rings import until

PAIRS = tuple((b"key %d" % n, b"%d" % n) for n in range(20))


def test_a_batch_of_which_a_part_was_written_is_not_written_again_elsewhere() -> None:
    """Stamped a second time it could undo what was written since."""

    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        hosts = await ring.of(3)
        await until(ring.is_ideal, 60.0, "a ring")
        times = {key: 0 for key, _ in PAIRS}
        for host in hosts:
            data, put = commons(ring, host), commons(ring, host).put

            async def counted(key: bytes, value: bytes, expires: int = 0, put: object = put) -> object:
                if key == PAIRS[-1][0]:
                    raise Unavailable("no answer for this key")
                times[key] += 1
                return await put(key, value, expires)  # type: ignore[operator]

            data.put = counted  # type: ignore[method-assign, assignment]
        client = ring.world.host()
        client.start()
        guest = Guest([hosts[0].address], client.transport, ring.settings)
        with pytest.raises(OutcomeUnknown, match="keys are done"):
            await client.run(guest.put_many(PAIRS))
        assert set(times.values()) == {0, 1}

    for_each_seed(3, scenario)


def test_a_batch_larger_than_nodes_can_do_at_once_waits_with_the_client() -> None:
    """All of it at the nodes at once was waited for in vain, and asked again of nodes that had not done it yet."""
    pairs = {b"key %d" % n: b"%d" % n for n in range(20_000)}

    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        hosts = await ring.of(3)
        await until(ring.is_ideal, 60.0, "a ring")
        for host in hosts:
            data, busy = commons(ring, host), asyncio.Lock()

            async def slow(keys: tuple[bytes, ...], busy: asyncio.Lock = busy) -> dict[bytes, Stored | None]:
                async with busy:
                    await asyncio.sleep(0.001 * len(keys))
                return {key: Stored((1, 1), pairs[key]) for key in keys}

            data.get_many = slow  # type: ignore[method-assign, assignment]
        client = ring.world.host()
        client.start()
        guest = Guest([hosts[0].address], client.transport, ring.settings)
        found = await client.run(guest.get_many(pairs))
        assert {key: stored and stored.value for key, stored in found.items()} == pairs

    for_each_seed(1, scenario)


def test_strays_are_handed_over_in_messages_of_bounded_size_however_long_their_keys_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    ask = Exchange._ask

    async def measured(exchange: Exchange, method: Any, node: Address, question: Any) -> Any:
        if isinstance(question, Listing) and question.arc is None:
            sizes.append(len(pack(question)))
        return await ask(exchange, method, node, question)

    monkeypatch.setattr(Exchange, "_ask", measured)

    async def scenario(seed: int) -> None:
        ring = eventual_ring(seed)
        ring.policy = replace(ring.policy, replicas=1)
        one = await ring.start()
        keys = [b"%04d" % n + bytes(4000) for n in range(800)]
        await one.run(commons(ring, one).put_many((key, b"value") for key in keys))
        await ring.start(one)
        shelf = commons(ring, one)._shelf
        deadline = ring.world.hosts[0].clock() + 60
        while (await shelf.sum(EVERYTHING)).records == len(keys):
            assert ring.world.hosts[0].clock() < deadline, "nothing was handed over"
            await asyncio.sleep(1)

    for_each_seed(1, scenario)
    assert sum(sizes) > VOLUME > max(sizes) - 100_000
