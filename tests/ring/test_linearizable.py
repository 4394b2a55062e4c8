"""Real processes and plain clients, with kill -9 and SIGSTOP one at a time: the history is linearizable."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import rpyc

from node.simulation.linearizability import CONFLICT, History, check
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
            connection = rpyc.connect(node.host, node.port, config={"sync_request_timeout": 20})
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


def run_for(ring: RingOfProcesses, seconds: float, path: Path) -> None:
    nodes = ring.of(5)
    with nodes[0].connection() as root:
        eventually(lambda: all(not arc[4] for arc in root.verify()), what="three replicas of everything")
    history, lock = History(), threading.Lock()
    clients = [Client(number, nodes, history, lock) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    chance = random.Random(1)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        victim = chance.choice(nodes)
        if chance.random() < 0.5:
            victim.kill()
            time.sleep(chance.uniform(0, 4))
            victim.start()
        else:
            victim.signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0.1, 6))
            victim.signal(signal.SIGCONT)
        with nodes[0].connection() as root:
            eventually(lambda root=root: all(not a[4] for a in root.verify() if "not compared" not in a[4]), 60)
    for client in clients:
        client.going_on = False
    for client in clients:
        client.join(30)
        assert client.error is None and not client.is_alive()
    history.dump(path)
    verdict = check(history)
    assert verdict, f"{verdict}\nthe history is in {path}"
    done = [operation for operation in history.operations if operation.outcome == "ok"]
    assert len(done) > 100


def test_a_history_of_plain_clients_is_linearizable(ring: RingOfProcesses, tmp_path: Path) -> None:
    run_for(ring, 8, tmp_path / "history")


@pytest.mark.soak
def test_a_minute_of_plain_clients_is_linearizable(ring: RingOfProcesses, tmp_path: Path) -> None:
    run_for(ring, 60, tmp_path / "history")
