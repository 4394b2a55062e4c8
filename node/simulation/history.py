"""Histories of what clients asked of a key-value store and were told, as they are recorded, dumped and loaded.

Pure: neither store nor network is known here, and the order of the recorded events is all the time that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

Value = str | int
Version = tuple[Any, ...]
CONFLICT: Final = "conflict"
FORMAT: Final = "history of a key-value store, 1"


class Kind(StrEnum):
    """What was asked, and what an answer to it is."""

    PUT = "put"  # the new version, or None if the store does not tell
    GET = "get"  # the value, or None
    GET_VERSIONED = "get_versioned"  # (value, version), or None
    DELETE = "delete"  # whether there was something to delete
    PUT_IF = "put_if"  # the new version, or CONFLICT: the version was not the expected one


class Outcome(StrEnum):
    """What is known of an operation. UNKNOWN: it happens at some time after its invocation, or never."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


READS: Final = (Kind.GET, Kind.GET_VERSIONED)
PUTS: Final = (Kind.PUT, Kind.PUT_IF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a client, from its invocation to its response. Raises ValueError if it makes no sense."""

    client: str
    kind: Kind
    key: Value
    value: Value | None = None  # what a put or put_if writes; never None, which is how nothing reads
    version: Version | None = None  # what a put_if expects; None: that there is nothing
    invoked: int  # the number of the event, which also names the operation
    invoked_at: float  # for display
    outcome: Outcome = Outcome.UNKNOWN
    answer: Any = None
    responded: int | None = None
    responded_at: float | None = None

    def __post_init__(self) -> None:
        for name in ("version", "answer"):  # as JSON has them, tuples are lists
            object.__setattr__(self, name, _tuples(getattr(self, name)))
        if not isinstance(self.key, Value) or isinstance(self.value, Value) is not (self.kind in PUTS):
            raise ValueError(f"keys and what a put writes are text or integers, and nothing else writes: {self}")
        if self.version is not None and not (self.kind is Kind.PUT_IF and isinstance(self.version, tuple)):
            raise ValueError(f"only a put_if expects a version, and that is a tuple: {self}")
        if self.responded is None and self.outcome is not Outcome.UNKNOWN:
            raise ValueError(f"an outcome without a response: {self}")
        if self.responded is not None and self.responded <= self.invoked:
            raise ValueError(f"the response does not come after the invocation: {self}")
        if not (_answers(self.kind, self.answer) if self.outcome is Outcome.OK else self.answer is None):
            raise ValueError(f"that is no answer: {self}")

    def __str__(self) -> str:
        asked = ", ".join(repr(part) for part in (self.value, self.version) if part is not None)
        told = repr(self.answer) if self.outcome is Outcome.OK else f"({self.outcome})"
        return f"{self.kind}({asked}) -> {told}"


def _answers(kind: Kind, answer: Any) -> bool:
    match kind, answer:
        case (Kind.PUT | Kind.GET | Kind.GET_VERSIONED, None) | (Kind.PUT_IF, "conflict"):
            return True
        case (Kind.PUT | Kind.PUT_IF, tuple()) | (Kind.GET, str() | int()) | (Kind.DELETE, bool()):
            return True
        case Kind.GET_VERSIONED, (str() | int(), tuple()):
            return True
    return False


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


class History:
    """What clients did, recorded as it happens: the order in which these methods are called is the order of events."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._events = 0
        self._operations: dict[int, Operation] = {}

    @property
    def operations(self) -> list[Operation]:
        """All of them, in the order of their invocations."""
        return list(self._operations.values())

    def invoke(
        self, client: str, kind: str, key: Value, value: Value | None = None, version: Version | None = None
    ) -> Operation:
        """A client asks; `version` is what a put_if expects. Until an outcome is told, it is unknown."""
        event, now = self._events + 1, self._clock()
        operation = Operation(
            client=client, kind=Kind(kind), key=key, value=value, version=version, invoked=event, invoked_at=now
        )
        self._add(operation)
        return operation

    def ok(self, operation: Operation, answer: Any) -> None:
        """The answer has arrived; `Kind` says what it is."""
        self._respond(operation, Outcome.OK, answer)

    def failed(self, operation: Operation) -> None:
        """It certainly did not happen and never will."""
        self._respond(operation, Outcome.FAILED)

    def unknown(self, operation: Operation) -> None:
        """The client gave up; it may have happened, or happen yet."""
        self._respond(operation, Outcome.UNKNOWN)

    def dump(self, path: Path) -> None:
        """Write a file: a line that says what it is and how much, then each operation as a line of JSON."""
        encode = msgspec.json.encode
        first = {"format": FORMAT, "operations": len(self._operations)}
        path.write_bytes(b"".join(encode(line) + b"\n" for line in (first, *self._operations.values())))

    @classmethod
    def load(cls, path: Path) -> History:
        """The history in a file that `dump` wrote. Raises ValueError if it is not one, OSError if it cannot be read."""
        history = cls()
        first, *lines = path.read_bytes().splitlines() or [b""]
        try:
            head = msgspec.json.decode(first)
        except ValueError:
            head = None
        if type(head) is not dict or head.get("format") != FORMAT:
            raise ValueError("not a history: its first line does not say so")
        if head.get("operations") != len(lines):
            raise ValueError(f"not a whole history: {head.get('operations')} operations announced, {len(lines)} found")
        for number, line in enumerate(lines, 2):
            try:
                history._add(msgspec.json.decode(line, type=Operation))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is not of a history: {error}") from None
        return history

    def _respond(self, operation: Operation, outcome: Outcome, answer: Any = None) -> None:
        asked = self._operations[operation.invoked]
        if asked.responded is not None:
            raise ValueError(f"it has an outcome already: {asked}")
        now = self._clock()
        told = replace(asked, outcome=outcome, answer=answer, responded=self._events + 1, responded_at=now)
        self._operations[asked.invoked] = told
        self._events += 1

    def _add(self, operation: Operation) -> None:
        if operation.invoked <= next(reversed(self._operations), 0):
            raise ValueError("operations are not in the order of their invocations")
        self._operations[operation.invoked] = operation
        self._events = max(self._events, operation.responded or operation.invoked)
