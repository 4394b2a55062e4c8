"""Histories of what clients asked of a key-value store and were told, and whether one atomic store could have said so.

Key by key, since keys are independent: Wing and Gong's search over the list of calls and returns with Lowe's memory of
configurations (Lowe, "Testing for linearizability", 2017). Pure: neither store nor network is known here, and the order
of the recorded events is all the time that counts. `python -m node.simulation.linearizability FILE` checks a dump.

What keeps the search narrow, each a step that loses no answer:

- A configuration is the first operation not yet placed, a bitset over those behind it, the state, and the operations of
  unknown outcome used up. Where none is pending the bitset is empty: all ways that lead to the same state meet there.
- An operation that fits and leaves the state as it is (most reads) is placed at once: there it is in nobody's way.
- Versions that the store told put the writes in order: of those that overlap, the smallest goes first.
- An operation of unknown outcome stays pending for ever. It is placed only right before one that needs it, since up to
  there it can be put off; so a write that nobody saw costs nothing. To drop it beforehand would be unsound: a conflict,
  or a delete that answers True, may need it though its value was never read.
- A version not told is not known to the state until an observation tells it, or says what it is not. No token needs to
  name its writer: a state holds one version at a time, and a write happens once. A state whose version is not known
  allows all that it allows with any version, so ways that only tell more or use up more are left out.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

Value = str | int
Version = tuple[Any, ...]
CONFLICT: Final = "conflict"
BUDGET: Final = 5_000_000  # attempts to place an operation, for each key; some 20 seconds
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


# -- histories ---------------------------------------------------------------------------------------------------


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


# -- what one key of an atomic store does ------------------------------------------------------------------------


class _State(NamedTuple):
    value: Any  # None: there is nothing
    version: int | None  # None: not known yet
    excluded: frozenset[int]  # what a version that is not known certainly is not
    highest: int  # the highest version known so far, those of deleted values included


_UNREAD: Final = (
    "a value that was never read",
)  # what writes of unknown outcome wrote, if so: then they are all alike
_NONE: Final[frozenset[int]] = frozenset()
_EMPTY: Final = _State(None, None, _NONE, -1)


class _Call:
    """An operation as the search wants it: its versions are ranks among all of its key."""

    def __init__(self, operation: Operation, ranks: dict[Version | None, int]) -> None:
        answer = operation.answer
        self.operation, self.kind, self.answer = operation, operation.kind, answer
        self.invoked, self.responded = operation.invoked, operation.responded or 0
        self.conflict = self.kind is Kind.PUT_IF and answer == CONFLICT
        self.reads = self.kind in READS or self.conflict
        seen, told = answer if self.kind is Kind.GET_VERSIONED and answer else (answer, None)
        self.value: Any = operation.value if self.kind in PUTS else seen
        self.expected = ranks.get(operation.version)
        self.version = ranks.get(answer if self.kind in PUTS and not self.conflict else told)


_What = tuple[Kind | None, Any]
_ANY: Final[_What] = (None, None)
_PUT: Final[_What] = (Kind.PUT, None)
_DELETE: Final[_What] = (Kind.DELETE, None)


class _Store:
    """What calls do to the state of their key. If it is `growing`, versions strictly grow from write to write."""

    def __init__(self, calls: list[_Call], growing: bool) -> None:
        self.growing = growing
        told = [call for call in calls if call.version is not None]
        self._told = {call.version for call in told if call.kind in PUTS}
        self._shown = {call.version: call.value for call in told if call.reads}

    def after(self, call: _Call, state: _State) -> _State | None:
        """The state after a call, the very same one if it stays as it is; None if the answer is not possible now."""
        match call.kind:
            case Kind.PUT:
                return self._written(call, state)
            case Kind.GET:
                return state if state.value == call.value else None
            case Kind.GET_VERSIONED if state.value != call.value:
                return None
            case Kind.GET_VERSIONED:
                return state if call.version is None else self._known(state, call.version)
            case Kind.PUT_IF if call.conflict:
                return self._conflicting(call, state)
            case Kind.PUT_IF if (call.expected is None) is not (state.value is None):
                return None
            case Kind.PUT_IF:
                found = state if call.expected is None else self._known(state, call.expected)
                return found and self._written(call, found)
        if call.answer not in (None, state.value is not None):
            return None
        return state if state.value is None else _State(None, None, _NONE, state.highest)

    def wants(self, call: _Call) -> _What | None:
        """What may make a call possible if it comes right before: any operation, any put, any delete or the put of a
        value. Versions that the store told are those of other writes than the ones whose outcome is unknown."""
        ours = self.growing and (call.expected if call.kind is Kind.PUT_IF else call.version) in self._told
        match call.kind:
            case Kind.PUT_IF if call.conflict:
                return _PUT if call.expected is None else _ANY
            case Kind.DELETE:
                return _PUT if call.answer else _DELETE
            case Kind.PUT_IF if call.expected is None:
                return _DELETE
            case Kind.PUT_IF if not ours:
                return (Kind.PUT, self._shown[call.expected]) if self.growing and call.expected in self._shown else _PUT
            case Kind.GET | Kind.GET_VERSIONED if not ours:
                return _DELETE if call.value is None else (Kind.PUT, call.value)
        return None

    def hopeless(self, extra: _Call, state: _State) -> bool:
        """Whether nothing of unknown outcome leads from here to a put_if: the version it expects is another write's."""
        return self.growing and extra.expected != state.version and extra.expected in self._told

    def _written(self, call: _Call, state: _State) -> _State | None:
        if call.version is None:
            return _State(call.value, None, _NONE, state.highest)
        if self.growing and call.version <= state.highest:
            return None
        return _State(call.value, call.version, _NONE, call.version if self.growing else -1)

    def _known(self, state: _State, version: int) -> _State | None:
        """The state of which this is known to be the version."""
        if state.version is not None:
            return state if state.version == version else None
        if not self._possible(state, version):
            return None
        return _State(state.value, version, _NONE, version if self.growing else -1)

    def _conflicting(self, call: _Call, state: _State) -> _State | None:
        if call.expected is None or state.value is None:
            return state if (call.expected is None) is (state.value is not None) else None
        if state.version is not None:
            return state if state.version != call.expected else None
        if not self._possible(state, call.expected):
            return state
        return state._replace(excluded=state.excluded | {call.expected})

    def _possible(self, state: _State, version: int) -> bool:
        """Whether a version that is not known may be this one. As long as versions grow, each is of one write only."""
        if version in state.excluded:
            return False
        if not self.growing:
            return True
        mine = self._shown.get(version, state.value) == state.value
        return mine and version > state.highest and version not in self._told


