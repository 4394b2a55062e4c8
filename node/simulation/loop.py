"""An asyncio event loop with a virtual clock: no threads, no sockets, no waiting, and the same run for the same seed.

Time stands still while anything is ready to run and jumps to the next timer when nothing is. Tasks, futures, timeouts
and task groups are asyncio's own. The loop knows processes (node.simulation.process) and nothing of networks or disks.
Calls run in the order they were made; with `shuffle` the seed chooses among all that are ready, which finds code
that relies on an order that nobody promised.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, NoReturn, TypeVar

from node.simulation.process import CURRENT, Process

T = TypeVar("T")
Callback = Callable[..., Any]

CHECK_EVERY = 4096
"""Steps between two looks at the budgets."""
YOUNG = 50_000
"""Objects that may be new before the garbage collector looks at them: Python's 700 are a tenth of the time of a run."""
SHUTDOWN_STEPS = 1_000_000
"""How many steps cancelled tasks may take to end."""


class SimulationError(Exception):
    """The run itself went wrong; what it was about to find out is not known."""


class Deadlock(SimulationError):
    """Nothing is ready, no timer is set, and the main task is not done."""


class OutOfBudget(SimulationError):
    """The run took more steps or more real time than it was given."""


class Call(asyncio.TimerHandle):
    """A callback waiting for its turn or its time. Lighter than asyncio's own; `callback` is None once cancelled."""

    __slots__ = ("args", "callback", "context", "due", "loop")
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __init__(
        self, loop: VirtualLoop, due: float, callback: Callback, args: tuple[Any, ...], context: Context | None
    ) -> None:
        self.loop = loop
        self.due = due
        self.callback: Callback | None = callback
        self.args = args
        self.context = copy_context() if context is None else context

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self.loop.cancelled_calls += 1

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.due

    def __repr__(self) -> str:
        return f"<call of {self.callback} at {self.due}>"


