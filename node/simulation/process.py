"""A simulated process: whose code is running, and may it run now?

A process is known by the contextvars context of its tasks, which every task, timer and callback they make inherits. So
the loop can hold back all that belongs to a paused process, late timers included, as SIGSTOP does, and drop all that
belongs to a killed one, without a `finally` being run, as SIGKILL does. No network and no disk here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from node.simulation.loop import Call, VirtualLoop

T = TypeVar("T")


class Crashed(Exception):
    """The process was killed before what was asked of it was done: it may or may not have happened."""


class State(Enum):
    """What the loop does with the calls of a process: run them, hold them back, drop them."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class Process:
    """One life of a node's process, from its start until it is killed. A restarted node is a new Process."""

    __slots__ = ("_context", "_held", "_loop", "death", "halted", "name", "state")

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.halted = False
        """Not running: what the loop asks at every step."""
        self.death: asyncio.Future[None] = loop.create_future()
        """Done as soon as the process is killed."""
        self._loop = loop
        self._held: list[Call] = []
        self._context = Context()
        self._context.run(CURRENT.set, self)

    @property
    def alive(self) -> bool:
        """Running or paused."""
        return self.state is not State.DEAD

    def context(self) -> Context:
        """A context that belongs to this process."""
        return self._context.copy()

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Start a task that lives and dies with the process."""
        if not self.alive:
            work.close()
            raise Crashed(f"{self.name} is dead and runs nothing")
        return self._loop.create_task(work, name=name, context=self.context())

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work done by the process, from outside of it. Raises Crashed if the process is killed meanwhile."""
        task = self.spawn(work)
        ended = self._loop.create_future()

        def end(_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        task.add_done_callback(end)
        self.death.add_done_callback(end)
        try:
            await ended
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self.death.remove_done_callback(end)
        if task.done():
            return task.result()
        raise Crashed(f"{self.name} was killed")

    def pause(self) -> None:
        """Run nothing of the process until it is resumed (SIGSTOP)."""
        if self.state is State.RUNNING:
            self.state, self.halted = State.PAUSED, True

    def resume(self) -> None:
        """Go on (SIGCONT): what came due meanwhile runs now, in the order in which it came due."""
        if self.state is State.PAUSED:
            self.state, self.halted = State.RUNNING, False
            held, self._held = self._held, []
            self._loop.take_back(held)

    def kill(self) -> None:
        """Never run anything of the process again (SIGKILL)."""
        if self.alive:
            self.state, self.halted = State.DEAD, True
            self._held.clear()
            self.death.set_result(None)

    def hold(self, call: Call) -> None:
        """Called by the loop in place of running `call` while the process is halted."""
        if self.state is State.PAUSED:
            self._held.append(call)

    def __repr__(self) -> str:
        return f"<{self.name}, {self.state.value}>"


CURRENT: ContextVar[Process] = ContextVar("process")


def current_process() -> Process | None:
    """The process whose code runs now; None in the code of the test itself."""
    return CURRENT.get(None)
