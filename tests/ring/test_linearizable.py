"""Real processes and plain clients; one node at a time is killed, stopped or cut off: the history is linearizable."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node.simulation.linearizability import check
from tests.ring.clients import PlainClient, Recorder
from tests.ring.hosts import Hosts, needs_namespaces, ring_on
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually

CLIENTS = 16


Mishap = Callable[[NodeProcess, random.Random], None]


def killed(victim: NodeProcess, chance: random.Random) -> None:
    victim.kill()
    time.sleep(chance.uniform(0, 4))
    victim.start()


def stopped(victim: NodeProcess, chance: random.Random) -> None:
    victim.signal(signal.SIGSTOP)
    time.sleep(chance.uniform(0.1, 6))
    victim.signal(signal.SIGCONT)


def run_for(nodes: list[NodeProcess], seconds: float, path: Path, mishaps: list[Mishap]) -> None:
    def compared() -> bool:
        return all(not arc[4] or "not compared" in arc[4] for arc in nodes[0].call("verify"))

    eventually(compared, what="three replicas of everything")
    recorder = Recorder()
    clients = [PlainClient(str(number), recorder, nodes) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        chance.choice(mishaps)(chance.choice(nodes), chance)
        eventually(compared, 60, "three replicas of everything again")
    for client in clients:
        client.going_on = False
    for client in clients:
        client.join(30)
        assert client.error is None and not client.is_alive()
    history = recorder.history
    history.dump(path)
    verdict = check(history)
    assert verdict, f"{verdict}\nthe history is in {path}, the mishaps are those of seed {seed}"
    done = [operation for operation in history.operations if operation.outcome == "ok"]
    assert len(done) > 100


def test_a_history_of_plain_clients_is_linearizable(ring: RingOfProcesses, tmp_path: Path) -> None:
    run_for(ring.of(5), 8, tmp_path / "history", [killed, stopped])


@needs_namespaces
@pytest.mark.soak
def test_a_minute_of_plain_clients_is_linearizable(hosts: Hosts, tmp_path: Path) -> None:
    ring = ring_on(hosts, tmp_path, count=5)

    def cut_off(victim: NodeProcess, chance: random.Random) -> None:
        others = [n for n, node in enumerate(ring.nodes) if node is not victim]
        away = chance.choice([others, chance.sample(others, chance.randrange(1, len(others)))])
        hosts.cut([ring.nodes.index(victim)], away)
        time.sleep(chance.uniform(0.1, 6))
        hosts.heal()

    try:
        ring.agreed(5)
        run_for(ring.nodes, 60, tmp_path / "history", [killed, stopped, cut_off])
    finally:
        ring.close()