class VirtualTask(asyncio.Task[T]):
    """A task whose hash is its number, so that the order of a set of tasks (asyncio.wait, TaskGroup) is the seed's."""

    def __init__(self, number: int, work: Coroutine[Any, Any, T], **options: Any) -> None:
        self.number = number
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualFuture(asyncio.Future[Any]):
    """A future whose hash is its number, for the same reason."""

    def __init__(self, number: int, loop: VirtualLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. Made by `run`; use `asyncio.get_running_loop()` or `virtual_loop()` inside."""

    def __init__(
        self, seed: int = 0, *, shuffle: bool = False, max_steps: int = 100_000_000, max_seconds: float = 120.0
    ) -> None:
        self._stopping = self._turning = False
        super().__init__()
        self.random = Random(f"scenario {seed}")
        """For the scenario: what it draws does not depend on what the loop draws."""
        self.steps = 0
        self.failures: list[BaseException] = []
        self.cancelled_calls = 0
        self._chance = Random(f"order {seed}").random if shuffle else None
        self._now = 0.0
        self._soon: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._count = 0
        self._tasks: dict[asyncio.Task[Any], Process | None] = {}
        self._sweep_at = 1024
        self._observers: list[Callable[[], None]] = []
        self._max_steps, self._max_seconds = max_steps, max_seconds
        self._began = time.monotonic()
        self._next_check = CHECK_EVERY
        self.set_exception_handler(_record_failure)

    # -- the clock and the queue ---------------------------------------------------------------------------------

    get_debug = staticmethod(bool)
    """No: every future asks, and this answers without a line of Python."""

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callback, *args: Any, context: Context | None = None) -> Call:  # type: ignore[override]
        call = Call(self, self._now, callback, args, context)
        self._soon.append(call)
        return call

    def call_at(self, when: float, callback: Callback, *args: Any, context: Context | None = None) -> Call:  # type: ignore[override]
        call = Call(self, when, callback, args, context)
        self._count += 1
        heappush(self._timers, (when, self._count, call))
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> Call:
        due = self._now + delay
        call = Call(self, due, callback, args, context)
        self._count += 1
        heappush(self._timers, (due, self._count, call))
        return call

    def take_back(self, held: Iterable[Call]) -> None:
        """Queue calls that a paused process kept."""
        self._soon.extend(held)

    def after_step(self, observer: Callable[[], None]) -> None:
        """Call `observer` after every step (one callback, one advance of one task). What it raises fails the run."""
        self._observers.append(observer)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """As asyncio does, but the loop keeps every task: garbage collection does not obey a seed."""
        self._count += 1
        task = VirtualTask(self._count, coro, loop=self, name=name or f"task {self._count}", context=context)
        self._tasks[task] = CURRENT.get(None) if context is None else context.get(CURRENT)
        if len(self._tasks) > self._sweep_at:
            self._sweep()
        return task

    def create_future(self) -> asyncio.Future[Any]:
        self._count += 1
        return VirtualFuture(self._count, self)

    # -- running -------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """End the run: `error` is what it will raise."""
        self.failures.append(error)
        self._stopping = True

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._turning

    def run_forever(self) -> None:
        """Run until stopped. Raises Deadlock if nothing can happen any more, OutOfBudget if it takes too long."""
        if self._turning:
            raise RuntimeError("this loop is running already")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=self._close_generator)
        _set_running_loop(self)
        self._stopping, self._turning = False, True
        try:
            self._turn()
        finally:
            self._turning = False
            _set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def drive(self, task: asyncio.Task[Any]) -> None:
        """Run until the task is done, or something failed."""
        task.add_done_callback(lambda _: self.stop())
        self.run_forever()

    def _turn(self) -> None:
        soon, observers = self._soon, self._observers
        while not self._stopping:
            if not soon:
                self._advance()
                continue
            call = soon.popleft() if self._chance is None else self._draw(self._chance)
            callback = call.callback
            if callback is None:
                continue
            process = call.context.get(CURRENT)
            if process is not None and process.halted:
                process.hold(call)
                continue
            self.steps += 1
            try:
                call.context.run(callback, *call.args)
                for observer in observers:
                    observer()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is ends the run with it
                self.fail(error)
            if self.steps >= self._next_check:
                self._check_budget()

    def _draw(self, chance: Callable[[], float]) -> Call:
        """Any of the ready calls."""
        soon = self._soon
        i = int(chance() * len(soon))
        soon[i], soon[-1] = soon[-1], soon[i]
        return soon.pop()

    def _advance(self) -> None:
        """Move the clock to the next timer, and all that is due then to the queue."""
        timers = self._timers
        if self.cancelled_calls > 1000 and self.cancelled_calls * 2 > len(timers):
            timers[:] = [timer for timer in timers if timer[2].callback is not None]
            heapify(timers)
            self.cancelled_calls = 0
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if not timers:
            raise Deadlock(f"at {self._now:.6f} s nothing can happen any more; waiting: {self._waiting()}")
        self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._soon.append(heappop(timers)[2])

    def _check_budget(self) -> None:
        self._next_check = self.steps + CHECK_EVERY
        spent = time.monotonic() - self._began
        if self.steps > self._max_steps or spent > self._max_seconds:
            raise OutOfBudget(
                f"not done after {self.steps:,} steps and {spent:.1f} s, at {self._now:.6f} virtual seconds "
                f"(allowed: {self._max_steps:,} steps, {self._max_seconds} s); waiting: {self._waiting()}"
            )

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Cancel what is left, and let it end."""
        left = [task for task, process in self._tasks.items() if not task.done() and not (process and process.halted)]
        for task in left:
            task.cancel()
        if left:
            self._max_steps = min(self._max_steps, self.steps + SHUTDOWN_STEPS)
            self.drive(self.create_task(asyncio.wait(left)))
        for task, process in self._tasks.items():
            if task.done() and _unasked(task) and (process is None or process.alive):  # the dead cannot ask any more
                error = task.exception()
                assert error is not None
                error.add_note(f"raised by {task.get_name()!r}, whose result nobody asked for")
                self.fail(error)

    def bury(self) -> None:
        """Close the coroutines that will never run again. What their `finally` blocks do no longer counts."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException):
                    coroutine = task.get_coro()
                    if coroutine is not None:
                        coroutine.close()
        self._tasks.clear()
        self._soon.clear()
        self._timers.clear()

    def _sweep(self) -> None:
        """Forget tasks that are done, but for failed ones that nobody has asked yet."""
        kept = {task: process for task, process in self._tasks.items() if not task.done() or _unasked(task)}
        self._tasks = kept
        self._sweep_at = 2 * len(kept) + 1024

    def _waiting(self) -> str:
        """The tasks that are not done and the line each waits at, for people."""
        lines = []
        for task, process in self._tasks.items():
            if not task.done() and (process is None or process.alive):
                stack = task.get_stack(limit=1)
                place = f"{stack[0].f_code.co_qualname}:{stack[0].f_lineno}" if stack else "its start"
                lines.append(f"{task.get_name()} at {place}" + (f" in {process!r}" if process else ""))
        shown = lines[:20]
        return "; ".join(shown) + (f"; and {len(lines) - len(shown)} more" if len(lines) > len(shown) else "")

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._turning:
            self.call_soon(self.create_task, generator.aclose())

    # -- what a virtual loop does not have -----------------------------------------------------------------------

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callback, *args: Any, context: Context | None = None
    ) -> NoReturn:
        raise RuntimeError("there are no threads in a simulation")

    def run_in_executor(self, executor: Any, func: Callback, *args: Any) -> NoReturn:  # type: ignore[override]
        raise RuntimeError(f"there are no threads in a simulation: {func} may not be run in one")


def _unasked(task: asyncio.Task[Any]) -> bool:
    """True if a task failed and nobody has taken its exception: what asyncio would complain about on collection."""
    return bool(task._log_traceback)


def _record_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The exception handler: what asyncio would log fails the run."""
    assert isinstance(loop, VirtualLoop)
    loop.fail(context.get("exception") or SimulationError(context["message"]))


def virtual_loop() -> VirtualLoop:
    """The loop of the simulation that runs now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def run(
    main: Coroutine[Any, Any, T],
    *,
    seed: int = 0,
    shuffle: bool = False,
    max_steps: int = 100_000_000,
    max_seconds: float = 120.0,
) -> T:
    """Run `main` on a new virtual loop and return its result; tasks it leaves behind are cancelled.

    Raises what `main` raises, what a callback, observer or forgotten task raised, Deadlock, or OutOfBudget.
    """
    loop = VirtualLoop(seed, shuffle=shuffle, max_steps=max_steps, max_seconds=max_seconds)
    thresholds = gc.get_threshold()
    gc.set_threshold(YOUNG, *thresholds[1:])
    try:
        task = loop.create_task(main, name="main")
        loop.drive(task)
        if task.done():
            result = task.result()
            if not loop.failures:
                loop.finish()
        if loop.failures:
            raise loop.failures[0]
        return result
    finally:
        loop.bury()
        loop.close()
        gc.set_threshold(*thresholds)
