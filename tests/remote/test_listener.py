"""Claims of taking connections in: addresses, numbers, patience, descriptors, and the end."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable
from pathlib import Path

import pytest

from node.errors import BadUsage, OutcomeUnknown, Unreachable
from node.remote.listener import Listener
from node.remote.pool import connect
from tests.remote.ends import HOST, LOOP, PATIENCE, SETTINGS, Raw, Root, call, eventually, failure_of, run, settings

pytestmark = pytest.mark.usefixtures("loops")
PROJECT = Path(__file__).resolve().parents[2]


async def others_are_served(port: int, host: str = HOST) -> None:
    connection = await connect(host, port, SETTINGS, deadline=5)
    assert await connection.call("add", 1, deadline=5) == 3
    connection.close()


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            with pytest.raises(BadUsage, match=rf"{HOST}:{listener.port} is taken: stop .* or choose another port"):
                Listener(SETTINGS, HOST, listener.port).bind()
            await others_are_served(listener.port)

    run(scenario())


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("no.such.host.invalid", 0), (HOST, 99999), (HOST, -1)])
def test_an_address_that_cannot_be_had_is_a_clear_error(host: str, port: int) -> None:
    with pytest.raises(BadUsage, match=f"{host}:{port}"):
        Listener(SETTINGS, host, port).bind()


def test_a_port_can_be_taken_again_at_once() -> None:
    async def scenario() -> None:
        port = 0
        for _ in range(3):
            async with Listener(SETTINGS, HOST, port, Root()) as listener:
                port = listener.port
                connection = await connect(HOST, port, SETTINGS, deadline=5)
                assert await connection.call("add", 1, deadline=5) == 3

    run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_both_families_and_names(host: str) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, host, 0, Root()) as listener:
            await others_are_served(listener.port, host)

    run(scenario())


def test_connections_over_the_limit_are_turned_away_unless_a_silent_one_can_go() -> None:
    async def scenario() -> None:
        async with Listener(settings(max_connections=3), HOST, 0, Root()) as listener:
            proven = [await connect(HOST, listener.port, SETTINGS, deadline=5) for _ in range(2)]
            silent = await Raw.connect(listener.port)
            await eventually(lambda: listener.connections == 3)
            proven.append(await connect(HOST, listener.port, SETTINGS, deadline=5))
            assert await silent.ended()
            assert await (await Raw.connect(listener.port)).ended()
            for connection in proven:
                assert await connection.call("add", 1, deadline=5) == 3
            proven.pop().close()
            await eventually(lambda: listener.connections == 2)
            await others_are_served(listener.port)
            for connection in proven:
                connection.close()

    run(scenario())


def test_a_connection_that_says_nothing_whole_is_ended_and_one_that_sits_still_is_not() -> None:
    async def scenario() -> None:
        async with Listener(settings(handshake=0.2), HOST, 0, Root()) as listener:
            sitting = await connect(HOST, listener.port, SETTINGS, deadline=5)
            silent, half = await Raw.connect(listener.port), await Raw.connect(listener.port)
            await half.send(b"\x00\x00\x01\x00\x00abc")
            assert await silent.ended()
            assert await half.ended()
            assert await sitting.call("add", 1, deadline=5) == 3
            sitting.close()

    run(scenario())


def test_a_peer_that_stops_in_the_middle_of_a_frame_is_ended_even_if_it_trickles() -> None:
    async def scenario() -> None:
        limits = settings(half_frame=0.3, half_frame_bytes=2000)
        async with Listener(limits, HOST, 0, Root()) as listener:
            stopped, trickling, steady = [await Raw.connect(listener.port) for _ in range(3)]
            for peer in (stopped, trickling, steady):
                await peer.send(call(1, "add", 1))
                await peer.message()
                await peer.send(struct.pack("!LB", 200_000, 0))
            ended = [asyncio.create_task(peer.ended()) for peer in (stopped, trickling)]
            rest = call(2, "echo", bytes(400_000))[5:200_005]
            while not all(task.done() for task in ended):
                if not ended[1].done():
                    trickling.writer.write(b"x")
                steady.writer.write(rest[:2000])
                rest = rest[2000:]
                assert rest, "a frame on a slow line was not waited for, or the others were for too long"
                await asyncio.sleep(0.01)
            assert listener.connections == 1
            steady.close()

    run(scenario())


def test_idle_connections_are_ended_only_if_that_is_asked_for() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(settings(idle=0.2), HOST, 0, root) as listener:
            idle, busy = [await connect(HOST, listener.port, SETTINGS, deadline=5) for _ in range(2)]
            waiting = asyncio.create_task(busy.call("wait", 5, deadline=PATIENCE))
            await eventually(lambda: idle.closed)
            assert not busy.closed
            root.gate.set()
            assert await waiting == 5
            busy.close()

    run(scenario())


def test_a_thousand_idle_connections_keep_nobody_waiting() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            idle = [await Raw.connect(listener.port) for _ in range(1000)]
            await eventually(lambda: listener.connections == 1000)
            for _ in range(50):
                await others_are_served(listener.port)
            for peer in idle:
                peer.close()
            await eventually(lambda: listener.connections == 0)

    run(scenario())


OUT_OF_DESCRIPTORS = """
import asyncio, resource, sys
from node.remote.listener import Listener
from node.settings import Settings

