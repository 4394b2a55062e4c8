"""Claims of awaited calls: to a stock server and to our own, their answers, errors, deadlines and ends."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rpyc.core import brine, protocol

from node.errors import BadUsage, BadValue, NotARing, OutcomeUnknown, RingError, Unreachable
from node.remote.connection import Connection
from node.remote.listener import Listener
from node.remote.pool import connect
from node.remote.translation import translated
from tests.ports import free_port
from tests.remote.ends import (
    HOST,
    SETTINGS,
    Root,
    eventually,
    failure_of,
    framed,
    run,
    settings,
    stock_server,
)

pytestmark = pytest.mark.usefixtures("loops")


def test_a_stock_server_is_called() -> None:
    async def scenario(port: int) -> None:
        connection = await connect(HOST, port, SETTINGS, deadline=5)
        assert await connection.call("add", 1, 2, deadline=5) == 3
        assert await asyncio.gather(*(connection.call("add", i, 1, deadline=5) for i in range(50))) == [*range(1, 51)]
        connection.close()

    with stock_server() as port:
        run(scenario(port))


@pytest.mark.parametrize("name", ["exit", "timeout", "value"])
def test_builtin_errors_of_a_peer_are_told_and_never_raised_as_themselves(name: str) -> None:
    async def scenario(port: int) -> None:
        connection = await connect(HOST, port, SETTINGS, deadline=5)
        error = await failure_of(connection.call("raise", name, deadline=5))
        assert type(error) is RingError
        assert str(port) in str(error)
        connection.close()

    with stock_server() as port:
        run(scenario(port))


@pytest.mark.parametrize(
    "raw",
    [
        (("builtins", "KeyboardInterrupt"), (), (), ""),
        (("asyncio.exceptions", "CancelledError"), (), (), ""),
        (("node.errors", "SystemExit"), ("x",), (), ""),
        (("node.errors", "Settings"), ("x",), (), ""),
        (("builtins", "ValueError"), 5, (), ""),
        ((1, 2), ("x",), (), ""),
        "text",
        1,
        (),
    ],
    ids=repr,
)
def test_whatever_class_a_peer_names_it_is_an_error_of_ours(raw: Any) -> None:
    error = translated(raw, "peer")
    assert type(error) is RingError
    assert len(str(error)) < 1000


def test_errors_of_our_tree_come_out_as_they_were() -> None:
    async def scenario(port: int) -> None:
        connection = await connect(HOST, port, SETTINGS, deadline=5)
        error = await failure_of(connection.call("raise_ours", deadline=5))
        assert type(error) is BadValue
        assert error.args == ("no", 3)
        connection.close()

    with stock_server() as port:
        run(scenario(port))


def test_a_method_that_is_not_there_means_that_this_is_no_ring() -> None:
    async def scenario(port: int) -> None:
        connection = await connect(HOST, port, SETTINGS, deadline=5)
        assert type(await failure_of(connection.call("call", "x", b"", deadline=5))) is NotARing
        connection.close()

    with stock_server() as port:
        run(scenario(port))


def test_results_that_are_not_plain_are_errors_and_the_connection_lives() -> None:
    async def scenario(port: int) -> None:
        connection = await connect(HOST, port, SETTINGS, deadline=5)
        assert "reference" in str(await failure_of(connection.call("list", deadline=5)))
        assert "cannot be read" in str(await failure_of(connection.call("complex", deadline=5)))
        assert await connection.call("add", 1, 2, deadline=5) == 3
        connection.close()

    with stock_server() as port:
        run(scenario(port))


def test_answers_of_ours_come_out_of_order() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            waiting = [asyncio.create_task(connection.call("wait", i, deadline=10)) for i in range(20)]
            await eventually(lambda: root.begun == 20)
            assert await connection.call("add", 1, deadline=10) == 3
            root.gate.set()
            assert await asyncio.gather(*waiting) == [*range(20)]
            connection.close()

    run(scenario())


def test_an_expired_call_is_of_unknown_outcome_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            assert type(await failure_of(connection.call("wait", deadline=0.05))) is OutcomeUnknown
            assert not connection.busy
            root.gate.set()
            await eventually(lambda: root.finished == 1)
            assert await connection.call("add", 1, deadline=5) == 3, "the late answer hurts nobody"
            connection.close()

    run(scenario())


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            task = asyncio.create_task(connection.call("wait", deadline=10))
            await eventually(lambda: root.begun == 1)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not connection.busy
            connection.close()

    run(scenario())


def test_without_time_nothing_is_sent() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            for deadline in (0, -1):
                assert type(await failure_of(connection.call("wait", deadline=deadline))) is Unreachable
            assert await connection.call("add", 1, deadline=5) == 3
            assert root.begun == 0
            connection.close()

    run(scenario())


def test_when_the_connection_ends_all_calls_fail_at_once_and_say_whether_they_were_sent() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            sent = [asyncio.create_task(connection.call("wait", deadline=3600)) for _ in range(50)]
            await eventually(lambda: root.begun == 50)
            unsent = [asyncio.create_task(connection.call("wait", deadline=3600)) for _ in range(5)]
            await asyncio.sleep(0)  # they have asked, nothing has left yet
            connection.abort()
            late = asyncio.create_task(connection.call("wait", deadline=3600))
            kinds = [type(result) for result in await asyncio.gather(*sent, *unsent, late, return_exceptions=True)]
            assert kinds == [OutcomeUnknown] * 50 + [Unreachable] * 6
            assert connection.closed

    run(scenario())


def test_a_peer_that_dies_fails_the_calls_at_once() -> None:
    async def scenario() -> None:
        root = Root()
        listener = Listener(SETTINGS, HOST, 0)
        listener.bind()
        listener.serve(root)
        connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
        waiting = [asyncio.create_task(connection.call("wait", deadline=3600)) for _ in range(10)]
        await eventually(lambda: root.begun == 10)
        await listener.close()
        for task in waiting:
            assert type(await failure_of(_awaited(task))) is OutcomeUnknown

    run(scenario())


async def _awaited(task: asyncio.Task[Any]) -> Any:
    return await task


@pytest.mark.parametrize(
    "argument",
    [[1], {"a": 1}, object(), "\ud800", 10**5000, (1, [2])],
    ids=["list", "dict", "object", "surrogate", "huge", "nested"],
)
def test_an_argument_that_does_not_travel_is_refused_before_anything_is_sent(argument: Any) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            assert type(await failure_of(connection.call("echo", argument, deadline=5))) is BadValue
            assert await connection.call("echo", (1, b"2"), deadline=5) == (1, b"2")
            connection.close()

    run(scenario())


def test_requests_and_answers_over_the_limit_are_refused_by_name() -> None:
    async def scenario() -> None:
        small = settings(max_frame=100_000)
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, small, deadline=5)
            error = await failure_of(connection.call("echo", bytes(200_000), deadline=5))
            assert type(error) is BadValue
            assert "larger than the limit of 100000 bytes" in str(error)
            error = await failure_of(connection.call("give", "large", deadline=5))
            assert "larger than the limit of 100000 bytes" in str(error)
            assert await connection.call("add", 1, deadline=5) == 3
            connection.close()
        async with Listener(small, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            for name, argument in (("echo", bytes(200_000)), ("give", "large")):
                error = await failure_of(connection.call(name, argument, deadline=5))
                assert "larger than the limit of 100000 bytes" in str(error)
            assert await connection.call("add", 1, deadline=5) == 3
            connection.close()

    run(scenario())


def test_nobody_there() -> None:
    port = free_port()
    error = run(failure_of(connect(HOST, port, SETTINGS, deadline=5)))
    assert type(error) is Unreachable
    assert f"{HOST}:{port}" in str(error)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", framed(b"\x02nonsense")])
def test_another_service_there(greeting: bytes) -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.write(greeting), HOST, 0)
        port = server.sockets[0].getsockname()[1]
        error = await failure_of(connect(HOST, port, SETTINGS, deadline=5))
        assert type(error) is NotARing
        assert f"{HOST}:{port}" in str(error)
        server.close()

    run(scenario())


def test_somebody_there_who_says_nothing_or_goes_away() -> None:
    async def scenario() -> None:
        for on_connection in (lambda reader, writer: None, lambda reader, writer: writer.close()):
            server = await asyncio.start_server(on_connection, HOST, 0)
            port = server.sockets[0].getsockname()[1]
            error = await failure_of(connect(HOST, port, SETTINGS, deadline=0.2))
            assert type(error) is Unreachable
            assert f"{HOST}:{port}" in str(error)
            server.close()

    run(scenario())


replies = st.recursive(
    st.none() | st.integers(-5, 30) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=5).map(tuple),
    max_leaves=12,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), replies.map(lambda r: bytes([len(repr(r)) % 5]) + brine.dump(r)))))
def test_whatever_a_server_says_a_call_ends_with_an_error_of_ours(messages: list[bytes]) -> None:
    async def scenario() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"".join(map(framed, messages)))
            writer.close()

        server = await asyncio.start_server(speak, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        assert isinstance(await failure_of(connect(HOST, port, SETTINGS, deadline=5)), (Unreachable, NotARing))
        server.close()

    run(scenario())


def test_what_would_block_or_build_references_is_closed_off_and_forgetting_a_connection_is_harmless() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            for blocking in (
                lambda: connection.root,
                lambda: connection.sync_request(1),
                lambda: connection.async_request(1),
                lambda: connection.serve(),
                lambda: connection.poll(),
                lambda: connection.ping(),
                lambda: connection._netref_factory(("x", 1, 1)),
            ):
                with pytest.raises(BadUsage):
                    blocking()
            forgotten: list[Connection] = [await connect(HOST, listener.port, SETTINGS, deadline=5) for _ in range(5)]
            for one in forgotten:
                one.close()
            forgotten.clear()
            gc.collect()
            assert Connection.__del__ is not protocol.Connection.__del__
            with connection:
                assert await connection.call("add", 1, deadline=5) == 3
            assert connection.closed

    run(scenario())


def test_both_ends_send_without_delay_and_notice_a_peer_that_vanished() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            for end in (connection, *listener._connections):
                assert end.wire._transport is not None
                sock = end.wire._transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SETTINGS.user_timeout * 1000
            connection.close()

    run(scenario())


def test_a_peer_can_be_called_back_on_the_same_connection() -> None:
    async def scenario() -> None:
        made: list[Connection] = []
        listener = Listener(SETTINGS, HOST, 0)
        listener.bind()
        listener.serve(Root())
        connection = await connect(HOST, listener.port, SETTINGS, deadline=5, root=Root())
        made = [*listener._connections]
        await made[0].handshake(5)
        assert await made[0].call("add", 2, 3, deadline=5) == 5
        assert await connection.call("add", 2, 4, deadline=5) == 6
        connection.close()
        await listener.close()

    run(scenario())


def test_a_call_without_time_left_does_not_harm_others() -> None:
    """uvloop gives another kind of handle for what is due at once."""

    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            late = [connection.call("add", 1, deadline=0.0001) for _ in range(3)]
            answers = await asyncio.gather(*late, connection.call("add", 1, deadline=5), return_exceptions=True)
            assert {type(each) for each in answers[:3]} <= {int, OutcomeUnknown}
            assert answers[3] == 3
            connection.close()

    run(scenario())
