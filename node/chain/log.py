"""What a replica remembers of its commands: numbered in the order of its history, and on disk under these numbers.

The rest of the chain may lack some of them. Of every operation slot the last one is remembered, by which a write that
is tried again is known. What is neither is superseded, and is forgotten with a later commit. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count

from msgspec.structs import replace

from node.chain.history import Slot, last_of_each_slot, slot_of
from node.chain.messages import Logged, Operation
from node.data import Version


class Log:
    """The log of one replica."""

    def __init__(self, entries: Mapping[int, Logged]) -> None:
        """`entries`: those on disk."""
        self.entries = dict(entries)
        """All that is remembered, by number."""
        self._numbers = count(max(self.entries, default=0) + 1)
        self._last = last_of_each_slot(self.entries)
        self._sessions = {slot: self.entries[number] for slot, number in self._last.items()}
        """The last command ordered in each slot; `_last`: the number of the last one stored."""
        self._unconfirmed = deque(self.entries.values())
        """Those that are not known to be stable."""
        last = set(self._last.values())
        self._superseded = [number for number in self.entries if number not in last]

    def number(self) -> int:
        """The next one."""
        return next(self._numbers)

    def remembers(self, operation: Operation) -> Logged | None:
        """The last command of the operation's slot."""
        return self._sessions.get(slot_of(operation))

    def after(self, position: Version) -> Iterator[Logged]:
        """What is stored behind a position and not known to be stable."""
        return (logged for logged in self._unconfirmed if logged.version > position)

    # -- what becomes of a command -----------------------------------------------------------------------------------

    def order(self, logged: Logged) -> None:
        """It was ordered, and is on its way to the disk."""
        if logged.operation is not None:
            self._sessions[slot_of(logged.operation)] = logged

    def refuse(self) -> None:
        """Nothing that was ordered and is not stored has happened."""
        self._sessions = {slot: self.entries[number] for slot, number in self._last.items()}

    def store(self, number: int, logged: Logged) -> None:
        """It is on the disk, under a number."""
        self.entries[number] = logged
        self._unconfirmed.append(logged)
        if logged.operation is None:
            self._superseded.append(number)
        else:
            slot = slot_of(logged.operation)
            if slot in self._last:
                self._superseded.append(self._last[slot])
            self._last[slot] = number

    def confirm(self, version: Version) -> Iterator[Version]:
        """Everything up to `version` is stable; the versions of which that is news."""
        while self._unconfirmed and self._unconfirmed[0].version <= version:
            logged = self._unconfirmed.popleft()
            if logged.names and logged.operation is not None:
                self._shorten(logged, slot_of(logged.operation))
            yield logged.version

    def _shorten(self, logged: Logged, slot: Slot) -> None:
        """Nobody lacks its records any more: what keys it wrote need not be remembered, which may be a megabyte."""
        number = self._last.get(slot)
        if number is not None and self.entries[number] is logged:
            self.entries[number] = short = replace(logged, names=())
            if self._sessions.get(slot) is logged:
                self._sessions[slot] = short

    def forget(self, stable: Version) -> list[int]:
        """Let go of what is superseded and stable; its numbers."""
        numbers = [number for number in self._superseded if self.entries[number].version <= stable]
        if numbers:
            gone = set(numbers)
            self._superseded = [number for number in self._superseded if number not in gone]
            for number in numbers:
                del self.entries[number]
        return numbers

    def forget_operations(self, before: float, stable: Version, position: Version) -> None:
        """Operations stored before that time, and stable, are not tried again any more. The command at the end of the
        history is remembered: it says how far that goes."""
        for slot, logged in list(self._sessions.items()):
            if logged.at < before and logged.version <= stable and logged.version < position:
                del self._sessions[slot]
                self._superseded.append(self._last.pop(slot))
