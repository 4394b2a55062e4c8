"""Clients that put a ring under load and write down what they asked and were told, for the checker of histories."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from node import Ring
from node.errors import Definite, RingError, VersionConflict
from node.simulation.history import CONFLICT, History, Operation
from tests.ring.nodes import is_remote

KEYS = 20
DEFINITE = ("Unavailable", "NoQuorum")


class Recorder:
    """A history that many threads write, one at a time."""

    def __init__(self) -> None:
        self.history = History()
        self._lock = threading.Lock()

    def invoke(self, *what: Any) -> Operation:
        with self._lock:
            return self.history.invoke(*what)

    def ok(self, operation: Operation, answer: Any) -> None:
        with self._lock:
            self.history.ok(operation, answer)

    def failed(self, operation: Operation) -> None:
        with self._lock:
            self.history.failed(operation)

    def unknown(self, operation: Operation) -> None:
        with self._lock:
            self.history.unknown(operation)


class Client(threading.Thread):
    """Asks one operation after the other, about keys that all clients share, until told to stop."""

    def __init__(self, name: str, recorder: Recorder, pause: float = 0.0) -> None:
        """`pause`: seconds between two operations."""
        super().__init__(daemon=True)
        self.name = name
        self.recorder = recorder
        self.random = random.Random(name)
        self.going_on = True
        self.error: BaseException | None = None
        self.told: Counter[str] = Counter()
        """How often it was told what; "ok" for an answer."""
        self.longest = 0.0
        """The longest time without an answer, in seconds."""
        self._pause = pause
        self._answered = time.monotonic()
        self._turn = 0
        self._versions: dict[str, Any] = {}

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def work(self) -> None:
        raise AssertionError("a kind of client says how it works")

    def next(self) -> tuple[Operation, tuple[Any, ...]]:
        """Invoke another operation; it, and the arguments of the call."""
        kind = self.random.choices(["get", "get_versioned", "put", "put_if", "delete"], [3, 3, 3, 2, 1])[0]
        key = f"key {self.random.randrange(KEYS)}"
        self._turn += 1
        value = f"{self.name}/{self._turn}" if kind in ("put", "put_if") else None
        expected = self._versions.get(key) if kind == "put_if" else None
        arguments = (key, *([value] if value else []), *([expected] if kind == "put_if" else []))
        return self.recorder.invoke(self.name, kind, key, value, expected), arguments

    def answered(self, operation: Operation, answer: Any) -> None:
        """It was told this."""
        if operation.kind == "get_versioned":
            self._versions[str(operation.key)] = answer and answer[1]
        self.recorder.ok(operation, answer)
        self.told["ok"] += 1
        now = time.monotonic()
        self.longest, self._answered = max(self.longest, now - self._answered), now
        time.sleep(self._pause)


class Node(Protocol):
    """Where a plain client connects to."""

    def connect(self) -> Any: ...


class PlainClient(Client):
    """A stock client of RPyC, of one node after the other."""

    def __init__(self, name: str, recorder: Recorder, nodes: Sequence[Node], pause: float = 0.0) -> None:
        super().__init__(name, recorder, pause)
        self._nodes = nodes

    def work(self) -> None:
        while self.going_on:
            self._visit(self.random.choice(self._nodes))

    def _visit(self, node: Node) -> None:
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
        operation, arguments = self.next()
        try:
            answer = getattr(root, operation.kind.value)(*arguments)
        except Exception as error:
            return self._failed(operation, error)
        self.answered(operation, answer)
        return True

    def _failed(self, operation: Operation, error: Exception) -> bool:
        self.told[type(error).__name__.rpartition(".")[2]] += 1
        if is_remote(error, "VersionConflict"):
            self.answered(operation, CONFLICT)
        elif any(is_remote(error, name) for name in DEFINITE):
            self.recorder.failed(operation)
        elif is_remote(error, "BadValue"):
            raise error  # of ours, not of the ring's
        else:
            self.recorder.unknown(operation)
            return is_remote(error, "OutcomeUnknown")
        return True


class RingClient(Client):
    """Our own client, which tries again by itself: what it raises is an error that a program would see."""

    def __init__(self, name: str, recorder: Recorder, nodes: Sequence[str], pause: float = 0.0) -> None:
        super().__init__(name, recorder, pause)
        self._nodes = nodes
        self.errors: list[str] = []

    def work(self) -> None:
        with Ring.connect(*self._nodes) as ring:
            while self.going_on:
                operation, arguments = self.next()
                try:
                    self.answered(operation, getattr(ring, operation.kind)(*arguments))
                except VersionConflict:
                    self.answered(operation, CONFLICT)
                except RingError as error:
                    self.errors.append(f"{operation.kind}: {type(error).__name__}: {error}")
                    (self.recorder.failed if isinstance(error, Definite) else self.recorder.unknown)(operation)