def _versions(operations: list[Operation]) -> list[Version]:
    """All versions of one key that were told or expected, in their order. Raises ValueError if they have none."""
    named = {operation.version for operation in operations}
    for operation in operations:
        answer = operation.answer
        named.add(answer[1] if answer and operation.kind is Kind.GET_VERSIONED else answer)
    try:
        return sorted(version for version in named if isinstance(version, tuple))
    except TypeError:
        raise ValueError(f"key {operations[0].key!r}: its versions cannot be compared with each other") from None


def _calls(operations: list[Operation]) -> tuple[list[_Call], list[_Call]]:
    """The calls on one key that happened, and those that may have; both in the order of their invocations."""
    ranks: dict[Version | None, int] = {version: rank for rank, version in enumerate(_versions(operations))}
    sure = [_Call(operation, ranks) for operation in operations if operation.outcome is Outcome.OK]
    perhaps = [_Call(operation, ranks) for operation in operations if operation.outcome is Outcome.UNKNOWN]
    read = {call.value for call in sure if call.kind in READS}
    for extra in perhaps:
        extra.value = extra.value if extra.value in read else _UNREAD
    return sure, [extra for extra in perhaps if extra.kind not in READS]


# -- the search --------------------------------------------------------------------------------------------------


class _Exhausted(Exception):
    """The budget is spent."""


class _Events:
    """Calls and returns not yet placed: a linked list that operations are lifted out of and put back into."""

    def __init__(self, calls: list[_Call]) -> None:
        called = [(call.invoked, index) for index, call in enumerate(calls)]
        returned = [(call.responded, ~index) for index, call in enumerate(calls)]
        self._owner = [0, *(owner for _, owner in sorted(called + returned))]
        size = len(self._owner)
        self._next, self._last = [*range(1, size), 0], [size - 1, *range(size - 1)]
        self._at = {self._owner[at]: at for at in range(1, size)}

    def window(self) -> list[int]:
        """The operations that may be placed next, those called before the first return, and ~ the one that returns."""
        found: list[int] = []
        at = self._next[0]
        while at and (not found or found[-1] >= 0):
            found.append(self._owner[at])
            at = self._next[at]
        return found

    def lift(self, index: int) -> None:
        for at in (self._at[index], self._at[~index]):
            self._next[self._last[at]], self._last[self._next[at]] = self._next[at], self._last[at]

    def unlift(self, index: int) -> None:
        for at in (self._at[~index], self._at[index]):
            self._next[self._last[at]] = self._last[self._next[at]] = at


class _Place(NamedTuple):
    """A configuration, and how it was reached."""

    state: _State
    used: int  # a bitset over the operations of unknown outcome
    first: int  # the first operation not placed
    done: int  # a bitset over those from `first` on
    placed: int
    path: Any  # (path before, operation), or None


