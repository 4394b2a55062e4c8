"""Real processes and plain clients; one node at a time is killed, stopped or cut off: the history is linearizable."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.simulation.history import CONFLICT, History
from node.simulation.linearizability import check
from tests.ring.hosts import Hosts, needs_namespaces, ring_on
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually, is_remote

KEYS = 20
CLIENTS = 16


class Client(threading.Thread):
    """A plain client of random nodes. What it is told goes into the history, which is taken by one at a time."""

    def __init__(self, number: int, nodes: list[NodeProcess], history: History, lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        self.name = str(number)
        self.nodes = nodes
        self.history = history
        self.lock = lock
        self.random = random.Random(number)
        self.going_on = True
        self.turn = 0
        self.versions: dict[str, Any] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self.going_on:
                self._visit(self.random.choice(self.nodes))
        except BaseException as error:
            self.error = error

    def _visit(self, node: NodeProcess) -> None:
        """A few operations through one node."""
        try:
            connection = node.connect()
            root = connection.root
        except (OSError, EOFError):
            time.sleep(0.05)
            return
        try:
            for _ in range(20):
                if not self.going_on or not self._one(root):
                    return
        finally:
            with suppress(OSError, EOFError):
                connection.close()

    def _one(self, root: Any) -> bool:
        """One operation; False if the connection is of no use any more."""
        kind = self.random.choices(["get", "get_versioned", "put", "put_if", "delete"], [3, 3, 3, 2, 1])[0]
        key = f"key {self.random.randrange(KEYS)}"
        self.turn += 1
        value = f"{self.name}/{self.turn}" if kind in ("put", "put_if") else None
        expected = self.versions.get(key) if kind == "put_if" else None
        arguments = [key, *([value] if value else []), *([expected] if kind == "put_if" else [])]
        with self.lock:
            operation = self.history.invoke(self.name, kind, key, value, expected)
        try:
            answer = getattr(root, kind)(*arguments)
        except Exception as error:
            return self._failed(operation, error)
        if kind == "get_versioned":
            self.versions[key] = answer and answer[1]
        with self.lock:
            self.history.ok(operation, answer)
        return True

    def _failed(self, operation: Any, error: Exception) -> bool:
        with self.lock:
            if is_remote(error, "VersionConflict"):
                self.history.ok(operation, CONFLICT)
            elif is_remote(error, "Unavailable") or is_remote(error, "NoQuorum"):
                self.history.failed(operation)
            else:
                self.history.unknown(operation)
                return is_remote(error, "OutcomeUnknown")
        return True


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
    history, lock = History(), threading.Lock()
    clients = [Client(number, nodes, history, lock) for number in range(CLIENTS)]
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
