"""Claims of the pool: one connection an address, made when needed, and errors that say whether anything was sent."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import rpyc

from node.codec import Address
from node.errors import BadValue, Moved, NotARing, OutcomeUnknown, Overloaded, RingError, Unreachable
from node.remote import pool as pools
from node.remote.listener import Listener
from node.remote.pool import Pool, answer
from node.settings import Settings
from tests.ports import free_port
from tests.remote.ends import HOST, PATIENCE, SETTINGS, eventually, failure_of, run, settings, stock_server

pytestmark = pytest.mark.usefixtures("loops")


class Callee:
    """A node as others call it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.calls = 0

    async def exposed_call(self, method: Any, payload: Any) -> bytes:
        return await answer(self.receive, method, payload)

    async def receive(self, method: str, payload: bytes) -> bytes:
        self.calls += 1
        if method == "moved":
            raise Moved("ask another", (HOST, 5))
        if method == "odd":
            raise BadValue("odd", object())
        if method == "fail":
            raise ZeroDivisionError("secret detail")
        if method == "wait":
            await self.gate.wait()
        return method.encode() + payload


@asynccontextmanager
async def served(callee: object, port: int = 0) -> AsyncIterator[Listener]:
    async with Listener(SETTINGS, HOST, port, callee) as listener:
        yield listener


@asynccontextmanager
async def pooled(limits: Settings = SETTINGS) -> AsyncIterator[Pool]:
    pool = Pool(limits, random.Random(7))
    try:
        yield pool
    finally:
        await pool.close()


def test_callers_share_one_connection_made_once() -> None:
    async def scenario() -> None:
        async with served(Callee()) as listener, pooled() as pool:
            to = Address(HOST, listener.port)
            results = await asyncio.gather(*(pool.call(to, "m", bytes([i]), deadline=5) for i in range(100)))
            assert results == [b"m" + bytes([i]) for i in range(100)]
            assert listener.connections == 1

    run(scenario())


def test_errors_of_the_callee_come_out_as_they_were() -> None:
    async def scenario() -> None:
        async with served(Callee()) as listener, pooled() as pool:
            to = Address(HOST, listener.port)
            error = await failure_of(pool.call(to, "moved", b"", deadline=5))
            assert type(error) is Moved
            assert error.args[0] == "ask another"
            assert tuple(error.args[1]) == (HOST, 5)
            assert type(await failure_of(pool.call(to, "odd", b"", deadline=5))) is BadValue
            error = await failure_of(pool.call(to, "fail", b"", deadline=5))
            assert type(error) is RingError
            assert "secret" not in str(error)

    run(scenario())


@pytest.mark.parametrize(("method", "payload"), [(b"m", b""), ("m", "text"), (1, 2)])
def test_an_envelope_is_a_name_and_bytes(method: Any, payload: Any) -> None:
    assert type(run(failure_of(Callee().exposed_call(method, payload)))) is BadValue


def test_an_expired_call_is_of_unknown_outcome_and_the_connection_stays() -> None:
    async def scenario() -> None:
        callee = Callee()
        async with served(callee) as listener, pooled() as pool:
            to = Address(HOST, listener.port)
            assert type(await failure_of(pool.call(to, "wait", b"", deadline=0.1))) is OutcomeUnknown
            assert await pool.call(to, "m", b"", deadline=5) == b"m"
            assert listener.connections == 1

    run(scenario())


def test_a_peer_that_came_back_is_reached_at_once() -> None:
    async def scenario() -> None:
        async with pooled(settings(backoff_limit=0.0, backoff=1000.0)) as pool:
            port = 0
            for _ in range(5):
                async with served(Callee(), port) as listener:
                    port = listener.port
                    assert await pool.call(Address(HOST, port), "m", b"", deadline=5) == b"m"
                await eventually(lambda: pool._peers[Address(HOST, port)].connection.closed)  # type: ignore[union-attr]

    run(scenario())


def test_within_the_back_off_nothing_is_tried_and_after_it_the_peer_is_found_again() -> None:
    async def scenario() -> None:
        port = free_port()
        to = Address(HOST, port)
        async with pooled(settings(backoff=0.5, backoff_limit=0.5)) as pool:
            assert type(await failure_of(pool.call(to, "m", b"", deadline=5))) is Unreachable
            callee = Callee()
            async with served(callee, port) as listener:
                error = await failure_of(pool.call(to, "m", b"", deadline=5))
                assert type(error) is Unreachable
                assert "nobody listens" in str(error), "the reason of the last attempt"
                assert listener.connections == 0
                while True:
                    try:
                        assert await pool.call(to, "m", b"", deadline=5) == b"m"
                        break
                    except Unreachable:
                        await asyncio.sleep(0.02)
                assert callee.calls == 1

    run(scenario())


def test_a_peer_that_dies_fails_calls_at_once() -> None:
    async def scenario() -> None:
        callee = Callee()
        async with pooled() as pool:
            async with served(callee) as listener:
                to = Address(HOST, listener.port)
                calls = [asyncio.create_task(pool.call(to, "wait", b"", deadline=3600)) for _ in range(20)]
                await eventually(lambda: callee.calls == 20)
            for call in calls:
                assert type(await failure_of(_result(call))) is OutcomeUnknown

    run(scenario())


async def _result(task: asyncio.Task[Any]) -> Any:
    return await task


def test_a_foreign_service_is_no_ring() -> None:
    async def scenario(port: int) -> None:
        async with pooled() as pool:
            assert type(await failure_of(pool.call(Address(HOST, port), "m", b"", deadline=5))) is NotARing

    with stock_server() as port:
        run(scenario(port))


