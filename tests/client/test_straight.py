"""Operations of one key go from the thread that makes them straight to the node, without the loop."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node import Ring
from node.client.background import background
from node.errors import BadUsage
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually


@contextmanager
def blocked_loop() -> Iterator[None]:
    """Nothing happens on the loop of this process's rings."""
    blocked, free = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        free.wait(30)

    thread = threading.Thread(target=lambda: background().run(block()))
    thread.start()
    assert blocked.wait(10)
    try:
        yield
    finally:
        free.set()
        thread.join()


def test_no_loop_is_needed(ring: Ring) -> None:
    eventually(lambda: not any(problem for *_, problem in ring.verify()), what="every arc has its replicas")
    ring["warm"] = 1
    for n in range(50):
        ring[f"key {n}"] = -n  # learns where the arcs are now
    with blocked_loop():
        for n in range(50):
            ring.put(f"key {n}", n)
        assert [ring.get(f"key {n}") for n in range(50)] == list(range(50))
        assert ring.increment("warm", 2) == 3
        assert ring.delete("warm")
        version = ring.put_if("warm", "new", None)
        assert ring.get_versioned("warm") == ("new", version)


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[tuple[NodeProcess, Ring]]:
    """A node, whom nobody stands in for, and a client of it."""
    processes = RingOfProcesses(tmp_path)
    try:
        (node,) = processes.of(1)
        with Ring.connect(f"127.0.0.1:{node.port}", timeout=20) as ring:
            ring["key"] = 1
            yield node, ring
    finally:
        processes.close()


def test_what_cannot_be_done_at_once_goes_on_on_the_loop(lonely: tuple[NodeProcess, Ring]) -> None:
    node, ring = lonely
    node.kill()
    again = threading.Timer(0.3, node.start)
    again.start()
    ring["key"] = 2
    assert ring.increment("key") == 3
    again.join()
    node.kill()
    node.start()
    assert ring["key"] == 3


def test_a_node_that_came_back_is_asked_straight_again(lonely: tuple[NodeProcess, Ring]) -> None:
    node, ring = lonely
    node.kill()
    node.start()
    lines = ring._ring._lines
    assert lines is not None

    def straight() -> bool:
        assert ring["key"] == 1
        return any(lines._free.values())

    eventually(straight)
    assert [len(free) for free in lines._free.values()] == [1], "the old ones are let go"


def _child(ring: Ring, answers: Any) -> None:
    for use in (lambda: ring.get("key"), lambda: ring.put("key", 2), ring.count):
        try:
            use()
        except BadUsage as error:
            answers.put(str(error))


def test_a_forked_child_is_told_to_connect_anew(ring: Ring) -> None:
    """Its writes would go under the names of its parent's, and be taken for these."""
    ring["key"] = 1
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(ring, answers))
    child.start()
    assert all("connect anew" in answers.get(timeout=30) for _ in range(3))
    child.join(30)
    assert child.exitcode == 0
    assert ring["key"] == 1


def test_an_interrupted_call_leaves_no_answer_for_the_next(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    from node.remote import line

    ring["one"], ring["two"] = 1, 2
    taken = line.Splitter.take
    interrupted = []

    def interrupts(self: Any) -> Any:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return taken(self)

    monkeypatch.setattr(line.Splitter, "take", interrupts)
    with pytest.raises(KeyboardInterrupt):
        ring.get("one")
    assert [ring["two"] for _ in range(10)] == [2] * 10
