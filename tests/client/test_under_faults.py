"""One `Ring` object, 32 threads, nodes killed and started again: nothing acknowledged is lost, nothing hangs."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node import Ring
from node.errors import NoQuorum, OutcomeUnknown, Overloaded, Unavailable
from tests.ring.nodes import RingOfProcesses, eventually

DOCUMENTED = (NoQuorum, OutcomeUnknown, Overloaded, Unavailable)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_threads_hammer_a_ring_whose_nodes_are_killed(tmp_path: Path, kills: int) -> None:
    processes = RingOfProcesses(tmp_path)
    over = threading.Event()
    acknowledged: dict[str, int] = {}
    perhaps: dict[str, set[int]] = {}
    failures: list[str] = []

    def hammer(number: int) -> int:
        """Writes its own keys in turn, and reads what it wrote."""
        chance = random.Random(number)
        done = 0
        while not over.is_set():
            key, value = f"{number} {chance.randrange(20)}", done + 1
            try:
                if chance.random() < 0.2:
                    batch = [f"{number} {n}" for n in range(20)]
                    found = ring.get_many(batch)
                    for each in batch:
                        _check(each, found.get(each))
                elif chance.random() < 0.5:
                    ring[key] = value
                    acknowledged[key] = value
                else:
                    _check(key, ring.get(key))
            except OutcomeUnknown:
                perhaps.setdefault(key, set()).add(value)
            except DOCUMENTED:
                time.sleep(0.05)
            done += 1
        return done

    def _check(key: str, found: int | None) -> None:
        if found != acknowledged.get(key) and found not in perhaps.get(key, ()):
            failures.append(f"{key}: {found}, not {acknowledged.get(key)} nor {perhaps.get(key)}")

    try:
        nodes = processes.of(4)
        with Ring.connect(*(f"127.0.0.1:{node.port}" for node in nodes)) as ring, ThreadPoolExecutor(32) as threads:
            eventually(lambda: not any(arc[4] for arc in ring.verify()), what="three replicas of all")
            eventually(lambda: {3} == _keepers(ring), what="three keepers")
            futures = [threads.submit(hammer, number) for number in range(32)]
            try:
                for n in range(kills):
                    time.sleep(0.5)
                    victim = nodes[n % len(nodes)]
                    victim.kill()
                    time.sleep(0.5)
                    victim.start()
                    processes.agreed(4)
            finally:
                over.set()
            operations = sum(future.result(60) for future in futures)
            assert not failures, failures[:5]
            assert operations > 100 * kills
            for key, value in ring.get_many(acknowledged).items():
                _check(key, value)
            assert not failures, failures[:5]
    finally:
        over.set()
        processes.close()


def _keepers(ring: Ring) -> set[int]:
    """How many nodes keep the ring map, as each node knows."""
    return {0 if said is None else said["keepers"] for said in ring.health().values()}