_START: Final = _Place(_EMPTY, 0, 0, 0, 0, None)
_Way = tuple[_State, int, tuple[Operation, ...]]  # the state after, what is used up, what comes before


class _Search:
    """The search for an order of the operations on one key. Spends one of `budget` for each attempt to place one."""

    def __init__(self, operations: list[Operation], growing: bool, budget: int) -> None:
        self._calls, perhaps = _calls(operations)
        self._store = _Store(self._calls, growing)
        self._events = _Events(self._calls)
        self._extras: dict[_What | None, list[tuple[int, _Call]]] = {}
        for number, extra in enumerate(perhaps):
            puts = [_PUT, (Kind.PUT, extra.value)]
            for what in (_ANY, *([_DELETE] if extra.kind is Kind.DELETE else puts)):
                self._extras.setdefault(what, []).append((number, extra))
        self._versions = _versions(operations)
        self._budget = budget
        self._spent = 0
        self._furthest = (-1, -1)  # the return that no order so far gets past, and how many operations come before
        self.best = _START
        self.stuck: list[Operation] = []

    def succeeds(self) -> bool:
        """Whether there is an order. Raises _Exhausted. What was reached stays in `best` and `stuck`."""
        met: dict[tuple[Any, ...], list[int]] = {}
        lifted: list[int] = []
        place = self._settled(_START, lifted)
        trail = [(lifted, self._moves(place))]
        while place.first < len(self._calls):
            found = next(trail[-1][1], None)
            if found is None:
                self._put_back(trail.pop()[0])
                if not trail:
                    return False
                continue
            lifted = []
            place = self._settled(self._placed(*found, lifted), lifted)
            before = met.setdefault((place.state, place.first, place.done), [])
            if any(less & place.used == less for less in before):  # with less used up, all was tried that could follow
                self._put_back(lifted)
            else:
                before.append(place.used)
                trail.append((lifted, self._moves(place)))
        self.best = place
        return True

    def placed(self) -> tuple[Operation, ...]:
        """The operations in the order of `best`."""
        path, found = self.best.path, []
        while path:
            path, operation = path
            found.append(operation)
        return tuple(reversed(found))

    def holds(self) -> str:
        """What is there after these, for people."""
        value, version, *_ = self.best.state
        known = "a version not known yet" if version is None else f"version {self._versions[version]!r}"
        if value is None:
            return "nothing"
        return f"{_UNREAD[0] if value is _UNREAD else repr(value)} at {known}"

    def _settled(self, place: _Place, lifted: list[int]) -> _Place:
        """The configuration with all placed that fit and change nothing."""
        while True:
            fit = [
                index
                for index in self._events.window()[:-1]
                if self._store.after(self._calls[index], place.state) is place.state
            ]
            if not fit:
                return place
            for index in fit:
                place = self._placed(place, index, (place.state, place.used, ()), lifted)

    def _moves(self, place: _Place) -> Iterator[tuple[_Place, int, _Way]]:
        """The operations that may come next, and all ways in which they may."""
        *window, returning = self._events.window()
        horizon = self._calls[~returning].responded
        least = min((v for index in window if (v := self._written(index)) is not None), default=None)
        moved = False
        for index in window:
            if self._written(index) in (None, least):
                for way in self._ways(self._calls[index], place.state, place.used, horizon):
                    moved = True
                    yield place, index, way
        if not moved and (horizon, place.placed) > self._furthest:
            self._furthest, self.best = (horizon, place.placed), place
            blocked = [~returning, *(index for index in window if index != ~returning)]
            self.stuck = [self._calls[index].operation for index in blocked]

    def _written(self, index: int) -> int | None:
        """The version that this operation certainly gave, if versions order the operations."""
        call = self._calls[index]
        return call.version if self._store.growing and call.kind in PUTS else None

    def _ways(self, call: _Call, state: _State, used: int, horizon: int) -> Iterator[_Way]:
        """What a call may lead to, right now or after some of unknown outcome that were called before the horizon."""
        self._spent += 1
        if self._spent > self._budget:
            raise _Exhausted
        direct = self._store.after(call, state)
        if direct is not None:
            yield direct, used, ()
        if direct is not None and not call.reads:
            return
        alike: set[tuple[Any, ...]] = set()
        for number, extra in self._extras.get(self._store.wants(call), ()):
            if extra.invoked > horizon:
                return
            what = (extra.kind, extra.value, extra.expected)
            if used >> number & 1 or what in alike or self._store.hopeless(extra, state):
                continue
            alike.add(what)
            for before, spent, chain in self._ways(extra, state, used | 1 << number, horizon):
                after = self._store.after(call, before)
                if after is not None:
                    yield after, spent, (*chain, extra.operation)

    def _placed(self, place: _Place, index: int, way: _Way, lifted: list[int]) -> _Place:
        self._events.lift(index)
        lifted.append(index)
        state, used, chain = way
        path = place.path
        for operation in (*chain, self._calls[index].operation):
            path = (path, operation)
        first, done = place.first, place.done | 1 << (index - place.first)
        while done & 1:
            first, done = first + 1, done >> 1
        return _Place(state, used, first, done, place.placed + 1, path)

    def _put_back(self, lifted: list[int]) -> None:
        for index in reversed(lifted):
            self._events.unlift(index)


