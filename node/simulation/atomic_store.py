"""What one key of an atomic store does: the states it can be in, and what each call makes of them.

A version not told is not known to the state until an observation tells it, or says what it is not. No token needs to
name its writer: a state holds one version at a time, and a write happens once. A state whose version is not known
allows all that it allows with any version, so ways that only tell more or use up more are left out by the search.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from node.simulation.history import CONFLICT, PUTS, READS, Kind, Operation, Outcome, Version


class State(NamedTuple):
    """What is known of what a key holds."""

    value: Any  # None: there is nothing
    version: int | None  # None: not known yet
    excluded: frozenset[int]  # what a version that is not known certainly is not
    highest: int  # the highest version known so far, those of deleted values included


UNREAD: Final = ("a value that was never read",)  # what writes of unknown outcome wrote, if so: then they are all alike
NONE: Final[frozenset[int]] = frozenset()
EMPTY: Final = State(None, None, NONE, -1)


class Call:
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


What = tuple[Kind | None, Any]
ANY: Final[What] = (None, None)
PUT: Final[What] = (Kind.PUT, None)
DELETE: Final[What] = (Kind.DELETE, None)


class Store:
    """What calls do to the state of their key. If it is `growing`, versions strictly grow from write to write."""

    def __init__(self, calls: list[Call], growing: bool) -> None:
        self.growing = growing
        told = [call for call in calls if call.version is not None]
        self._told = {call.version for call in told if call.kind in PUTS}
        self._shown = {call.version: call.value for call in told if call.reads}

    def after(self, call: Call, state: State) -> State | None:
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
        return state if state.value is None else State(None, None, NONE, state.highest)

    def wants(self, call: Call) -> What | None:
        """What may make a call possible if it comes right before: any operation, any put, any delete or the put of a
        value. Versions that the store told are those of other writes than the ones whose outcome is unknown."""
        ours = self.growing and (call.expected if call.kind is Kind.PUT_IF else call.version) in self._told
        match call.kind:
            case Kind.PUT_IF if call.conflict:
                return PUT if call.expected is None else ANY
            case Kind.DELETE:
                return PUT if call.answer else DELETE
            case Kind.PUT_IF if call.expected is None:
                return DELETE
            case Kind.PUT_IF if not ours:
                return (Kind.PUT, self._shown[call.expected]) if self.growing and call.expected in self._shown else PUT
            case Kind.GET | Kind.GET_VERSIONED if not ours:
                return DELETE if call.value is None else (Kind.PUT, call.value)
        return None

    def hopeless(self, extra: Call, state: State) -> bool:
        """Whether nothing of unknown outcome leads from here to a put_if: the version it expects is another write's."""
        return self.growing and extra.expected != state.version and extra.expected in self._told

    def _written(self, call: Call, state: State) -> State | None:
        if call.version is None:
            return State(call.value, None, NONE, state.highest)
        if self.growing and call.version <= state.highest:
            return None
        return State(call.value, call.version, NONE, call.version if self.growing else -1)

    def _known(self, state: State, version: int) -> State | None:
        """The state of which this is known to be the version."""
        if state.version is not None:
            return state if state.version == version else None
        if not self._possible(state, version):
            return None
        return State(state.value, version, NONE, version if self.growing else -1)

    def _conflicting(self, call: Call, state: State) -> State | None:
        if call.expected is None or state.value is None:
            return state if (call.expected is None) is (state.value is not None) else None
        if state.version is not None:
            return state if state.version != call.expected else None
        if not self._possible(state, call.expected):
            return state
        return state._replace(excluded=state.excluded | {call.expected})

    def _possible(self, state: State, version: int) -> bool:
        """Whether a version that is not known may be this one. As long as versions grow, each is of one write only."""
        if version in state.excluded:
            return False
        if not self.growing:
            return True
        mine = self._shown.get(version, state.value) == state.value
        return mine and version > state.highest and version not in self._told


def versions(operations: list[Operation]) -> list[Version]:
    """All versions of one key that were told or expected, in their order. Raises ValueError if they have none."""
    named = {operation.version for operation in operations}
    for operation in operations:
        answer = operation.answer
        named.add(answer[1] if answer and operation.kind is Kind.GET_VERSIONED else answer)
    try:
        return sorted(version for version in named if isinstance(version, tuple))
    except TypeError:
        raise ValueError(f"key {operations[0].key!r}: its versions cannot be compared with each other") from None


def calls(operations: list[Operation]) -> tuple[list[Call], list[Call]]:
    """The calls on one key that happened, and those that may have; both in the order of their invocations."""
    ranks: dict[Version | None, int] = {version: rank for rank, version in enumerate(versions(operations))}
    sure = [Call(operation, ranks) for operation in operations if operation.outcome is Outcome.OK]
    perhaps = [Call(operation, ranks) for operation in operations if operation.outcome is Outcome.UNKNOWN]
    read = {call.value for call in sure if call.kind in READS}
    for extra in perhaps:
        extra.value = extra.value if extra.value in read else UNREAD
    return sure, [extra for extra in perhaps if extra.kind not in READS]
