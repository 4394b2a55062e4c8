"""Hearing of changes: each version once, in order, whatever becomes of the nodes that tell."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from node import AsyncRing, Ring
from node.client.watching import Event, Watch
from node.errors import BadUsage
from node.settings import Settings
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually

SETTINGS = Settings()


class Heard:
    """What a watch told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, key: str) -> list[tuple[int, int]]:
        return [event.version for event in self.events if event.key == key]


def test_changes_of_a_key_are_heard_in_order(ring: Ring) -> None:
    heard = Heard()
    ring["other"] = ring["key"] = 0
    with ring.watch("key", heard):
        versions = [ring.put("key", 1), ring.put("key", {"a": 2})]
        ring["other"] = 1
        ring.delete("key")
        versions.append(ring.put("key", 3))
        eventually(lambda: len(heard.events) == 4)
    assert [event.value for event in heard.events] == [1, {"a": 2}, None, 3]
    assert [event.deleted for event in heard.events] == [False, False, True, False]
    assert [event.version for event in heard.events if not event.deleted] == versions
    ring["key"] = 4
    assert len(heard.events) == 4


def test_changes_of_all_keys_with_a_prefix_are_heard(ring: Ring) -> None:
    heard = Heard()
    with ring.watch("user ", heard, prefix=True):
        ring.put_many({f"{kind} {n}": n for kind in ("user", "group") for n in range(50)})
        eventually(lambda: len(heard.events) == 50)
        ring["user 7"] = "again"
        eventually(lambda: len(heard.events) == 51)
    assert {str(event.key).split()[0] for event in heard.events} == {"user"}


def test_an_answer_that_takes_no_more_is_followed_by_another(ring: Ring) -> None:
    heard = Heard()
    with ring.watch("large", heard, prefix=True):
        for n in range(6):
            ring[f"large {n}"] = bytes(3_000_000)
        eventually(lambda: len(heard.events) == 6)


def test_many_watches_keep_nothing_else_waiting(chains: RingOfProcesses) -> None:
    """More than a node works on for one connection."""

    async def scenario() -> None:
        node = chains.nodes[0]
        async with await AsyncRing.connect(f"{node.host}:{node.port}") as ring:
            watches = await asyncio.gather(*(ring.watch("quiet") for _ in range(3 * SETTINGS.max_in_flight)))
            await asyncio.sleep(1)
            for n in range(3):
                pairs = {f"key {m}": n for m in range(30)}
                await ring.put_many(pairs)
                assert await ring.get_many(pairs) == pairs
            await ring.put("quiet", "no more")
            heard = await asyncio.gather(*(watch.__anext__() for watch in watches))
            assert {event.value for event in heard} == {"no more"}
            for watch in watches:
                watch.close()
            assert await ring.delete_many([*pairs, "quiet"]) == 31

    asyncio.run(scenario())


def test_what_a_callback_raises_comes_out_of_close(ring: Ring) -> None:
    called = threading.Event()

    def fail(event: Event) -> None:
        called.set()
        raise ValueError("enough")

    watching = ring.watch("key", fail)
    ring["key"] = 1
    assert called.wait(30)
    with pytest.raises(ValueError, match="enough"):
        watching.close()


def test_a_callback_may_use_the_ring(ring: Ring) -> None:
    with ring.watch("key", lambda event: ring.put("copy", event.value)):
        ring["key"] = "value"
        eventually(lambda: ring.get("copy") == "value")


@pytest.mark.parametrize("prefix", [False, True])
def test_each_version_is_heard_once_over_failovers_joins_and_leaves(tmp_path: Path, prefix: bool) -> None:
    processes = RingOfProcesses(tmp_path)
    over = threading.Event()
    try:
        nodes = processes.of(4)
        with Ring.connect(*(f"127.0.0.1:{node.port}" for node in nodes), timeout=30) as ring:
            keys = [f"key {n}" for n in range(8)] if prefix else ["key 0"]
            heard = Heard()

            def write(key: str) -> list[tuple[int, int]]:
                versions = []
                while not over.is_set():
                    versions.append(ring.put(key, len(versions)))
                    over.wait(0.005)
                return versions

            with ring.watch("key 0" if not prefix else "key", heard, prefix=prefix), ThreadPoolExecutor(8) as threads:
                writers = {key: threads.submit(write, key) for key in keys}
                try:
                    eventually(lambda: len(ring.replicas("key 0")) == 3, what="three replicas")
                    eventually(lambda: {3} == _keepers(ring), what="three keepers")
                    for _ in range(2):
                        tail = _node_at(processes, ring.replicas("key 0")[-1][1])
                        tail.kill()
                        eventually(lambda tail=tail: ring.replicas("key 0")[-1][1] != tail.port)
                        tail.start()
                        eventually(lambda: len(ring.replicas("key 0")) == 3, what="three replicas again")
                    newcomer = processes.node(first=nodes[0])
                    processes.agreed(5)
                    assert newcomer.terminate() == 0
                finally:
                    over.set()
                written = {key: writer.result(60) for key, writer in writers.items()}
                for key, versions in written.items():
                    eventually(lambda key=key, versions=versions: heard.of(key)[-1:] == versions[-1:])
            for key, versions in written.items():
                assert len(versions) > 20
                told = [(event.version, event.value) for event in heard.events if event.key == key]
                assert told == [(version, n) for n, version in enumerate(versions)], key
            assert not any(event.missed for event in heard.events)
    finally:
        over.set()
        processes.close()


def _node_at(processes: RingOfProcesses, port: int) -> NodeProcess:
    return next(node for node in processes.nodes if node.port == port)


def test_when_all_nodes_forgot_what_is_there_is_told(tmp_path: Path) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        (node,) = processes.of(1)
        with Ring.connect(f"127.0.0.1:{node.port}", timeout=30) as ring:
            heard = Heard()
            with ring.watch("key", heard):
                ring["key"] = 1
                eventually(lambda: len(heard.events) == 1)
                node.kill()
                node.start()
                last = ring.put("key", 2)
                eventually(lambda: heard.of("key")[-1:] == [last])
                assert ring.put("key", 3) > last
                eventually(lambda: len(heard.events) == 3)
            assert [event.value for event in heard.events] == [1, 2, 3]
    finally:
        processes.close()


def test_who_waits_with_a_time_out_loses_no_event() -> None:
    """Whenever the wait is broken off, at the very moment something comes too."""

    async def scenario(turns: int) -> None:
        unused: Any = None
        watch = Watch(b"key", True, unused, unused, unused, SETTINGS)
        watch._task = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        event = Event("key", 1, (1, 1))
        waiting = asyncio.create_task(watch.batch())
        await asyncio.sleep(0.01)
        await watch._tell(event)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        (heard,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(heard, asyncio.CancelledError):
            async with asyncio.timeout(10):
                heard = await watch.batch()
        assert heard == [event], turns
        watch.close()

    for turns in range(8):
        asyncio.run(scenario(turns))


def test_an_eventual_ring_cannot_be_watched(tmp_path: Path) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        (node,) = processes.of(1, "--consistency", "eventual")
        with Ring.connect(f"127.0.0.1:{node.port}") as ring, pytest.raises(BadUsage, match="chain"):
            ring.watch("key", print)
    finally:
        processes.close()


def _keepers(ring: Ring) -> set[int]:
    """How many nodes keep the ring map, as each node knows."""
    return {0 if said is None else said["keepers"] for said in ring.health().values()}