class Root:
    def exposed_add(self, a, b=2):
        return a + b

async def main():
    async with Listener(Settings(), "127.0.0.1", 0, Root()) as listener:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        print(listener.port, flush=True)
        await asyncio.Event().wait()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def test_accepting_survives_a_lack_of_descriptors() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OUT_OF_DESCRIPTORS, LOOP[0]], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        async def scenario() -> None:
            proven = await connect(HOST, port, SETTINGS, deadline=PATIENCE)
            crowd = [socket.create_connection((HOST, port)) for _ in range(100)]
            assert await proven.call("add", 1, deadline=PATIENCE) == 3
            newcomer = await _patiently(port)
            assert await newcomer.call("add", 1, deadline=PATIENCE) == 3, "silent ones make room"
            await eventually(lambda: len(list(Path(f"/proc/{process.pid}/fd").iterdir())) <= 30)  # of 40
            for sock in crowd:
                sock.close()
            assert await proven.call("add", 1, deadline=PATIENCE) == 3
            crowd = []
            loyal = []
            try:
                while True:
                    loyal.append(await connect(HOST, port, SETTINGS, deadline=PATIENCE / 2))
            except Unreachable:
                pass
            assert 10 < len(loyal) < 40
            assert await loyal[0].call("add", 1, deadline=PATIENCE) == 3, "those who have spoken stay"
            for connection in loyal:
                connection.close()
            again = await _patiently(port)
            assert await again.call("add", 1, deadline=PATIENCE) == 3
            used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            assert (int(used[11]) + int(used[12])) / 100 < 10, "it does not spin"

        run(scenario())
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _patiently(port: int):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await connect(HOST, port, SETTINGS, deadline=2)
        except Unreachable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def test_closing_lets_requests_in_work_finish_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        root = Root()
        listener = Listener(SETTINGS, HOST, 0)
        listener.bind()
        listener.serve(root)
        connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
        waiting = asyncio.create_task(connection.call("wait", 5, deadline=PATIENCE))
        await eventually(lambda: root.begun == 1)
        closing = asyncio.create_task(listener.close(PATIENCE))
        await asyncio.sleep(0)
        assert type(await failure_of(connect(HOST, listener.port, SETTINGS, deadline=5))) is Unreachable
        error = await failure_of(connection.call("add", 1, deadline=5))
        assert type(error) is Unreachable
        assert "shutting down" in str(error)
        root.gate.set()
        assert await waiting == 5
        await closing
        await eventually(lambda: connection.closed)
        assert listener.connections == 0

    run(scenario())


def test_closing_breaks_off_what_does_not_finish_in_time() -> None:
    async def scenario() -> None:
        root = Root()
        listener = Listener(SETTINGS, HOST, 0)
        listener.bind()
        listener.serve(root)
        connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
        waiting = asyncio.create_task(connection.call("wait", 5, deadline=PATIENCE))
        await eventually(lambda: root.begun == 1)
        await listener.close(0.05)
        error = await failure_of(_result(waiting))
        assert type(error) is OutcomeUnknown
        assert listener.connections == 0

    run(scenario())


async def _result(task: asyncio.Task[object]) -> object:
    return await task


def test_closing_without_having_begun_and_twice_is_harmless() -> None:
    async def scenario() -> None:
        await Listener(SETTINGS, HOST, 0).close()
        listener = Listener(SETTINGS, HOST, 0)
        listener.bind()
        await listener.close()
        await listener.close()
        with pytest.raises(BadUsage):
            listener.serve(Root())

    run(scenario())


def test_a_request_that_comes_with_the_end_is_answered_and_leaves_nothing_behind() -> None:
    ending: list[asyncio.Task[None]] = []

    class Last:
        def exposed_last(self) -> Awaitable[int]:
            ending.append(asyncio.get_running_loop().create_task(listener.close()))
            return self.late()

        async def late(self) -> int:
            await asyncio.Event().wait()
            return 1

    listener = Listener(SETTINGS, HOST, 0, Last())

    async def scenario() -> None:
        listener.bind()
        listener.serve(Last())
        connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
        failure = await failure_of(connection.call("last", deadline=5))
        assert isinstance(failure, OutcomeUnknown) and "stopped" in str(failure)
        await ending[0]
        connection.close()
        gc.collect()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(scenario())
    assert not [each.message for each in seen if each.category is RuntimeWarning]
