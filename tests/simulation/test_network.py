"""The simulated network: each fault by itself, what callers see of it, and equal runs for equal seeds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.codec import Address, Message, pack, unpack
from node.errors import Moved, NotAMember, RingError, Unreachable
from node.identifiers import Identifier, name_at
from node.simulation.clock import EPOCH
from node.simulation.faults import CALM, LOSSY, STORMY, Faults
from node.simulation.loop import run, virtual_loop
from node.simulation.network import ReceiverFailed
from node.simulation.process import Crashed
from node.simulation.world import Host, World
from node.store.interface import Batch
from node.store.memory import MemoryStore

DEADLINE = 1.0


class Sum(Message, frozen=True):
    """Two numbers to add."""

    left: int
    right: int


class Adder:
    """A node that adds, and remembers how often and when it was asked."""

    def __init__(self, host: Host, takes: float = 0.0) -> None:
        self.host = host
        self.takes = takes
        self.asked: list[tuple[float, int]] = []

    async def boot(self, host: Host) -> None:
        host.listen(self.answer)

    async def answer(self, method: str, payload: bytes) -> bytes:
        question = unpack(Sum, payload)
        self.asked.append((asyncio.get_running_loop().time(), question.left))
        if method == "refuse":
            raise NotAMember("no such member here")
        if self.takes:
            await asyncio.sleep(self.takes)
        return pack(question.left + question.right)


class Pair:
    """A caller and an adder, on two hosts."""

    def __init__(self, faults: Faults = CALM, seed: int = 0, takes: float = 0.0) -> None:
        self.world = World(seed, faults, trace=True)
        self.network = self.world.network
        self.caller = self.world.host(idle)
        self.callee = self.world.host()
        self.adder = Adder(self.callee, takes)

    async def up(self) -> Pair:
        self.callee.start(self.adder.boot)
        await asyncio.sleep(0.001)
        return self

    async def add(self, left: int, method: str = "add", deadline: float = DEADLINE) -> int:
        """One call from the caller to the adder."""
        question = pack(Sum(left, 1))

        async def call() -> bytes:
            return await self.caller.transport.call(self.callee.address, method, question, deadline=deadline)

        return unpack(int, await self.caller.run(call()))

    async def outcome(self, left: int) -> str:
        """How one call ends."""
        try:
            assert await self.add(left) == left + 1
        except RingError as error:
            return type(error).__name__
        return "answer"

    async def outcomes(self, count: int) -> set[str]:
        return {await self.outcome(n) for n in range(count)}


async def idle(host: Host) -> None:
    """A node that only calls others."""


def pair(
    faults: Faults = CALM, takes: float = 0.0, seed: int = 0
) -> Callable[[Callable[[Pair], Coroutine[Any, Any, None]]], None]:
    """Runs the scenario it is applied to, with a caller and an adder."""

    def apply(scenario: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await scenario(await Pair(faults, seed, takes).up())

        run(main(), seed=seed)

    return apply


def now() -> float:
    return asyncio.get_running_loop().time()


# -- without faults ----------------------------------------------------------------------------------------------


def test_two_nodes_call_each_other_through_the_codec() -> None:
    async def main() -> None:
        world = World(0)
        adders = []
        for _ in range(2):
            host = world.host()
            adders.append(Adder(host))
            host.start(adders[-1].boot)
        await asyncio.sleep(0.1)
        one, other = world.hosts

        async def ask(host: Host, to: Host) -> int:
            return unpack(int, await host.transport.call(to.address, "add", pack(Sum(2, 3)), deadline=1))

        pairs = ((one, other), (other, one), (one, one))
        assert await asyncio.gather(*(caller.run(ask(caller, to)) for caller, to in pairs)) == [5, 5, 5]
        assert [len(adder.asked) for adder in adders] == [2, 1]
        assert world.network.served == {"add": 3}

    run(main())


def test_an_answer_takes_a_message_each_way() -> None:
    @pair(replace(CALM, least_delay=0.25, delay=0.0))
    async def _(pair: Pair) -> None:
        began = now()
        assert await pair.add(1) == 2
        assert now() - began == pytest.approx(0.5)


def test_an_error_of_the_tree_arrives_as_the_same_class() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        with pytest.raises(NotAMember, match="no such member here"):
            await pair.add(1, "refuse")


def test_messages_overtake_each_other() -> None:
    @pair(replace(CALM, delay=0.05))
    async def _(pair: Pair) -> None:
        await asyncio.gather(*(pair.add(n, deadline=10) for n in range(20)))
        assert sorted(n for _, n in pair.adder.asked) == list(range(20))
        assert [n for _, n in pair.adder.asked] != list(range(20))


def test_only_bytes_are_carried() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        with pytest.raises(AssertionError, match="not bytes"):
            await pair.caller.transport.call(pair.callee.address, "add", "text", deadline=1)  # type: ignore[arg-type]


class HomeMade(RingError):
    """An error that the codec does not know."""


@pytest.mark.parametrize("error", [KeyError("a bug"), HomeMade("made at home"), Moved("there", object())])
def test_a_bug_in_a_receiver_fails_the_run(error: Exception) -> None:
    async def broken(method: str, payload: bytes) -> bytes:
        raise error

    async def boot(host: Host) -> None:
        host.listen(broken)

    async def main() -> None:
        world = World(0)
        host = world.host(boot)
        await asyncio.sleep(0.1)
        with pytest.raises(RingError):
            await world.network.transport(Address("client", 1)).call(host.address, "m", b"", deadline=1)
        pytest.fail("the run went on")

    with pytest.raises(ReceiverFailed):
        run(main())


def test_a_receiver_that_does_not_answer_bytes_fails_the_run() -> None:
    async def broken(method: str, payload: bytes) -> bytes:
        return 1  # type: ignore[return-value]

    async def main() -> None:
        network = World(0).network
        network.listen(Address("a", 1), broken)
        await network.transport(Address("b", 1)).call(Address("a", 1), "m", b"", deadline=1)

    with pytest.raises(ReceiverFailed, match="not bytes"):
        run(main())


# -- lost, refused, doubled --------------------------------------------------------------------------------------


def test_a_lost_request_is_not_served_and_its_outcome_unknown() -> None:
    @pair(replace(CALM, lose_request=1.0))
    async def _(pair: Pair) -> None:
        assert await pair.outcomes(20) == {"OutcomeUnknown"}
        assert pair.adder.asked == []


def test_a_lost_reply_is_served_and_its_outcome_unknown() -> None:
    @pair(replace(CALM, lose_reply=1.0))
    async def _(pair: Pair) -> None:
        assert await pair.outcomes(20) == {"OutcomeUnknown"}
        assert len(pair.adder.asked) == 20


@pytest.mark.parametrize(("reset", "soon"), [(0.0, False), (1.0, True)])
def test_a_loss_is_noticed_at_a_reset_or_at_the_deadline(reset: float, soon: bool) -> None:
    @pair(replace(CALM, lose_request=1.0, reset=reset))
    async def _(pair: Pair) -> None:
        began = now()
        assert await pair.outcome(1) == "OutcomeUnknown"
        assert (now() - began < DEADLINE / 2) == soon
        assert now() - began <= DEADLINE


def test_a_doubled_request_is_served_twice_and_answered_once() -> None:
    @pair(replace(CALM, duplicate=1.0))
    async def _(pair: Pair) -> None:
        assert [await pair.add(n) for n in range(5)] == [1, 2, 3, 4, 5]
        await asyncio.sleep(1)
        assert sorted(n for _, n in pair.adder.asked) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_refused_connection_is_unreachable_at_once() -> None:
    @pair(replace(CALM, refuse=1.0))
    async def _(pair: Pair) -> None:
        began = now()
        assert await pair.outcome(1) == "Unreachable"
        assert now() - began < DEADLINE / 2 and pair.adder.asked == []


def test_a_slow_answer_misses_the_deadline_and_is_ignored() -> None:
    @pair(takes=2.0)
    async def _(pair: Pair) -> None:
        began = now()
        assert await pair.outcome(1) == "OutcomeUnknown"
        assert now() - began == pytest.approx(DEADLINE)
        await asyncio.sleep(5)
        assert len(pair.adder.asked) == 1


def test_a_cancelled_call_is_served_all_the_same() -> None:
    @pair(takes=0.5)
    async def _(pair: Pair) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pair.add(1)
        await asyncio.sleep(1)
        assert len(pair.adder.asked) == 1


# -- cuts --------------------------------------------------------------------------------------------------------


def test_a_partition_is_unreachable_by_the_deadline_if_there_was_no_connection() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        pair.network.partition([pair.caller.address], [pair.callee.address])
        began = now()
        assert await pair.outcome(1) == "Unreachable"
        assert now() - began == pytest.approx(DEADLINE) and pair.adder.asked == []
        pair.network.heal()
        assert await pair.outcome(2) == "answer"
        assert [n for _, n in pair.adder.asked] == [2]


def test_a_partition_leaves_the_outcome_of_calls_on_an_open_connection_unknown_until_it_is_given_up() -> None:
    @pair(replace(CALM, late=0.0, user_timeout=3.5))
    async def _(pair: Pair) -> None:
        assert await pair.outcome(0) == "answer"
        pair.network.partition([pair.caller.address])
        seen = [await pair.outcome(n) for n in range(1, 8)]
        assert seen == ["OutcomeUnknown"] * 4 + ["Unreachable"] * 3
        pair.network.heal()
        assert await pair.outcome(9) == "answer"


def test_requests_caught_by_a_cut_arrive_when_it_heals() -> None:
    @pair(replace(CALM, late=1.0))
    async def _(pair: Pair) -> None:
        assert await pair.outcome(0) == "answer"
        pair.network.partition([pair.caller.address])
        assert await pair.outcome(1) == "OutcomeUnknown"
        await asyncio.sleep(10)
        assert len(pair.adder.asked) == 1
        pair.network.heal()
        await asyncio.sleep(1)
        assert [n for _, n in pair.adder.asked] == [0, 1] and pair.adder.asked[1][0] > 11


def test_a_cut_of_one_way_stops_requests_or_replies() -> None:
    @pair(replace(CALM, late=0.0))
    async def _(pair: Pair) -> None:
        assert await pair.outcome(0) == "answer"
        pair.network.cut(pair.callee.address, pair.caller.address)
        assert await pair.outcome(1) == "OutcomeUnknown"
        pair.network.mend(pair.callee.address, pair.caller.address)
        assert await pair.outcome(2) == "answer"
        pair.network.cut(pair.caller.address, pair.callee.address)
        assert await pair.outcome(3) == "OutcomeUnknown"
        assert [n for _, n in pair.adder.asked] == [0, 1, 2]


def test_groups_reach_themselves_only_and_the_unnamed_are_one_group() -> None:
    async def main() -> None:
        world = World(0)
        hosts = [world.host(Adder(None).boot) for _ in range(6)]  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        world.network.partition([h.address for h in hosts[:2]], [h.address for h in hosts[2:4]])

        async def reaches(caller: Host, to: Host) -> bool:
            try:
                await caller.run(caller.transport.call(to.address, "add", pack(Sum(1, 2)), deadline=1))
            except Unreachable:
                return False
            return True

        answers = await asyncio.gather(*(reaches(a, b) for a in hosts for b in hosts))
        group = [0, 0, 1, 1, 2, 2]
        assert answers == [group[a] == group[b] for a in range(6) for b in range(6)]

    run(main())


# -- pause, crash, silence ---------------------------------------------------------------------------------------


def test_a_paused_node_takes_requests_in_and_serves_them_when_resumed() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        pair.callee.pause()
        began = now()
        assert await pair.outcome(1) == "OutcomeUnknown"
        assert now() - began == pytest.approx(DEADLINE) and pair.adder.asked == []
        await asyncio.sleep(5)
        pair.callee.resume()
        assert await pair.outcome(2) == "answer"
        assert [n for _, n in pair.adder.asked] == [1, 2]


def test_a_paused_caller_learns_the_answer_when_resumed() -> None:
    @pair(takes=0.5)
    async def _(pair: Pair) -> None:
        call = asyncio.create_task(pair.add(1))
        await asyncio.sleep(0.1)
        pair.caller.pause()
        await asyncio.sleep(0.8)
        assert not call.done()
        pair.caller.resume()
        assert await call == 2


@pytest.mark.parametrize(("power", "soon"), [(False, True), (True, False)])
def test_the_crash_of_a_callee_leaves_pending_calls_unknown_at_once_or_by_the_deadline(power: bool, soon: bool) -> None:
    @pair(takes=0.5)
    async def _(pair: Pair) -> None:
        call = asyncio.create_task(pair.outcome(1))
        await asyncio.sleep(0.1)
        pair.callee.crash(power=power)
        began = now()
        assert await call == "OutcomeUnknown"
        assert (now() - began < 0.1) == soon and len(pair.adder.asked) == 1


def test_new_calls_to_a_dead_process_are_refused_at_once() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        assert await pair.outcome(0) == "answer"
        pair.callee.crash()
        began = now()
        assert await pair.outcome(1) == "Unreachable"
        assert now() - began < 0.1


def test_new_calls_to_a_dark_host_run_into_the_deadline() -> None:
    @pair(replace(CALM, user_timeout=1.0))
    async def _(pair: Pair) -> None:
        assert await pair.outcome(0) == "answer"
        pair.callee.crash(power=True)
        began = now()
        seen = [await pair.outcome(n) for n in range(4)]
        assert seen[0] == "OutcomeUnknown" and seen[-1] == "Unreachable"
        assert now() - began == pytest.approx(4 * DEADLINE)


@pytest.mark.parametrize("power", [False, True])
def test_a_restarted_node_answers_and_knows_nothing_of_calls_to_its_former_life(power: bool) -> None:
    @pair(replace(CALM, late=1.0), takes=0.5)
    async def _(pair: Pair) -> None:
        calls = [asyncio.create_task(pair.outcome(n)) for n in (1, 2)]
        await asyncio.sleep(0.1)
        pair.callee.crash(power=power)
        late = asyncio.create_task(pair.outcome(3))
        await asyncio.sleep(0.1)
        pair.callee.start()
        assert await asyncio.gather(*calls) == ["OutcomeUnknown"] * 2
        assert await late == ("OutcomeUnknown" if power else "Unreachable")
        await asyncio.sleep(3)
        assert await pair.outcome(4) == "answer"
        assert sorted(n for _, n in pair.adder.asked) == [1, 2, 4]


def test_a_dead_caller_calls_nobody_and_hears_nothing() -> None:
    @pair(takes=0.5)
    async def _(pair: Pair) -> None:
        call = asyncio.create_task(pair.add(1))
        await asyncio.sleep(0.1)
        pair.caller.crash()
        with pytest.raises(Crashed):
            await call
        await asyncio.sleep(2)
        assert len(pair.adder.asked) == 1
        with pytest.raises(Crashed):
            await pair.add(2)


def test_code_that_crashes_its_own_process_sends_nothing_more() -> None:
    @pair()
    async def _(pair: Pair) -> None:
        seen: list[str] = []

        async def crash_and_call() -> None:
            pair.caller.crash()
            with pytest.raises(Unreachable, match="dead"):
                await pair.caller.transport.call(pair.callee.address, "add", pack(Sum(1, 1)), deadline=1)
            seen.append("refused")

        pair.caller.spawn(crash_and_call())
        await asyncio.sleep(2)
        assert seen == ["refused"] and pair.adder.asked == []


def test_silence_refuses_new_calls_and_answers_those_being_served() -> None:
    @pair(takes=0.5)
    async def _(pair: Pair) -> None:
        call = asyncio.create_task(pair.add(1))
        await asyncio.sleep(0.1)
        pair.network.silence(pair.callee.address)
        assert await pair.outcome(2) == "Unreachable"
        assert await call == 2


def test_a_crash_loses_what_the_disk_had_not_yet_and_keeps_the_rest() -> None:
    async def main() -> None:
        host = World(0).host(idle)
        await asyncio.sleep(0.1)

        async def write(key: bytes) -> None:
            batch = Batch()
            batch.put(name_at(Identifier(1), key), b"body")
            await MemoryStore(host.disk, host.random).commit(batch)

        await host.run(write(b"kept"))
        host.spawn(write(b"lost"))
        await asyncio.sleep(0)
        host.crash()
        await asyncio.sleep(1)
        host.start()
        reborn = MemoryStore(host.disk, host.random)
        names = [name_at(Identifier(1), key) for key in (b"kept", b"lost")]
        assert await reborn.get_many(names) == [b"body", None]

    run(main())


# -- clocks ------------------------------------------------------------------------------------------------------


def test_clocks_drift_jump_and_outlive_their_process() -> None:
    async def main() -> None:
        world = World(0)
        host = world.host(idle)
        clock = host.clock
        await asyncio.sleep(100)
        assert clock() == EPOCH + 100
        clock.run_at(0.01)
        await asyncio.sleep(100)
        assert clock() == pytest.approx(EPOCH + 201)
        clock.jump(-50)
        host.crash()
        host.start()
        assert host.clock() == pytest.approx(EPOCH + 151)
        skewed = World(1, STORMY)
        errors = {skewed.host().clock() - EPOCH - now() for _ in range(10)}
        assert len(errors) == 10 and all(abs(error) <= STORMY.offset for error in errors)

    run(main())


# -- the same again ----------------------------------------------------------------------------------------------


async def gossip(seed: int, faults: Faults) -> tuple[int, list[str], int]:
    """Ten nodes that call each other while others are crashed, paused and cut off."""
    world = World(seed, faults, trace=True)

    async def boot(host: Host) -> None:
        host.listen(Adder(host, takes=0.01).answer)
        while True:
            await asyncio.sleep(host.random.uniform(0.05, 0.15))
            other = host.random.choice(world.hosts)
            try:
                async with asyncio.TaskGroup() as group:
                    for n in range(2):
                        group.create_task(host.transport.call(other.address, "add", pack(Sum(n, 0)), deadline=0.3))
            except* RingError:
                pass

    hosts = [world.host(boot) for _ in range(10)]
    for _ in range(20):
        await asyncio.sleep(0.2)
        victim = world.random.choice(hosts)
        match world.random.randrange(4):
            case 0:
                victim.crash(power=world.random.random() < 0.5)
                victim.start()
            case 1:
                victim.pause()
                virtual_loop().call_later(0.3, lambda victim=victim: victim.alive and victim.resume())
            case 2:
                world.network.partition([host.address for host in world.random.sample(hosts, 4)])
            case 3:
                world.network.heal()
    assert world.network.trace is not None
    return world.network.fingerprint, world.network.trace, virtual_loop().steps


@pytest.mark.parametrize("faults", [CALM, LOSSY, STORMY])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_same_seed_gives_the_same_trace_and_another_seed_another(faults: Faults, shuffle: bool) -> None:
    first = run(gossip(1, faults), seed=1, shuffle=shuffle)
    assert len(first[1]) > 300
    assert run(gossip(1, faults), seed=1, shuffle=shuffle) == first
    assert run(gossip(2, faults), seed=2, shuffle=shuffle) != first


def test_the_trace_is_the_same_in_another_interpreter_with_another_hash_seed() -> None:
    program = "from tests.simulation.test_network import *\nprint(*run(gossip(1, STORMY), seed=1, shuffle=True)[::2])"
    root = Path(__file__).parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_every_outcome_of_a_stormy_network_is_one_of_three() -> None:
    @pair(STORMY)
    async def _(pair: Pair) -> None:
        assert await pair.outcomes(1000) == {"answer", "Unreachable", "OutcomeUnknown"}


def test_an_answer_means_it_was_served_and_unreachable_that_it_was_not() -> None:
    for seed in range(20):

        @pair(STORMY, seed=seed)
        async def _(pair: Pair) -> None:
            for n in range(100):
                outcome = await pair.outcome(n)
                served = sum(asked == n for _, asked in pair.adder.asked)
                assert outcome != "answer" or served >= 1
                assert outcome != "Unreachable" or served == 0
