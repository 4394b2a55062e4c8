"""A program's session: what is tried again, where, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from node.client import session
from node.client.session import Session
from node.codec import Address
from node.errors import BadValue, NotServing, OutcomeUnknown, Unavailable, Unreachable
from node.settings import Settings

SETTINGS = replace(Settings(), operation=0.1, backoff=0.001, backoff_limit=0.005)
A, B, C = (Address("127.0.0.1", port) for port in (1, 2, 3))


class FakeConnection:
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self.closed = False

    async def call(self, name: str, *arguments: Any, deadline: float) -> Any:
        if self._node.down:
            self.closed = True
            raise Unreachable("the connection has ended")
        self._node.calls += 1
        answer = self._node.answer(self._node.calls)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


class FakeNode:
    def __init__(self, answer: Callable[[int], Any] = lambda _: "fine") -> None:
        self.answer = answer
        self.calls = 0
        self.down = False
        self.connections: list[FakeConnection] = []


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[Address, FakeNode]:
    there = {each: FakeNode() for each in (A, B, C)}

    async def connect(host: str, port: int, settings: Settings, *, deadline: float, tls: None) -> FakeConnection:
        node = there[Address(host, port)]
        if node.down:
            raise Unreachable(f"nobody listens at {host}:{port}")
        node.connections.append(FakeConnection(node))
        return node.connections[-1]

    monkeypatch.setattr(session, "connect", connect)
    return there


def run(work: Callable[[Session], Any], known: tuple[Address, ...] = (A, B, C)) -> Any:
    async def main() -> Any:
        ours = Session(known, SETTINGS)
        try:
            return await work(ours)
        finally:
            ours.close()

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_calls_share_one_connection(nodes: dict[Address, FakeNode]) -> None:
    async def work(ours: Session) -> list[Any]:
        return await asyncio.gather(*(ours.get(n) for n in range(10)))

    assert run(work) == ["fine"] * 10
    assert [len(node.connections) for node in nodes.values()] == [1, 0, 0]
    assert nodes[A].connections[0].closed


def test_another_node_takes_over_when_one_dies(nodes: dict[Address, FakeNode]) -> None:
    async def work(ours: Session) -> Address:
        await ours.get("k")
        nodes[A].down = nodes[B].down = True
        await ours.put("k", 1)
        return ours.node

    assert run(work) == C


def test_a_node_nobody_answers_at_is_said_at_once(nodes: dict[Address, FakeNode]) -> None:
    nodes[A].down = True
    with pytest.raises(Unreachable, match="nobody listens"):
        run(lambda ours: ours.get("k"), (A,))


def test_nobody_left_is_unavailable_after_the_deadline(nodes: dict[Address, FakeNode]) -> None:
    async def work(ours: Session) -> None:
        await ours.get("k")
        for node in nodes.values():
            node.down = True
        await ours.put("k", 1)

    with pytest.raises(Unavailable, match="no node of the ring answered"):
        run(work)


def test_what_was_certainly_not_done_is_tried_again(nodes: dict[Address, FakeNode]) -> None:
    nodes[A].answer = lambda call: NotServing("soon") if call < 4 else (1, call)
    assert run(lambda ours: ours.put("k", 1)) == (1, 4)


def test_a_bad_value_is_not_tried_again(nodes: dict[Address, FakeNode]) -> None:
    nodes[A].answer = lambda _: BadValue("send something else")
    with pytest.raises(BadValue):
        run(lambda ours: ours.put("k", object()))
    assert nodes[A].calls == 1


def test_a_get_without_answer_is_asked_of_another_node(nodes: dict[Address, FakeNode]) -> None:
    nodes[A].answer = lambda _: OutcomeUnknown("no answer")
    nodes[B].answer = lambda _: "there"
    assert run(lambda ours: ours.get("k")) == "there"
    assert (nodes[A].calls, nodes[B].calls) == (1, 1)


@pytest.mark.parametrize("write", [lambda ours: ours.put("k", 1), lambda ours: ours.delete("k")])
def test_a_write_without_answer_is_not_repeated(
    nodes: dict[Address, FakeNode], write: Callable[[Session], Any]
) -> None:
    nodes[A].answer = lambda _: OutcomeUnknown("no answer")
    with pytest.raises(OutcomeUnknown):
        run(write)
    assert sum(node.calls for node in nodes.values()) == 1


def test_many_calls_without_answer_leave_their_node_once(nodes: dict[Address, FakeNode]) -> None:
    nodes[A].answer = lambda _: OutcomeUnknown("no answer")

    async def work(ours: Session) -> Address:
        await asyncio.gather(*(ours.get(n) for n in range(20)))
        return ours.node

    assert run(work) == B
    assert [len(node.connections) for node in nodes.values()] == [1, 1, 0]
    assert nodes[A].connections[0].closed


def test_the_nodes_of_the_ring_are_learnt(nodes: dict[Address, FakeNode]) -> None:
    infos = tuple((each.host, each.port, "00" * 20, "00" * 20) for each in (C, B, A))
    nodes[A].answer = lambda _: infos

    async def work(ours: Session) -> Address:
        assert await ours.get_conn_info() == infos
        nodes[A].down = True
        await ours.get("k")
        return ours.node

    assert run(work, (A,)) == C
