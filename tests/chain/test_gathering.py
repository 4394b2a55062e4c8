"""Operations on single keys that travel together: how many questions they cost, and that each has its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from node.chain.gathering import LARGE, PATIENCE, Gathering, Named
from node.codec import unpack
from node.data import Stored
from node.errors import BadValue, Unavailable
from node.identifiers import Identifier, Name, name_of
from node.simulation.faults import CALM, LOSSY
from node.simulation.loop import run
from node.simulation.seeds import for_each_seed
from tests.chain import chaos as schedules
from tests.chain.chaos import Clients, assert_linearizable, chaos
from tests.chain.rig import SETTINGS, ChainRing
from tests.simulation.rings import persistently, until

ROUND_TRIP = 1.0
"""Seconds; much longer than anything waits to be sent."""


class Far:
    """Doubles numbers, which takes a round trip. Hundreds of a number are its arc; 13 is bad, and sevens are not to
    be had."""

    def __init__(self) -> None:
        self.questions: list[list[int]] = []
        self.round_trip = ROUND_TRIP
        self.gathering = Gathering(self._do, lambda named: named[1], lambda named: named[1] // 100)

    async def _do(self, named: Sequence[Named[int]], results: dict[Name, int]) -> None:
        numbers = [number for _, number in named]
        self.questions.append(numbers)
        await asyncio.sleep(self.round_trip)
        if 13 in numbers:
            raise BadValue("13 is bad")
        results.update({name: 2 * number for name, number in named if number % 10 != 7})
        if len(results) < len(named):
            raise Unavailable("sevens are not to be had")

    async def double(self, number: int) -> int:
        return await self.gathering.one((b"%d" % number, number))


def test_one_caller_alone_waits_for_nothing() -> None:
    async def scenario() -> None:
        far, loop = Far(), asyncio.get_running_loop()
        began = loop.time()
        for number in range(1, 6):
            assert await far.double(number) == 2 * number
        assert loop.time() - began == pytest.approx(5 * ROUND_TRIP)

    run(scenario())


def test_those_that_come_in_one_turn_are_one_question_for_each_arc() -> None:
    async def scenario() -> None:
        far, loop = Far(), asyncio.get_running_loop()
        numbers = [1, 2, 3, 101, 4, 102, 103]
        began = loop.time()
        assert await asyncio.gather(*map(far.double, numbers)) == [2 * number for number in numbers]
        assert loop.time() - began == pytest.approx(ROUND_TRIP)
        assert sorted(far.questions) == [[1], [2, 3, 4], [101], [102, 103]]

    run(scenario())


def test_who_runs_a_loop_of_its_own_shares_nothing_with_others() -> None:
    """A coroutine, or a notebook, may use a ring that belongs to another loop: threads begin operations themselves."""

    async def begin(far: Far) -> list[int]:
        foreign = asyncio.new_event_loop()
        try:
            return await asyncio.to_thread(foreign.run_until_complete, several(far))
        finally:
            foreign.close()

    async def several(far: Far) -> list[int]:
        return await asyncio.gather(*map(far.double, (1, 2, 3)))

    async def scenario() -> None:
        far = Far()
        far.round_trip = 0.01
        mine = asyncio.ensure_future(several(far))
        assert await begin(far) == [2, 4, 6] == await mine
        assert sorted(far.questions) == [[1], [1], [2], [2, 3], [3]]
        assert not far.gathering._under_way

    asyncio.run(scenario())


def test_many_wait_for_an_answer_but_not_for_long() -> None:
    async def scenario() -> None:
        far, loop = Far(), asyncio.get_running_loop()
        first = [asyncio.ensure_future(far.double(number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(0.5 * ROUND_TRIP)
        began = loop.time()
        assert await far.double(5) == 10
        assert loop.time() - began == pytest.approx(PATIENCE + ROUND_TRIP)
        await asyncio.gather(*first)
        assert far.questions == [[1], [2, 3, 4], [5]]

        first = [asyncio.ensure_future(far.double(number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(ROUND_TRIP - PATIENCE / 2)
        began = loop.time()
        assert await asyncio.gather(far.double(5), far.double(6)) == [10, 12]
        assert loop.time() - began == pytest.approx(PATIENCE / 2 + ROUND_TRIP), "an answer came"
        await asyncio.gather(*first)

    run(scenario())


def test_callers_that_ask_again_at_an_answer_stay_together() -> None:
    async def scenario() -> None:
        far = Far()

        async def caller(number: int) -> None:
            for _ in range(10):
                await far.double(number)

        await asyncio.gather(*map(caller, [n for n in range(64) if n % 10 != 7 and n != 13]))
        assert len(far.questions) == 20

    run(scenario())


def test_each_has_its_own_result_and_failure() -> None:
    async def scenario() -> None:
        far = Far()
        numbers = [1, 2, 7, 3, 17, 101, 102, 103]
        results = await asyncio.gather(*map(far.double, numbers), return_exceptions=True)
        assert [type(each) for each in results] == [int, int, Unavailable, int, Unavailable, int, int, int]
        assert results[2] is not results[4], "each has its own traceback"

    run(scenario())


def test_what_is_wrong_with_one_is_not_held_against_the_others() -> None:
    async def scenario() -> None:
        far = Far()
        results = await asyncio.gather(*map(far.double, [1, 2, 13, 3]), return_exceptions=True)
        assert [type(each) for each in results] == [int, int, BadValue, int]
        assert await asyncio.gather(*map(far.double, [1, 2, 3])) == [2, 4, 6], "it is forgotten"
        assert not far.gathering._under_way

    run(scenario())


def test_what_is_large_goes_alone_and_a_question_has_a_key_once() -> None:
    async def scenario() -> None:
        far = Far()
        large = LARGE // 100 * 100 + 100
        numbers = [1, 2, 3, 2, large, 2, large + 1, 3]
        assert await asyncio.gather(*map(far.double, numbers)) == [2 * number for number in numbers]
        assert sorted(far.questions) == [[1], [2], [2, 3], [2, 3], [large], [large + 1]]

    run(scenario())


def test_who_has_gone_away_is_not_asked_for_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        far = Far()
        callers = [asyncio.ensure_future(far.double(number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        callers[1].cancel()
        assert [await callers[n] for n in (0, 2, 3)] == [2, 6, 8]
        assert far.questions == [[1], [3, 4]]
        callers = [asyncio.ensure_future(far.double(number)) for number in (1, 2, 3, 4)]
        await asyncio.sleep(ROUND_TRIP / 2)
        callers[0].cancel()
        callers[2].cancel()
        assert [await callers[1], await callers[3]] == [4, 8]
        assert not far.gathering._under_way

    run(scenario())


def test_many_puts_and_gets_at_a_time_cost_few_questions() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM)
        await ring.founded(4)
        router = ring.client().router
        keys = [b"key %d" % n for n in range(64)]
        served = ring.world.network.served
        versions = await asyncio.gather(*(persistently(lambda key=key: router.put(key, key)) for key in keys))
        before = served["chain.read"], served["chain.write"]
        found = await asyncio.gather(*map(router.get, keys))
        gone = await asyncio.gather(*map(router.delete, [*keys, b"absent"]))
        assert [(stored.value, stored.version) for stored in found if stored] == list(zip(keys, versions, strict=True))
        assert gone == [True] * 64 + [False]
        assert served["chain.read"] - before[0] <= 2 * len(ring.map.entries)
        assert served["chain.write"] - before[1] <= 2 * len(ring.map.entries)

    for_each_seed(3, scenario)


def test_an_arc_that_was_split_meanwhile_gives_each_its_result() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, LOSSY, replicas=1 + seed % 3)
        await ring.founded(2)
        client = ring.client()
        keys = [b"key %d" % n for n in range(40)]
        await ring.start()
        await until(ring.is_settled, 120, "settled")
        await asyncio.gather(*(persistently(lambda key=key: client.router.put(key, key)) for key in keys))
        for key in keys:
            holder = next(space for space in ring.spaces.values() if _head_of(ring, key) == space.resident.life)
            body = await holder.held.store.get(name_of(key))
            assert body is not None and unpack(Stored, body).value == key

    for_each_seed(3, scenario)


def _head_of(ring: ChainRing, key: bytes) -> bytes:
    return ring.map.at(Identifier.of_key(key)).head


def test_a_node_that_takes_smaller_values_refuses_only_those_that_are_too_large() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM, replace(SETTINGS, max_value=100))
        await ring.founded(3)
        router = ring.client().router
        wanted = [(b"key %d" % n, b"v" * (200 if n == 5 else 10)) for n in range(30)]
        results = await asyncio.gather(*(router.put(*pair) for pair in wanted), return_exceptions=True)
        assert [n for n, result in enumerate(results) if isinstance(result, BadValue)] == [5]
        assert sum(isinstance(result, tuple) for result in results) == 29

    for_each_seed(2, scenario)


def test_histories_of_many_callers_of_one_node_are_linearizable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, LOSSY, replicas=1 + seed % 3)
        hosts = await ring.founded(4)
        clients = Clients(ring, seed, count=24, rate=20, nodes=1)
        await chaos(ring, hosts, 2, wipe=ring.policy.replicas > 1)
        await clients.stop()
        assert_linearizable(clients.history)
        assert not ring.failures

    monkeypatch.setattr(schedules, "KEYS", 12)
    for_each_seed(15, scenario)
