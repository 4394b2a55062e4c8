"""Hosts of a simulation: an address, a disk, a clock, and the process that runs there until it is crashed.

Thin on purpose: what a node is, only `boot` knows, a coroutine function that is handed its host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from node.codec import Address
from node.simulation.clock import Clock
from node.simulation.faults import CALM, Faults
from node.simulation.loop import virtual_loop
from node.simulation.network import Network
from node.simulation.process import Crashed, Process
from node.transport import Receiver, Transport

if TYPE_CHECKING:
    from node.store.memory import MemoryDisk

T = TypeVar("T")
Boot = Callable[["Host"], Coroutine[Any, Any, Any]]
PORT = 18861


class World:
    """A network and its hosts, all of one seed."""

    def __init__(self, seed: int, faults: Faults = CALM, *, trace: bool = False) -> None:
        self.random = Random(f"world {seed}")
        self.network = Network(Random(f"network {seed}"), faults, trace=trace)
        self.hosts: list[Host] = []

    def host(self, boot: Boot | None = None) -> Host:
        """One more host; `boot`, if given, is started on it."""
        number = len(self.hosts) + 1
        address = Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", PORT)
        host = Host(self, f"host {number}", address)
        self.hosts.append(host)
        if boot is not None:
            host.start(boot)
        return host


class Host:
    """One machine. Its disk and clock outlive its processes."""

    def __init__(self, world: World, name: str, address: Address) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.random = Random(f"{name} {world.random.random()}")
        """What the node is given to draw from."""
        self.process: Process | None = None
        self.boots = 1
        """How often the machine was switched on."""
        self._boot: Boot | None = None
        self._disk: MemoryDisk | None = None

    def __repr__(self) -> str:
        return f"<{self.name} {self.address}, {self.process.state.value if self.process else 'off'}>"

    @property
    def alive(self) -> bool:
        """True if a process runs here, or is paused."""
        return self.process is not None and self.process.alive

    @property
    def disk(self) -> MemoryDisk:
        """The disk, made on first use."""
        if self._disk is None:
            from node.store.memory import MemoryDisk

            self._disk = MemoryDisk()
        return self._disk

    @property
    def transport(self) -> Transport:
        """How the node here calls others."""
        return self.world.network.transport(self.address)

    @property
    def clock(self) -> Clock:
        """The wall clock here."""
        return self.world.network.clock(self.address)

    def listen(self, receiver: Receiver) -> None:
        """Answer calls to this host; call it from code of the process (`boot`)."""
        self.world.network.listen(self.address, receiver)

    def start(self, boot: Boot | None = None) -> None:
        """Start a process that runs `boot(self)`; without one, the same as last time."""
        if self.alive:
            raise RuntimeError(f"{self!r} runs already")
        self._boot = boot or self._boot
        self.world.network.plug(self.address)
        self.process = Process(virtual_loop(), self.name)
        if self._boot is not None:
            self.process.spawn(self._boot(self), name=f"boot of {self.name}")

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task of the process here. Raises Crashed if none runs."""
        if self.process is None:
            work.close()
            raise Crashed(f"{self.name} was never started")
        return self.process.spawn(work)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work done by the process here. Raises Crashed if none runs, or if it is killed meanwhile."""
        if self.process is None:
            work.close()
            raise Crashed(f"{self.name} was never started")
        return await self.process.run(work)

    def pause(self) -> None:
        """SIGSTOP."""
        self._running().pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._running().resume()

    def crash(self, *, power: bool = False) -> None:
        """Kill the process; with `power` the whole host goes dark, its page cache with it, until it is started."""
        self._running().kill()
        if power:
            self.boots += 1
            self.world.network.unplug(self.address)
        self.world.network.crash(self.address)
        if self._disk is not None:
            self._disk.crash(power=power)

    def _running(self) -> Process:
        if self.process is None or not self.process.alive:
            raise Crashed(f"{self.name} runs nothing")
        return self.process
