"""What a node answers to questions that are shaped as those of nodes and make no sense: a refusal, and never a failure
that it has to log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.codec import Failure, unpack
from node.remote.connection import Connection
from node.remote.node import Node, NodeOptions
from node.remote.pool import FAILED, connect
from node.settings import MIB, Settings
from tests.remote.ends import HOST, failure_of, run

SETTINGS = Settings()
WHOLE = [bytes(20), bytes(20)]
LATER = [10**6, 0]


async def asked(connection: Connection, method: str, question: Any) -> str:
    """The name of the error that a question came to."""
    answer = await connection.call("call", method, msgspec.msgpack.encode(question), deadline=10)
    assert answer[:1] == FAILED, answer
    return unpack(Failure, answer[1:]).name


def write(key: bytes, value: bytes | None) -> list[Any]:
    return [[b"client", 0, 1], [[key, value]]]


def test_questions_that_make_no_sense(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    questions = {
        "chain.read": [[[]]],
        "chain.write": [[[b"c", 0, 1], []], write(b"k" * 5000, b"\x01"), write(b"k", bytes(5 * MIB))],
        "chain.watch": [
            [[], b"k", True, 0.0],
            [[[WHOLE, LATER]], b"k", True, float("nan")],
            [[[WHOLE, LATER]], b"k", True, -1.0],
        ],
    }

    async def scenario() -> None:
        node = Node(NodeOptions(data=tmp_path, port=0), SETTINGS)
        await node.start()
        connection = await connect(HOST, node.address.port, SETTINGS, deadline=5)
        for method, each in questions.items():
            for question in each:
                assert await asked(connection, method, question) == "BadValue", (method, str(question)[:100])
        connection.close()
        await node.close()

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert not caplog.records


@pytest.mark.parametrize("value", [b"\xc1", b"\x91" * 100 + b"\x01"], ids=["garbage", "deep"])
def test_a_value_that_was_never_packed_is_told_as_such_to_who_reads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    async def scenario() -> None:
        node = Node(NodeOptions(data=tmp_path, port=0), SETTINGS)
        await node.start()
        connection = await connect(HOST, node.address.port, SETTINGS, deadline=5)
        await connection.call("call", "chain.write", msgspec.msgpack.encode(write(b"k", value)), deadline=10)
        assert type(await failure_of(connection.call("get", "k", deadline=5))).__name__ == "BadValue"
        assert await connection.call("delete", "k", deadline=5) is True
        assert await connection.call("get", "k", deadline=5) is None
        connection.close()
        await node.close()

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert not caplog.records


@pytest.mark.parametrize("host", ["a\0b", "x" * 64 + ".example", ".." * 50, "h" * 10_000, "é" * 200])
def test_a_name_that_no_host_can_have_is_nobody_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    async def scenario() -> None:
        node = Node(NodeOptions(data=tmp_path, port=0), SETTINGS)
        await node.start()
        connection = await connect(HOST, node.address.port, SETTINGS, deadline=5)
        error = await failure_of(connection.call("connect", host, 1, deadline=10))
        assert type(error).__name__ in ("Unreachable", "BadValue") and len(str(error)) < 500
        connection.close()
        await node.close()

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert not caplog.records