# -- the verdict -------------------------------------------------------------------------------------------------


class Finding(StrEnum):
    """What was found out about a history."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    VERSIONS_DO_NOT_GROW = "versions do not grow"  # some order explains all answers, but none with growing versions
    UNDECIDED = "undecided"  # the budget was spent


@dataclass(frozen=True)
class Verdict:
    """What was found out, and of a key that is not as it should be, how far the longest order came. True only if all is
    well."""

    finding: Finding
    operations: int
    key: Value | None = None
    placed: tuple[Operation, ...] = ()
    holds: str = ""
    stuck: tuple[Operation, ...] = ()  # none of these may come next; the first one has to
    note: str = ""  # what the budget left open

    def __bool__(self) -> bool:
        return self.finding is Finding.LINEARIZABLE

    def __str__(self) -> str:
        if self:
            return f"{self.finding}: {self.operations} operations"
        if self.finding is Finding.UNDECIDED:
            return f"{self.finding}: the budget was spent on the {self.operations} operations of key {self.key!r}"
        finding = f"{self.finding} {self.note}".rstrip()
        lines = [f"{finding}: key {self.key!r}, {len(self.placed)} of its {self.operations} operations in order"]
        lines += _table(self.placed[-SHOWN:], "the last of them:")
        lines += [f"then the key holds {self.holds}, and none of these may come next, though the first has to:"]
        return "\n".join(lines + _table(self.stuck))


SHOWN: Final = 8


def _table(operations: tuple[Operation, ...], title: str = "") -> list[str]:
    rows = [("events", "seconds", "client", "operation")]
    for each in operations:
        ends = "" if each.responded is None else str(each.responded)
        rows.append((f"{each.invoked}-{ends}", f"{each.invoked_at:.3f}", each.client, str(each)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return [title, *table] if title else table


def check(history: History, budget: int = BUDGET) -> Verdict:
    """The verdict on the first key with a violation, on the first that is undecided, or on the whole history. `budget`
    is for each key: so many attempts to place an operation. Raises ValueError if versions have no order."""
    keys: dict[Value, list[Operation]] = {}
    for operation in history.operations:
        keys.setdefault(operation.key, []).append(operation)
    verdict = Verdict(Finding.LINEARIZABLE, len(history.operations))
    for key, operations in keys.items():
        found = _check_key(key, operations, budget)
        if found.finding in (Finding.NOT_LINEARIZABLE, Finding.VERSIONS_DO_NOT_GROW):
            return found
        if verdict and not found:
            verdict = found
    return verdict


def _check_key(key: Value, operations: list[Operation], budget: int) -> Verdict:
    """Asks for an order with growing versions; if there is none, for any, to tell the two violations apart."""
    count = len(operations)
    search = _Search(operations, growing=True, budget=budget)
    try:
        if search.succeeds():
            return Verdict(Finding.LINEARIZABLE, count)
    except _Exhausted:
        return Verdict(Finding.UNDECIDED, count, key)
    finding, note = Finding.NOT_LINEARIZABLE, ""
    anyhow = _Search(operations, growing=False, budget=budget // 5)
    try:
        if anyhow.succeeds():
            finding = Finding.VERSIONS_DO_NOT_GROW
        else:
            search = anyhow
    except _Exhausted:
        note = "with growing versions; whether it is without was not found out"
    return Verdict(finding, count, key, search.placed(), search.holds(), tuple(search.stuck), note)


def main(arguments: list[str] | None = None) -> int:
    """Check a dumped history. 0: linearizable, 1: it is not or is undecided, 2: the file is not a history."""
    parser = ArgumentParser(prog="python -m node.simulation.linearizability", description=main.__doc__)
    parser.add_argument("file", type=Path, help="what History.dump wrote")
    parser.add_argument("--budget", type=int, default=BUDGET, help="attempts to place an operation, for each key")
    chosen = parser.parse_args(arguments)
    try:
        verdict = check(History.load(chosen.file), chosen.budget)
    except (OSError, ValueError) as error:
        print(f"{chosen.file}: {error}", file=sys.stderr)
        return 2
    print(verdict)
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
