"""A ring as programs use it: the same code in asyncio and without."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from node import AsyncRing, Ring
from node.client.background import background
from node.errors import BadUsage, BadValue, NotARing, Unreachable, VersionConflict
from tests.ring.nodes import RingOfProcesses, eventually

VALUES = [b"\x00\xff", "text", 5, -(2**70), 1.5, True, None, [1, [2, "x"]], (1, "b"), {"a": [1, {"b": None}], 3: b"c"}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_keep_their_types(ring: Ring, value: Any) -> None:
    ring["key"] = value
    assert ring["key"] == value
    assert type(ring["key"]) is type(value)


def test_it_is_a_mapping(ring: Ring) -> None:
    ring["a"] = 1
    assert "a" in ring
    assert "b" not in ring
    assert list(ring) == ["a"]
    del ring["a"]
    with pytest.raises(KeyError, match="a"):
        ring["a"]
    with pytest.raises(KeyError, match="a"):
        del ring["a"]
    assert ring.get("a", "nothing") == "nothing"


def test_none_is_a_value_and_not_an_absent_key(ring: Ring) -> None:
    ring["none"] = None
    assert "none" in ring
    assert ring["none"] is None


def test_one_key_may_be_written_in_three_ways(ring: Ring) -> None:
    ring[1] = "one"
    assert ring["1"] == ring[b"1"] == "one"


def test_put_if_stores_only_over_the_version_it_names(ring: Ring) -> None:
    first = ring.put_if("key", "a", None)
    with pytest.raises(VersionConflict):
        ring.put_if("key", "b", None)
    second = ring.put_if("key", "b", first)
    assert second > first
    assert ring.get_versioned("key") == ("b", second)


def test_many_keys_at_a_time(ring: Ring) -> None:
    pairs = {f"key {n}": n for n in range(3_000)}
    ring.put_many(pairs)
    assert ring.get_many([*pairs, "no such key"]) == pairs
    assert ring.count() == 3_000
    assert dict(ring.items()) == pairs
    assert sorted(ring.keys("key 29")) == sorted(key for key in pairs if key.startswith("key 29"))
    assert ring.delete_many([*pairs, "no such key"]) == 3_000
    assert ring.count() == 0


def test_batches_larger_than_a_message_go_in_several(ring: Ring) -> None:
    pairs = {f"large {n}": bytes([n]) * 3_000_000 for n in range(8)}
    ring.put_many(pairs)
    assert ring.get_many(pairs) == pairs
    assert dict(ring.items("large")) == pairs


def test_empty_batches_are_nothing_to_do(ring: Ring) -> None:
    ring.put_many({})
    assert ring.get_many([]) == {}
    assert ring.delete_many([]) == 0


def test_increments_of_many_threads_add_up(ring: Ring) -> None:
    with ThreadPoolExecutor(16) as threads:
        totals = list(threads.map(lambda _: ring.increment("counter", 2), range(200)))
    assert sorted(totals) == list(range(2, 401, 2))
    assert ring["counter"] == 400
    assert ring.increment("share", 0.5) == 0.5
    ring["text"] = "no number"
    with pytest.raises(BadValue, match="only numbers"):
        ring.increment("text")
    assert ring["text"] == "no number"


def test_a_value_with_a_time_to_live_is_gone_after_it(ring: Ring) -> None:
    ring.put("brief", 1, ttl=0.3)
    ring.put("long", 2, ttl=1_000)
    assert ring["brief"] == 1
    eventually(lambda: "brief" not in ring, 5)
    assert list(ring.keys()) == ["long"]
    assert ring.delete("brief") is False
    ring.put_if("brief", "again", None)
    assert ring["brief"] == "again"


@pytest.mark.parametrize("ttl", [0, -1, "5", float("nan"), float("inf"), True])
def test_a_time_to_live_is_a_number_above_zero(ring: Ring, ttl: Any) -> None:
    with pytest.raises(BadValue, match="ttl"):
        ring.put("key", 1, ttl=ttl)


@pytest.mark.parametrize("key", [None, 1.5, ["a"], "a" * 5_000, "\ud800"])
def test_a_bad_key_is_named(ring: Ring, key: Any) -> None:
    with pytest.raises(BadValue, match="key"):
        ring.get(key)


def test_the_ring_can_be_looked_at(ring: Ring, chains: RingOfProcesses) -> None:
    ports = {node.port for node in chains.nodes}
    assert {info[1] for info in ring.overlay()} == ports
    ring["key"] = 1
    eventually(lambda: [role for _, _, role in ring.replicas("key")] == ["head", "middle", "tail"])
    replicas = ring.replicas("key")
    way = ring.lookup("key")
    assert way[-1][1] == replicas[0][1]
    eventually(lambda: not any(problem for *_, problem in ring.verify()))


def test_a_second_seed_is_used_where_the_first_is_silent(chains: RingOfProcesses) -> None:
    node = chains.nodes[1]
    with Ring.connect("127.0.0.1:1", f"{node.host}:{node.port}") as ring:
        ring["key"] = "value"
        assert ring["key"] == "value"


@pytest.mark.parametrize("consistency", ["chain", "eventual"])
def test_the_ring_is_looked_at_when_the_node_that_a_client_began_with_has_left(
    tmp_path: Path, consistency: str
) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        first, second, _ = processes.of(3, "--consistency", consistency)
        with Ring.connect(f"127.0.0.1:{first.port}") as ring:
            eventually(lambda: len({node for arc in ring.verify() for node in arc[3]}) == 3, what="three replicas")
            ring["key"] = 1
            assert first.terminate() == 0
            assert ring["key"] == 1
            assert second.port in {port for _, port, _ in ring.replicas("key")}
    finally:
        processes.close()


def test_what_is_no_ring_is_said() -> None:
    with pytest.raises(Unreachable, match="127.0.0.1:1"):
        Ring.connect("127.0.0.1:1")
    with pytest.raises(BadUsage, match="HOST:PORT"):
        Ring.connect("localhost:port")


def test_something_else_at_the_address_is_said(tmp_path: Path) -> None:
    async def attempt() -> None:
        async def chatter(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n" * 4)

        server = await asyncio.start_server(chatter, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises((NotARing, Unreachable)):
                await AsyncRing.connect(f"127.0.0.1:{port}")
        finally:
            server.close()

    asyncio.run(attempt())


def test_asyncio_has_the_same(chains: RingOfProcesses) -> None:
    async def use() -> None:
        async with await AsyncRing.connect(f"127.0.0.1:{chains.nodes[2].port}") as ring:
            await asyncio.gather(*(ring.put(f"async {n}", n) for n in range(100)))
            assert [await ring.get(f"async {n}") for n in range(100)] == list(range(100))
            assert {key async for key in ring.keys("async")} == {f"async {n}" for n in range(100)}
            assert await ring.delete_many([f"async {n}" for n in range(100)]) == 100

    asyncio.run(use())


def test_a_ring_is_not_used_on_its_own_loop(ring: Ring) -> None:
    async def inside() -> None:
        ring.get("key")

    with pytest.raises(BadUsage, match="AsyncRing"):
        background().run(inside())


def _child(address: str, answers: Any) -> None:
    with Ring.connect(address) as ring:
        answers.put(ring["parent"])


def test_a_forked_child_has_a_loop_of_its_own(ring: Ring, chains: RingOfProcesses) -> None:
    ring["parent"] = "was here"
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(f"127.0.0.1:{chains.nodes[0].port}", answers))
    child.start()
    assert answers.get(timeout=30) == "was here"
    child.join(30)
    assert child.exitcode == 0


def test_an_operation_ends_at_its_time_out(tmp_path: Path) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        (node,) = processes.of(1)
        with Ring.connect(f"127.0.0.1:{node.port}", timeout=1.0) as ring:
            ring["key"] = 1
            node.kill()
            began = time.monotonic()
            with pytest.raises(Exception, match=r"1\.0 s|answer|listen"):
                ring.get("key")
            assert time.monotonic() - began < 5
    finally:
        processes.close()
