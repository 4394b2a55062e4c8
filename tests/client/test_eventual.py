"""The client of an eventual ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node import Ring
from node.errors import BadUsage
from tests.ring.nodes import RingOfProcesses, eventually


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RingOfProcesses]:
    started = RingOfProcesses(tmp_path_factory.mktemp("eventual"))
    try:
        started.of(4, "--consistency", "eventual")
        yield started
    finally:
        started.close()


@pytest.fixture
def ring(processes: RingOfProcesses) -> Iterator[Ring]:
    with Ring.connect(*(f"127.0.0.1:{node.port}" for node in processes.nodes)) as client:
        yield client


def test_keys_one_at_a_time_and_many(ring: Ring) -> None:
    version = ring.put("key", {"a": [1]})
    assert ring.get_versioned("key") == ({"a": [1]}, version)
    assert ring.put("key", 2) > version
    assert ring.delete("key") is True
    assert "key" not in ring
    pairs = {f"key {n}": n for n in range(2_500)}
    ring.put_many(pairs)
    assert ring.get_many([*pairs, "none"]) == pairs
    assert eventually(lambda: dict(ring.items("key ")) == pairs)
    assert eventually(lambda: sorted(ring.keys("key 24")) == sorted(key for key in pairs if key.startswith("key 24")))
    assert eventually(lambda: ring.count() == 2_500)
    assert ring.delete_many([*pairs, "none"]) == 2_500
    assert eventually(lambda: ring.count() == 0)


def test_large_values_come_in_several_answers(ring: Ring) -> None:
    pairs = {f"large {n}": bytes([n]) * 3_000_000 for n in range(6)}
    ring.put_many(pairs)
    assert ring.get_many(pairs) == pairs
    assert eventually(lambda: dict(ring.items("large")) == pairs)
    ring.delete_many(pairs)


def test_what_needs_a_last_version_is_refused(ring: Ring) -> None:
    for refused in (
        lambda: ring.put_if("key", 1, None),
        lambda: ring.increment("key"),
        lambda: ring.put("key", 1, ttl=5),
        lambda: ring.put_many({"key": 1}, ttl=5),
    ):
        with pytest.raises(BadUsage, match="--consistency chain"):
            refused()


def test_it_goes_on_while_a_node_is_away(ring: Ring, processes: RingOfProcesses) -> None:
    ring.put_many({f"before {n}": n for n in range(100)})
    assert eventually(lambda: not any(arc[4] for arc in ring.verify()))  # others get a write later
    victim = processes.nodes[1]
    victim.kill()
    assert ring.get_many([f"before {n}" for n in range(100)]) == {f"before {n}": n for n in range(100)}
    for n in range(30):
        ring[f"during {n}"] = n
    assert eventually(lambda: len(list(ring.keys("during"))) == 30)
    victim.start()
    processes.agreed(4)
    assert eventually(lambda: not any(arc[4] for arc in ring.verify()))
    assert ring.get_many([f"during {n}" for n in range(30)]) == {f"during {n}": n for n in range(30)}


def test_a_ring_that_was_started_again_is_still_an_eventual_one_for_clients_and_newcomers(tmp_path: Path) -> None:
    processes = RingOfProcesses(tmp_path)
    try:
        nodes = processes.of(2, "--consistency", "eventual", "--replicas", "2")
        assert nodes[0].call("put", "key", 1)
        for node in nodes:
            node.kill()
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            said = dict(node.ready().call("health"))
            assert (said["consistency"], said["replicas"]) == ("eventual", 2)
            with Ring.connect(f"127.0.0.1:{node.port}") as ring:
                assert ring.get("key") == 1
        processes.node(first=nodes[0])
        processes.agreed(3)
    finally:
        processes.close()