def test_a_service_whose_call_answers_otherwise_is_no_ring() -> None:
    class Other:
        def exposed_call(self, method: str, payload: bytes) -> Any:
            return {"text": "text", "none": None, "bytes": b"\x07", "empty": b""}[method]

    async def scenario() -> None:
        async with served(Other()) as listener, pooled() as pool:
            for method in ("text", "none", "bytes", "empty"):
                error = await failure_of(pool.call(Address(HOST, listener.port), method, b"", deadline=5))
                assert type(error) is NotARing

    run(scenario())


def test_a_stopped_process_is_unreachable_to_newcomers_and_of_unknown_outcome_to_those_connected() -> None:
    program = (
        "import asyncio\n"
        "from node.remote.listener import Listener\n"
        "from node.settings import Settings\n"
        "class Root:\n"
        "    def exposed_call(self, method, payload):\n"
        "        return b'\\0' + payload\n"
        "async def main():\n"
        "    async with Listener(Settings(), '127.0.0.1', 0, Root()) as listener:\n"
        "        print(listener.port, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    project = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=project)
    try:
        assert process.stdout is not None
        to = Address(HOST, int(process.stdout.readline()))

        async def scenario() -> None:
            async with pooled() as known, pooled(settings(connect=0.3)) as stranger:
                assert await known.call(to, "m", b"x", deadline=5) == b"x"
                os.kill(process.pid, signal.SIGSTOP)
                assert type(await failure_of(known.call(to, "m", b"x", deadline=0.3))) is OutcomeUnknown
                assert type(await failure_of(stranger.call(to, "m", b"x", deadline=5))) is Unreachable
                assert type(await failure_of(stranger.call(to, "m", b"x", deadline=5))) is Unreachable
                os.kill(process.pid, signal.SIGCONT)
                assert await known.call(to, "m", b"x", deadline=PATIENCE) == b"x"

        run(scenario())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_closing_never_blocks_and_fails_what_is_under_way() -> None:
    async def scenario() -> None:
        callee = Callee()
        silent = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
        async with served(callee) as listener:
            pool = Pool(SETTINGS, random.Random(7))
            quiet = Address(HOST, silent.sockets[0].getsockname()[1])
            to = Address(HOST, listener.port)
            waiting = asyncio.create_task(pool.call(to, "wait", b"", deadline=3600))
            connecting = asyncio.create_task(pool.call(quiet, "m", b"", deadline=3600))
            await eventually(lambda: callee.calls == 1)
            await pool.close()
            assert type(await failure_of(_result(waiting))) is OutcomeUnknown
            assert type(await failure_of(_result(connecting))) is Unreachable
            assert type(await failure_of(pool.call(to, "m", b"", deadline=5))) is Unreachable
            await eventually(lambda: not callee.gate.is_set() and all(c.closed for c in listener._connections))
        silent.close()

    run(scenario())


def test_the_number_of_connections_is_bounded_and_unused_ones_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOST", 3)
    monkeypatch.setattr(pools, "TIDY", 0.05)

    async def scenario() -> None:
        callees = [Callee() for _ in range(6)]
        listeners = [Listener(SETTINGS, HOST, 0, callee) for callee in callees]
        async with pooled() as pool:
            for listener in listeners:
                await listener.__aenter__()
            for listener in listeners:
                assert await pool.call(Address(HOST, listener.port), "m", b"", deadline=5) == b"m"
            await eventually(lambda: sum(listener.connections for listener in listeners) == 3)
            assert [listener.connections for listener in listeners] == [0, 0, 0, 1, 1, 1]
            busy = asyncio.create_task(pool.call(Address(HOST, listeners[5].port), "wait", b"", deadline=PATIENCE))
            await eventually(lambda: callees[5].calls == 2)
            monkeypatch.setattr(pools, "UNUSED", 0.05)
            await eventually(lambda: sum(listener.connections for listener in listeners) == 1)
            callees[5].gate.set()
            assert await busy == b"wait"
            for listener in listeners:
                await listener.close()

    run(scenario())


def test_nobody_waits_longer_than_the_deadline_for_a_connection() -> None:
    async def scenario() -> None:
        silent = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
        to = Address(HOST, silent.sockets[0].getsockname()[1])
        async with pooled(settings(connect=3600.0)) as pool:
            errors = await asyncio.gather(*(failure_of(pool.call(to, "m", b"", deadline=0.1)) for _ in range(5)))
            assert {type(error) for error in errors} == {Unreachable}
        silent.close()

    run(scenario())


def test_a_request_that_failed_is_forgotten_with_its_answer() -> None:
    """Its error and the frames it came through would hold each other, and what was asked."""

    class Asked:
        """Stands for megabytes."""

    class Refusing(Callee):
        asked: weakref.ref[Asked]

        async def receive(self, method: str, payload: bytes) -> bytes:
            asked = Asked()
            self.asked = weakref.ref(asked)
            error = Overloaded("slow down")
            await asyncio.sleep(0)
            raise error

        async def exposed_refuse(self) -> None:
            await self.receive("", b"")

    async def scenario() -> None:
        callee = Refusing()
        async with served(callee) as listener, pooled() as pool:
            to = Address(HOST, listener.port)
            assert isinstance(await failure_of(pool.call(to, "m", b"", deadline=5)), Overloaded)
            assert callee.asked() is None
            connection = await asyncio.to_thread(rpyc.connect, HOST, listener.port)
            with pytest.raises(Exception, match="slow down"):
                await asyncio.to_thread(lambda: connection.root.refuse())
            assert callee.asked() is None
            await asyncio.to_thread(connection.close)

    gc.disable()
    try:
        run(scenario())
    finally:
        gc.enable()
