"""The search for an order of the operations on one key in which an atomic store could have answered so.

Wing and Gong's search over the list of calls and returns with Lowe's memory of configurations (Lowe, "Testing for
linearizability", 2017). What keeps it narrow, each a step that loses no answer:

- A configuration is the first operation not yet placed, a bitset over those behind it, the state, and the operations of
  unknown outcome used up. Where none is pending the bitset is empty: all ways that lead to the same state meet there.
- An operation that fits and leaves the state as it is (most reads) is placed at once: there it is in nobody's way.
- Versions that the store told put the writes in order: of those that overlap, the smallest goes first.
- An operation of unknown outcome stays pending for ever. It is placed only right before one that needs it, since up to
  there it can be put off; so a write that nobody saw costs nothing. To drop it beforehand would be unsound: a conflict,
  or a delete that answers True, may need it though its value was never read.
- Versions not told are left open for as long as nothing depends on them (node.simulation.atomic_store).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from node.simulation.atomic_store import ANY, DELETE, EMPTY, PUT, UNREAD, Call, State, Store, What, calls, versions
from node.simulation.history import PUTS, Kind, Operation


class Exhausted(Exception):
    """The budget is spent."""


class _Events:
    """Calls and returns not yet placed: a linked list that operations are lifted out of and put back into."""

    def __init__(self, calls: list[Call]) -> None:
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

    state: State
    used: int  # a bitset over the operations of unknown outcome
    first: int  # the first operation not placed
    done: int  # a bitset over those from `first` on
    placed: int
    path: Any  # (path before, operation), or None


_START: Final = _Place(EMPTY, 0, 0, 0, 0, None)
_Way = tuple[State, int, tuple[Operation, ...]]  # the state after, what is used up, what comes before


class Search:
    """The search for an order of the operations on one key. Spends one of `budget` for each attempt to place one."""

    def __init__(self, operations: list[Operation], growing: bool, budget: int) -> None:
        self._calls, perhaps = calls(operations)
        self._store = Store(self._calls, growing)
        self._events = _Events(self._calls)
        self._extras: dict[What | None, list[tuple[int, Call]]] = {}
        for number, extra in enumerate(perhaps):
            puts = [PUT, (Kind.PUT, extra.value)]
            for what in (ANY, *([DELETE] if extra.kind is Kind.DELETE else puts)):
                self._extras.setdefault(what, []).append((number, extra))
        self._versions = versions(operations)
        self._budget = budget
        self._spent = 0
        self._furthest = (-1, -1)  # the return that no order so far gets past, and how many operations come before
        self.best = _START
        self.stuck: list[Operation] = []

    def succeeds(self) -> bool:
        """Whether there is an order. Raises Exhausted. What was reached stays in `best` and `stuck`."""
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
        return f"{UNREAD[0] if value is UNREAD else repr(value)} at {known}"

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

    def _ways(self, call: Call, state: State, used: int, horizon: int) -> Iterator[_Way]:
        """What a call may lead to, right now or after some of unknown outcome that were called before the horizon."""
        self._spent += 1
        if self._spent > self._budget:
            raise Exhausted
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
