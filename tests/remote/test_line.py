"""A connection that a thread waits on itself, against peers that do what they should not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rpyc.core import brine

from node.codec import Address
from node.errors import OutcomeUnknown, Unreachable
from node.remote.framing import Splitter, frame
from node.remote.line import Line
from node.remote.relay import requested
from node.settings import Settings
from tests.ring.nodes import eventually

SETTINGS = Settings()
Peer = Callable[[socket.socket], None]


@contextmanager
def line(peer: Peer) -> Iterator[Line]:
    """One to a peer that does that with its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: peer(server.accept()[0]))
        thread.start()
        made = Line(Address("127.0.0.1", server.getsockname()[1]), SETTINGS, None, 5)
        try:
            yield made
        finally:
            made.close()
            thread.join()


def asked(connection: socket.socket) -> tuple[int, str, bytes]:
    """The next request that comes."""
    splitter = Splitter(SETTINGS.max_frame, SETTINGS.max_skip)
    while (message := splitter.take()) is None:
        splitter.feed(connection.recv(4096))
    assert type(message) is bytes
    found = requested(message)
    assert found is not None
    return found


def answer(seq: int, content: bytes) -> bytes:
    return frame(b"\x02" + brine.dump((seq, (1, content))))


def test_calls_are_answered_one_after_the_other() -> None:
    def echo(connection: socket.socket) -> None:
        for _ in range(300):
            seq, method, payload = asked(connection)
            connection.sendall(answer(seq, method.encode() + payload))

    with line(echo) as one:
        for n in range(300):
            assert one.call("m", b"%d" % n, 5) == b"m%d" % n


def test_an_answer_may_come_in_pieces_and_be_large() -> None:
    def slow(connection: socket.socket) -> None:
        seq, _, _ = asked(connection)
        whole = answer(seq, bytes(1_000_000))
        connection.sendall(whole[:3])
        connection.sendall(whole[3:])

    with line(slow) as one:
        assert one.call("m", b"", 5) == bytes(1_000_000)


def silent(connection: socket.socket) -> None:
    asked(connection)
    connection.recv(1)


def ends(connection: socket.socket) -> None:
    asked(connection)
    connection.close()


def ends_midway(connection: socket.socket) -> None:
    seq, _, _ = asked(connection)
    connection.sendall(answer(seq, b"x" * 100)[:20])
    connection.close()


def fails(connection: socket.socket) -> None:
    seq, _, _ = asked(connection)
    connection.sendall(frame(b"\x03" + brine.dump((seq, (("node.errors", "BadUsage"), ("no",), (), "")))))


def answers_another(connection: socket.socket) -> None:
    seq, _, _ = asked(connection)
    connection.sendall(answer(seq + 1, b""))


def speaks_otherwise(connection: socket.socket) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def declares_too_much(connection: socket.socket) -> None:
    asked(connection)
    connection.sendall((SETTINGS.max_skip + 1).to_bytes(4, "big") + b"\x00")


@pytest.mark.parametrize(
    "peer", [silent, ends, ends_midway, fails, answers_another, speaks_otherwise, declares_too_much]
)
def test_what_is_no_answer_leaves_the_outcome_unknown(peer: Peer) -> None:
    with line(peer) as one:
        with pytest.raises(OutcomeUnknown, match=r"127\.0\.0\.1"):
            one.call("m", b"", 0.3 if peer is silent else 5)
        one.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable, match=str(port)):
        Line(Address("127.0.0.1", port), SETTINGS, None, 1)


def test_a_line_that_the_peer_ended_is_seen_not_to_stand() -> None:
    gone = threading.Event()

    def leaves(connection: socket.socket) -> None:
        seq, _, _ = asked(connection)
        connection.sendall(answer(seq, b""))
        gone.wait(10)
        connection.close()

    with line(leaves) as one:
        one.call("m", b"", 5)
        assert one.stands
        gone.set()
        eventually(lambda: not one.stands, what="it is seen that it ended")
