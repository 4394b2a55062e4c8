"""The virtual loop: asyncio as usual, in no time at all, and the same every time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from node.simulation.loop import Deadlock, OutOfBudget, SimulationError, run, virtual_loop
from node.simulation.process import Crashed, Process, current_process
from node.simulation.seeds import for_each_seed, seeds


def now() -> float:
    return asyncio.get_running_loop().time()


# -- asyncio works -----------------------------------------------------------------------------------------------


def test_an_hour_of_sleep_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return now()

    began = time.monotonic()
    assert run(main()) == 3600
    assert time.monotonic() - began < 1


def test_sleepers_wake_in_the_order_of_their_timers_and_equal_ones_in_the_order_they_were_set() -> None:
    woken: list[str] = []

    async def sleeper(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        woken.append(name)

    async def main() -> None:
        await asyncio.gather(sleeper("c", 3), sleeper("a", 1), sleeper("b", 2), sleeper("b2", 2))

    run(main())
    assert woken == ["a", "b", "b2", "c"]


def test_timeout_and_wait_for_cancel_at_their_deadline() -> None:
    async def main() -> list[float]:
        ended = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.sleep(10)
        ended.append(now())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2)
        ended.append(now())
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        return [*ended, now()]

    assert run(main()) == [1.5, 3.5, 4.5]


def test_a_task_group_cancels_the_others_when_one_fails() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("one of us")

    async def main() -> float:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(100))
                group.create_task(fail())
        return now()

    assert run(main()) == 1


def test_locks_queues_events_and_futures_work() -> None:
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        opened = asyncio.Event()
        lock = asyncio.Lock()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def produce() -> None:
            await opened.wait()
            async with lock:
                for n in range(3):
                    await queue.put(n)
            answer.set_result(42)

        producer = asyncio.create_task(produce())
        asyncio.get_running_loop().call_later(1, opened.set)
        got = [await queue.get() for _ in range(3)]
        await producer
        return [*got, await answer]

    assert run(main()) == [0, 1, 2, 42]


def test_a_cancelled_timer_never_fires_and_does_not_move_the_clock() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(5000):
            loop.call_later(50, pytest.fail, "a cancelled timer fired").cancel()
        await asyncio.sleep(1)
        return now()

    assert run(main()) == 1


def test_async_generators_left_early_are_closed() -> None:
    closed: list[bool] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    run(main())
    assert closed == [True]


def test_there_are_no_threads_and_no_sockets() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(print)
        with pytest.raises(RuntimeError, match="no threads"):
            loop.call_soon_threadsafe(print)
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(NotImplementedError):
            loop.add_reader(0, print)

    run(main())


# -- how a run ends ----------------------------------------------------------------------------------------------


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(main())


def test_tasks_left_over_are_cancelled_and_may_clean_up() -> None:
    ended: list[float] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            ended.append(now())

    async def main() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(1)
        assert not task.done()

    run(main())
    assert ended == [2]


def test_a_task_that_will_not_end_is_an_error() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(1)
        assert not task.done()

    with pytest.raises(OutOfBudget, match="stubborn"):
        run(main(), max_steps=50_000)


def test_an_exception_nobody_asks_for_fails_the_run() -> None:
    async def fail() -> None:
        raise ValueError("unheard")

    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        assert task.done()

    with pytest.raises(ValueError, match="unheard"):
        run(main())


def test_an_exception_that_is_asked_for_late_is_fine_among_thousands_of_tasks() -> None:
    async def fail() -> None:
        raise ValueError("heard")

    async def main() -> None:
        task = asyncio.create_task(fail())
        for _ in range(50):
            await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(100)))
        with pytest.raises(ValueError, match="heard"):
            await task

    run(main())


def test_an_exception_in_a_callback_fails_the_run_at_once() -> None:
    def fail() -> None:
        raise ValueError("in a callback")

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, fail)
        await asyncio.sleep(2)
        pytest.fail("the run went on")

    with pytest.raises(ValueError, match="in a callback"):
        run(main())


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def waits_in_vain() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"main at .*waits_in_vain"):
        run(waits_in_vain())


def test_a_loop_that_makes_no_progress_runs_out_of_budget() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(OutOfBudget, match="20,000 steps"):
        run(spin(), max_steps=20_000)
    with pytest.raises(OutOfBudget, match="0.05 s"):
        run(spin(), max_seconds=0.05)


def test_an_observer_sees_every_step_and_may_fail_the_run() -> None:
    counter = 0

    async def count() -> None:
        nonlocal counter
        for _ in range(10):
            counter += 1
            await asyncio.sleep(1)

    async def main() -> None:
        seen: list[int] = []
        virtual_loop().after_step(lambda: seen.append(counter))
        await count()
        assert sorted(set(seen)) == list(range(1, 11))

        def forbid_twelve() -> None:
            assert counter < 12, "twelve"

        virtual_loop().after_step(forbid_twelve)
        await count()

    with pytest.raises(AssertionError, match="twelve"):
        run(main())
    assert counter == 12


# -- determinism -------------------------------------------------------------------------------------------------


def order_of_twenty(seed: int, shuffle: bool) -> list[int]:
    order: list[int] = []

    async def note(n: int) -> None:
        await asyncio.sleep(0)
        order.append(n)

    async def main() -> None:
        await asyncio.gather(*map(note, range(20)))

    run(main(), seed=seed, shuffle=shuffle)
    return order


def test_calls_run_in_order_and_shuffled_by_the_seed() -> None:
    assert order_of_twenty(1, shuffle=False) == list(range(20))
    shuffled = order_of_twenty(1, shuffle=True)
    assert shuffled != list(range(20)) and sorted(shuffled) == list(range(20))
    assert order_of_twenty(1, shuffle=True) == shuffled
    assert order_of_twenty(2, shuffle=True) != shuffled


def test_sets_of_tasks_are_in_order_of_their_making() -> None:
    def cancelled_order() -> list[int]:
        order: list[int] = []

        async def wait(n: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append(n)

        async def main() -> None:
            tasks = {asyncio.create_task(wait(n)) for n in range(50)}
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        run(main())
        return order

    assert cancelled_order() == cancelled_order() == list(range(50))


def test_what_the_scenario_draws_depends_on_the_seed_alone() -> None:
    async def main() -> float:
        return virtual_loop().random.random()

    assert run(main(), seed=5) == run(main(), seed=5, shuffle=True) != run(main(), seed=6)


# -- processes ---------------------------------------------------------------------------------------------------


def in_process(work: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await work(Process(virtual_loop(), "p"))

    run(main())


async def tick(ticks: list[float]) -> None:
    try:
        while True:
            await asyncio.sleep(1)
            ticks.append(now())
    finally:
        ticks.append(-1)


def test_tasks_and_their_children_belong_to_the_process() -> None:
    async def work(process: Process) -> None:
        owners: list[Process | None] = []

        async def child() -> None:
            asyncio.get_running_loop().call_later(1, lambda: owners.append(current_process()))
            await asyncio.sleep(2)
            owners.append(current_process())

        async def parent() -> None:
            await asyncio.create_task(child())

        await process.spawn(parent())
        assert owners == [process, process] and current_process() is None

    in_process(work)


def test_timers_of_a_paused_process_fire_late_and_in_order() -> None:
    async def work(process: Process) -> None:
        fired: list[tuple[str, float]] = []

        async def node() -> None:
            def fire(name: str) -> None:
                fired.append((name, now()))

            for name, delay in (("b", 3), ("a", 2), ("c", 20)):
                asyncio.get_running_loop().call_later(delay, fire, name)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(4):
                    await asyncio.sleep(100)
            fired.append(("timeout", now()))

        process.spawn(node())
        await asyncio.sleep(1)
        process.pause()
        await asyncio.sleep(9)
        assert fired == []
        process.resume()
        await asyncio.sleep(50)
        assert fired == [("a", 10), ("b", 10), ("timeout", 10), ("c", 20)]

    in_process(work)


def test_a_killed_process_runs_nothing_more_not_even_finally() -> None:
    async def work(process: Process) -> None:
        ticks: list[float] = []
        task = process.spawn(tick(ticks))
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(10)
        assert ticks == [1, 2] and not task.done()
        with pytest.raises(Crashed):
            process.spawn(tick(ticks))

    in_process(work)


def test_a_process_killed_before_it_could_ask_is_not_blamed_for_what_failed() -> None:
    async def work(process: Process) -> None:
        async def fail() -> None:
            process.kill()
            raise ValueError("unheard")

        async def parent() -> None:
            await asyncio.gather(fail())

        process.spawn(parent())
        await asyncio.sleep(1)

    in_process(work)


def test_a_process_killed_while_paused_stays_dead() -> None:
    async def work(process: Process) -> None:
        ticks: list[float] = []
        process.spawn(tick(ticks))
        await asyncio.sleep(1.5)
        process.pause()
        await asyncio.sleep(2)
        process.kill()
        process.resume()
        await asyncio.sleep(5)
        assert ticks == [1]

    in_process(work)


def test_who_waits_for_work_of_a_process_learns_that_it_was_killed() -> None:
    async def work(process: Process) -> None:
        async def add(a: int, b: int) -> int:
            await asyncio.sleep(1)
            return a + b

        assert await process.run(add(1, 2)) == 3
        asyncio.get_running_loop().call_later(0.5, process.kill)
        with pytest.raises(Crashed):
            await process.run(add(1, 2))

    in_process(work)


def test_a_run_may_end_with_processes_paused_and_dead() -> None:
    async def main() -> None:
        for end in (Process.pause, Process.kill):
            process = Process(virtual_loop(), "p")
            process.spawn(tick([]))
            await asyncio.sleep(1)
            end(process)

    run(main())


# -- seeds -------------------------------------------------------------------------------------------------------


async def fails_at_seven(seed: int) -> None:
    await asyncio.sleep(1)
    assert seed != 7, "unlucky"


def test_a_failure_names_its_seed_and_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPYCHORD_SEED", raising=False)
    for_each_seed(7, fails_at_seven)
    with pytest.raises(AssertionError, match=r"^seed 7: AssertionError: unlucky(.|\n)*RPYCHORD_SEED=7") as caught:
        for_each_seed(3, fails_at_seven, first=5)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_the_environment_says_which_seeds_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPYCHORD_SEED", "7")
    with pytest.raises(AssertionError, match="seed 7"):
        for_each_seed(1, fails_at_seven)
    monkeypatch.setenv("RPYCHORD_SEED", "100-200")
    assert seeds(5) == range(100, 201)
    monkeypatch.setenv("RPYCHORD_SEED", "")
    assert seeds(5, first=2) == range(2, 7)


def test_a_simulation_error_carries_its_seed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPYCHORD_SEED", raising=False)

    async def stuck(seed: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="seed 0: Deadlock") as caught:
        for_each_seed(1, stuck)
    assert isinstance(caught.value.__cause__, SimulationError)
