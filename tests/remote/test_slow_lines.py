"""Claims about slow lines: what is large and on its way is waited for, what is silent is not."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from node.codec import Address
from node.errors import OutcomeUnknown
from node.remote.connection import Connection
from node.remote.exposure import Exposure
from node.remote.line import Lines
from node.remote.listener import Listener
from node.remote.pool import Pool, answer
from node.remote.wire import Wire
from tests.remote.ends import HOST, failure_of, run, settings

pytestmark = pytest.mark.usefixtures("loops")

KIB = 1024
PIECE = 16 * KIB
LIMITS = settings(operation=20.0)


class Blobs:
    """A node that answers with as many bytes as it is asked for, or keeps what it is sent."""

    async def exposed_call(self, method: Any, payload: Any) -> bytes:
        return await answer(self.receive, method, payload)

    async def receive(self, method: str, payload: bytes) -> bytes:
        if method == "get":
            return bytes(int(payload))
        if method == "hang":
            await asyncio.Event().wait()
        return b"%d" % len(payload)


class SlowLine:
    """Carries bytes in both directions, so many a second each way; nothing at all while it is `stuck`."""

    def __init__(self, to: int, rate: float) -> None:
        self._to = to
        self._rate = rate
        self.stuck = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection(HOST, self._to, limit=PIECE)
        for source, sink in ((reader, far), (near, writer)):
            sink.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(PIECE):
                if self.stuck.is_set():
                    await asyncio.Event().wait()
                sink.write(data)
                await sink.drain()
                await asyncio.sleep(len(data) / self._rate)
        sink.close()

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def slowly(rate: float) -> AsyncIterator[tuple[Address, SlowLine, Pool]]:
    """A pool, and where it reaches blobs over a line of so many bytes a second."""
    async with Listener(LIMITS, HOST, 0, Blobs()) as listener:
        line = SlowLine(listener.port, rate)
        entrance = socket.create_server((HOST, 0))
        entrance.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)  # what is on the line is not there yet
        server = await asyncio.start_server(line.accept, sock=entrance, limit=PIECE)
        pool = Pool(LIMITS, random.Random(7))
        try:
            yield Address(HOST, entrance.getsockname()[1]), line, pool
        finally:
            await pool.close()
            line.end()
            server.close()


def test_large_answers_that_come_slowly_are_waited_for() -> None:
    async def scenario() -> None:
        async with slowly(2048 * KIB) as (to, _, pool):
            asked = [pool.call(to, "get", b"%d" % (768 * KIB), deadline=0.8) for _ in range(4)]
            assert [len(got) for got in await asyncio.gather(*asked)] == 4 * [768 * KIB]

    run(scenario())


def test_large_requests_that_leave_slowly_are_waited_for() -> None:
    async def scenario() -> None:
        async with slowly(2048 * KIB) as (to, _, pool):
            sent = [pool.call(to, "put", bytes(768 * KIB), deadline=0.8) for _ in range(4)]
            assert await asyncio.gather(*sent) == 4 * [b"%d" % (768 * KIB)]

    run(scenario())


def test_a_request_that_left_between_two_looks_was_on_its_way_until_the_second() -> None:
    class Kernel:
        """Keeps as much as it is told to."""

        keeps = 0

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

        def get_write_buffer_size(self) -> int:
            return self.keeps

        def get_extra_info(self, name: str) -> Any:
            return self if name == "socket" else None

        def fileno(self) -> int:
            raise ValueError("no socket")

    async def scenario() -> None:
        loop, kernel = asyncio.get_running_loop(), Kernel()
        wire = Wire(Connection(LIMITS, Exposure(None)), LIMITS)
        wire._transport = kernel  # type: ignore[assignment]
        kernel.keeps = 768 * KIB
        wire.send(bytes(kernel.keeps))
        await asyncio.sleep(0.05)
        left = loop.time()
        kernel.keeps = 0
        assert wire.moved() >= left
        assert wire.moved() == wire.moved() <= loop.time(), "and nothing is any more"

    run(scenario())


def test_what_is_silent_is_waited_for_no_longer_than_its_deadline() -> None:
    async def scenario() -> None:
        async with slowly(2048 * KIB) as (to, line, pool):
            loop = asyncio.get_running_loop()
            assert await pool.call(to, "get", b"10", deadline=5) == bytes(10)
            began = loop.time()
            assert isinstance(await failure_of(pool.call(to, "hang", b"", deadline=0.5)), OutcomeUnknown)
            assert loop.time() - began < 3
            large = asyncio.create_task(failure_of(pool.call(to, "get", b"%d" % (6000 * KIB), deadline=0.8)))
            await asyncio.sleep(1.2)
            assert not large.done(), "it is on its way"
            line.stuck.set()
            stopped = loop.time()
            assert isinstance(await large, OutcomeUnknown)
            assert loop.time() - stopped < 3, "it came no further"

    run(scenario())


def test_a_line_so_slow_that_it_takes_an_operation_longer_than_it_may_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with slowly(256 * KIB) as (to, _, pool):
            pool._settings = settings(operation=1.2)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert isinstance(
                await failure_of(pool.call(to, "get", b"%d" % (6000 * KIB), deadline=0.5)), OutcomeUnknown
            )
            assert 1 < loop.time() - began < 6

    run(scenario())


def test_a_thread_waits_for_large_answers_and_requests_too_and_not_for_ever() -> None:
    async def scenario() -> None:
        async with slowly(2048 * KIB) as (to, _, pool):

            def ask(lines: Lines, method: str, payload: bytes) -> int:
                try:
                    lines.call(to, method, payload, deadline=0.8).send(None)
                except StopIteration as done:
                    return len(done.value)
                except OutcomeUnknown:
                    return 0
                finally:
                    lines.close()
                raise AssertionError("it waited for a loop")

            size = 2200 * KIB
            assert await asyncio.to_thread(ask, Lines(pool, LIMITS, None), "get", b"%d" % size) == size
            assert await asyncio.to_thread(ask, Lines(pool, LIMITS, None), "put", bytes(size)) == len(b"%d" % size)
            brief = settings(operation=1.0)
            assert not await asyncio.to_thread(ask, Lines(pool, brief, None), "get", b"%d" % (2 * size))

    run(scenario())
