"""Claims of what hostile, slow and greedy peers get: a refusal or the end of their connection; nobody else is hurt."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rpyc.core import brine, consts

from node.errors import OutcomeUnknown, Unreachable
from node.remote.listener import Listener
from node.remote.pool import connect
from node.settings import Settings
from tests.remote.ends import (
    HOST,
    ROOT_PACK,
    SETTINGS,
    Raw,
    Root,
    call,
    eventually,
    failure_of,
    framed,
    request,
    resident,
    run,
    settings,
)

pytestmark = pytest.mark.usefixtures("loops")
MIB = 1024 * 1024
CALL, CALLATTR = consts.HANDLE_CALL, consts.HANDLE_CALLATTR


async def others_are_served(port: int, limits: Settings = SETTINGS) -> None:
    connection = await connect(HOST, port, limits, deadline=5)
    assert await connection.call("add", 1, deadline=5) == 3
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\xff\xff\xff\x00" + b"x" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        framed(b""),
        framed(b"\x01"),
        framed(b"\x07" + brine.dump((1, (2, 3)))),
        framed(b"\x01" + brine.dump(((1, 2), 3))),
        framed(b"nonsense", 1),
        struct.pack("!LB", 3, 0) + b"abcX",
    ],
    ids=["http", "4 GB", "tls", "empty", "bare", "kind", "number", "not zlib", "trailer"],
)
def test_garbage_costs_its_sender_the_connection_and_no_one_else_anything(data: bytes) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            neighbour = await connect(HOST, listener.port, SETTINGS, deadline=5)
            peer = await Raw.connect(listener.port)
            await peer.send(data)
            assert await peer.ended()
            assert await neighbour.call("add", 1, deadline=5) == 3
            neighbour.close()

    run(scenario())


@pytest.mark.parametrize(
    "body",
    [
        (CALLATTR, (2, ())),
        (CALLATTR, (2, ((),))),
        (CALLATTR, (2, 5)),
        (CALLATTR, (9, ())),
        (CALLATTR, (1, None)),
        (CALLATTR, (2, ((3, ROOT_PACK), (1, 5), (1, ()), (1, ())))),
        (CALLATTR, (2, ((3, ROOT_PACK), (1, b"add"), (1, ()), (1, ())))),
        (CALLATTR, (2, ((3, ROOT_PACK), (1, "add"), (1, 5), (1, ())))),
        (CALLATTR, (2, ((3, ROOT_PACK), (1, "add"), (1, ()), (1, ((1, 2),))))),
        (CALLATTR, (2, ((3, ROOT_PACK), (1, "add"), (1, ()), (1, "ab")))),
        (CALLATTR, (2, ((3, ROOT_PACK), (3, ROOT_PACK), (1, ()), (1, ())))),
        (CALL, (2, ((3, ROOT_PACK), (1, ()), (1, ())))),
        (CALL, (2, ((3, ("builtins.method", 2, 99)), (1, ()), (1, ())))),
        (CALL, (2, ((4, ("x", 1, 1)), (1, ()), (1, ())))),
        (CALL, (1, (5, (), ()))),
        ("8", (1, ())),
        (True, (1, ())),
        (consts.HANDLE_INSPECT, (1, ((1, 2, 3),))),
        (consts.HANDLE_PING, (1, (1, 2, 3))),
        (1, 2, 3),
        5,
        "text",
    ],
    ids=repr,
)
def test_a_request_that_makes_no_sense_is_refused_and_the_next_is_answered(body: object) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(framed(b"\x01" + brine.dump((7, body))) + call(8, "add", 1))
            assert (await peer.refusal())[0] == 7
            assert await peer.message() == (consts.MSG_REPLY, 8, (1, 3))
            peer.close()

    run(scenario())


messages = st.recursive(
    st.integers(0, 25) | st.sampled_from(["add", "echo", ROOT_PACK, (), b"x"]),
    lambda inner: st.lists(inner, max_size=5).map(tuple),
    max_leaves=15,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(messages.map(lambda m: b"\x01" + brine.dump((1, m))), st.binary(max_size=40)), max_size=5))
def test_whatever_is_sent_in_frames_others_are_served(payloads: list[bytes]) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(b"".join(map(framed, payloads)))
            peer.writer.write_eof()
            assert await peer.ended()
            await others_are_served(listener.port)

    run(scenario())


def test_values_nested_too_deep_or_too_many_are_refused_and_the_connection_lives() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            deep = b"\x01" + brine.TAG_TUP2 + brine.dump(1) + brine.TAG_TUP1 * 1_000_000 + brine.TAG_NONE
            many = b"\x01" + brine.dump((2, (CALLATTR, (1, (None,) * 3_000_000))))
            await peer.send(framed(deep) + framed(many) + call(3, "add", 1))
            assert (await peer.refusal())[:2] == (1, "BadValue")
            assert (await peer.refusal())[:2] == (2, "BadValue")
            assert await peer.message() == (consts.MSG_REPLY, 3, (1, 3))
            peer.close()

    run(scenario())


@pytest.mark.parametrize("squeeze", [False, True], ids=["plain", "compressed"])
def test_a_request_over_the_limit_is_refused_by_name_and_the_connection_lives(squeeze: bool) -> None:
    async def scenario() -> None:
        limits = settings(max_frame=1 * MIB, max_skip=100 * MIB)
        async with Listener(limits, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            large = call(5, "echo", bytes(60 * MIB))
            if squeeze:
                large = framed(zlib.compress(large[5:-1], 1), 1)
            before = resident()
            await peer.send(large + call(6, "add", 1))
            number, kind, arguments = await peer.refusal()
            assert (number, kind) == (5, "BadValue")
            assert f"larger than the limit of {MIB} bytes" in arguments[0]
            assert await peer.message() == (consts.MSG_REPLY, 6, (1, 3))
            assert resident() - before < 40 * MIB
            peer.close()

    run(scenario())


@pytest.mark.parametrize("place", ["package", "arguments", "words", "target", "name"])
def test_text_in_place_of_a_tuple_is_refused_before_each_byte_becomes_a_value(place: str) -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            large = bytes(7 * MIB)
            root, name, none = (3, ROOT_PACK), (1, "echo"), (1, ())
            package = {
                "package": (1, large),
                "arguments": (2, (root, name, (1, large), none)),
                "words": (2, (root, name, none, (1, large))),
                "target": (2, ((2, large), name, none, none)),
                "name": (2, (root, (1, large), none, none)),
            }[place]
            frame = request(2, CALLATTR, package)
            tracemalloc.start()
            try:
                await peer.send(frame)
                _, _, (told,) = await peer.refusal()
                assert len(told) < 1000
                assert tracemalloc.get_traced_memory()[1] < 40 * MIB
            finally:
                tracemalloc.stop()
            peer.close()

    run(scenario())


def test_an_error_quotes_no_more_than_a_part_of_what_was_wrong() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(call(1, "quote", bytes(7 * MIB)) + call(2, "add", 1))
            number, kind, (told,) = await peer.refusal()
            assert (number, kind) == (1, "BadValue") and len(told) <= 1000
            assert await peer.message() == (consts.MSG_REPLY, 2, (1, 3))
            peer.close()

    run(scenario())


def test_bytes_of_a_connection_in_work_are_bounded_and_all_requests_get_answered() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(settings(max_in_work=4 * MIB), HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            sending = asyncio.create_task(peer.send(b"".join(call(i, "wait", bytes(MIB)) for i in range(40))))
            await eventually(lambda: root.begun == 4)
            await others_are_served(listener.port)
            assert root.begun == 4
            root.gate.set()
            assert {(await peer.message())[1] for _ in range(40)} == {*range(40)}
            assert root.most == 4
            await sending
            peer.close()

    run(scenario())


def test_frames_that_are_not_whole_are_bounded_for_all_connections_together() -> None:
    async def scenario() -> None:
        async with Listener(settings(max_unfinished=10 * MIB), HOST, 0, Root()) as listener:
            small = await Raw.connect(listener.port)
            await small.send(call(1, "echo", bytes(MIB))[:-9])
            greedy = [await Raw.connect(listener.port) for _ in range(8)]
            for peer in greedy:
                await peer.send(call(1, "echo", bytes(3 * MIB))[:-9])
            await eventually(lambda: listener.connections <= 4, "at most three of them and the small one fit")
            assert listener._unfinished <= 10 * MIB
            await others_are_served(listener.port)
            await small.send(call(1, "echo", bytes(MIB))[-9:])
            assert (await small.message())[:2] == (consts.MSG_REPLY, 1)
            for peer in (small, *greedy):
                peer.close()
            await eventually(lambda: listener.connections == 0)
            assert listener._unfinished == 0

    run(scenario())


def test_answers_that_nobody_reads_are_bounded_for_all_connections_together() -> None:
    async def scenario() -> None:
        limits = settings(max_unfinished=20 * MIB, write_high=MIB)
        async with Listener(limits, HOST, 0, Root()) as listener:
            deaf = [await Raw.connect(listener.port) for _ in range(10)]
            for peer in deaf:
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                with contextlib.suppress(ConnectionError):  # it may be one of those that are ended
                    for n in range(1, 5):
                        await peer.send(call(n, "echo", bytes(3 * MIB)))
            await eventually(lambda: listener.connections < 10, "some of them are ended")
            assert listener._unfinished <= 20 * MIB
            await others_are_served(listener.port)
            for peer in deaf:
                peer.close()
            await eventually(lambda: listener.connections == 0)
            assert listener._unfinished == 0

    run(scenario())


def test_what_a_connection_left_unfinished_does_not_wait_for_the_garbage_collector() -> None:
    async def scenario() -> None:
        gc.disable()
        try:
            async with Listener(SETTINGS, HOST, 0, Root()) as listener:
                before = resident()
                for _ in range(30):
                    peer = await Raw.connect(listener.port)
                    await peer.send(call(1, "echo", bytes(7 * MIB))[:-9])
                    await eventually(lambda: listener._unfinished > 7 * MIB)
                    peer.close()
                    await eventually(lambda: listener.connections == 0)
                assert resident() - before < 80 * MIB
        finally:
            gc.enable()

    run(scenario())


def test_requests_that_are_much_work_do_not_keep_others_waiting() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            swells = framed(zlib.compress(call(1, "types", bytes(7 * MIB))[5:-1], 9), 1)
            await peer.send(swells * 100)
            for _ in range(2):  # the first may have come before
                assert await connection.call("add", 1, deadline=15) == 3
            assert sum(c.wire.frames for c in listener._connections) < 50, "others had their turn before it was done"
            connection.close()
            peer.close()

    run(scenario())


def test_requests_of_a_connection_in_work_are_bounded_and_all_get_answered() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(settings(max_in_flight=10), HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(b"".join(call(i, "wait", i) for i in range(5000)))
            await eventually(lambda: root.begun == 10)
            await others_are_served(listener.port)
            assert root.begun == 10
            root.gate.set()
            answers = [await peer.message() for _ in range(5000)]
            assert sorted(seq for _, seq, _ in answers) == [*range(5000)]
            assert root.most == 10
            peer.close()

    run(scenario())


@pytest.mark.parametrize("name", ["give", "echo"])
def test_a_peer_that_does_not_read_costs_bounded_memory_and_is_served_again_when_it_does(name: str) -> None:
    async def scenario() -> None:
        root = Root()
        limits = settings(write_high=1 * MIB, max_in_flight=8, user_timeout=60.0)
        async with Listener(limits, HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            peer.writer.transport.pause_reading()
            argument = "large" if name == "give" else bytes(1 * MIB)
            before = resident()
            sending = asyncio.create_task(peer.send(b"".join(call(i, name, argument) for i in range(150))))
            (connection,) = listener._connections
            await eventually(lambda: not connection.wire.writable, "the node waits for its peer")
            for _ in range(20):
                await others_are_served(listener.port)
            grown = resident() - before
            sent = 0 if name == "give" else 300 * MIB  # the peer lives here too, with what it has still to send, twice
            assert grown < 60 * MIB + sent
            peer.writer.transport.resume_reading()
            assert {(await peer.message())[1] for _ in range(150)} == {*range(150)}
            await sending
            peer.close()

    run(scenario())


def test_a_peer_that_never_reads_loses_its_connection_at_the_limit() -> None:
    async def scenario() -> None:
        root = Root()
        limits = settings(write_high=1 * MIB, write_limit=8 * MIB, max_in_work=64 * MIB, user_timeout=60.0)
        async with Listener(limits, HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            peer.writer.transport.pause_reading()
            large = bytes(1 * MIB)
            await peer.send(b"".join(call(i, "wait", large) for i in range(40)))
            await eventually(lambda: root.begun == 40)
            root.gate.set()
            await eventually(lambda: listener.connections == 0)
            await others_are_served(listener.port)
            peer.close()

    run(scenario())


def test_two_ends_that_send_each_other_much_do_not_wait_for_each_other_for_ever() -> None:
    async def scenario() -> None:
        limits = settings(write_high=64 * 1024)
        async with Listener(limits, HOST, 0, Root()) as listener:
            connection = await connect(HOST, listener.port, limits, deadline=5)
            value = bytes(500_000)
            results = await asyncio.gather(*(connection.call("echo", value, deadline=20) for _ in range(100)))
            assert all(result == value for result in results)
            connection.close()

    run(scenario())


def test_a_call_that_waits_to_be_sent_until_its_deadline_was_never_sent() -> None:
    async def scenario() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(10)
            writer.transport.pause_reading()
            writer.write(framed(b"\x02" + brine.dump((0, (4, ("x", 1, 1))))))

        server = await asyncio.start_server(greet, HOST, 0, limit=1024)
        port = server.sockets[0].getsockname()[1]
        connection = await connect(HOST, port, settings(write_high=64 * 1024, user_timeout=60.0), deadline=5)
        large = bytes(8 * MIB - 1000)
        first = asyncio.create_task(connection.call("echo", large, deadline=0.3))
        while connection.wire.writable:
            await asyncio.sleep(0)
        assert type(await failure_of(connection.call("echo", b"", deadline=0.1))) is Unreachable
        assert type(await failure_of(_result(first))) is OutcomeUnknown
        connection.abort()
        server.close()

    run(scenario())


async def _result(task: asyncio.Task[object]) -> object:
    return await task


def test_many_requests_in_one_read_do_not_keep_others_waiting() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            connection = await connect(HOST, listener.port, SETTINGS, deadline=5)
            await peer.send(b"".join(call(i, "add", i) for i in range(20_000)))
            assert await connection.call("add", 1, deadline=5) == 3
            assert (await peer.message())[1] == 0
            (greedy,) = [c for c in listener._connections if c.wire.frames > 10]
            assert greedy.wire.frames < 20_000, "others had their turn before it was done"
            assert [(await peer.message())[1] for _ in range(19_999)] == [*range(1, 20_000)]
            connection.close()
            peer.close()

    run(scenario())


def test_requests_in_work_run_to_their_end_when_their_connection_ends() -> None:
    async def scenario() -> None:
        root = Root()
        async with Listener(SETTINGS, HOST, 0, root) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(call(1, "wait", 1))
            await eventually(lambda: root.begun == 1)
            peer.close()
            (connection,) = listener._connections
            await eventually(lambda: connection.closed)
            assert listener.connections == 1, "it counts for as long as it costs something"
            root.gate.set()
            await eventually(lambda: root.finished == 1 and listener.connections == 0)

    run(scenario())


def test_answers_of_one_turn_go_out_in_one_write() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(call(0, "add", 0))
            await peer.message()
            (connection,) = listener._connections
            writes: list[bytes] = []
            transport = connection.wire._transport
            assert transport is not None
            connection.wire._transport = _Recorder(transport, writes)  # type: ignore[assignment]
            await peer.send(b"".join(call(i, "echo" if i % 2 else "add", i) for i in range(100)))
            for _ in range(100):
                await peer.message()
            assert len(writes) <= 6
            peer.close()

    run(scenario())


class _Recorder:
    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def test_a_request_for_the_root_is_enough_to_be_heard() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            peer = await Raw.connect(listener.port)
            await peer.send(request(0, consts.HANDLE_GETROOT, (1, ())))
            assert await peer.message() == (consts.MSG_REPLY, 0, (4, ROOT_PACK))
            assert [c.wire.frames for c in listener._connections] == [1]
            peer.close()

    run(scenario())
