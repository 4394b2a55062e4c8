"""The latest part of a replica's history, in memory, for those who watch keys: what they have not heard of yet.

Every member of a chain keeps it, so that a watcher goes on with another one when the one it asked is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from node.chain.messages import Change, Command
from node.data import Version
from node.identifiers import Arc, position_of
from node.settings import MIB

KEPT = 2 * MIB
"""Bytes of commands kept, about."""
AT_LEAST = 4
"""Commands kept however large they are."""


class Recent:
    """Commands in their order; of each arc all since some version."""

    def __init__(self, since: Iterable[tuple[Arc, Version]], commands: Iterable[tuple[Command, int]] = ()) -> None:
        self._since = list(since)
        self._commands = deque(commands)
        """With their sizes."""
        self._size = sum(size for _, size in self._commands)

    @classmethod
    def joined(cls, parts: Iterable[Recent]) -> Recent:
        """That of an arc that was put together of several."""
        listed = list(parts)
        since = [each for part in listed for each in part._since]
        commands = sorted((each for part in listed for each in part._commands), key=lambda each: each[0].version)
        return cls(since, commands)

    def part(self, arc: Arc) -> Recent:
        """That of a part of the arc."""
        since = [(overlap, version) for other, version in self._since for overlap in arc.intersect(other)]
        commands: list[tuple[Command, int]] = []
        for command, size in self._commands:
            changes = tuple(change for change in command.changes if position_of(change.name) in arc)
            if changes:  # its share only: joined again with the other part, it must not be there twice
                commands.append((replace(command, changes=changes), size))
        return Recent(since, commands)

    def add(self, command: Command, size: int) -> None:
        """One more, of this size; the oldest go where there are too many."""
        self._commands.append((command, size))
        self._size += size
        while self._size > KEPT and len(self._commands) > AT_LEAST:
            oldest, size = self._commands.popleft()
            self._size -= size
            self._since = [(arc, max(version, oldest.version)) for arc, version in self._since]

    def forget(self, upto: Version) -> None:
        """What happened up to this version, the latest yet, is not known."""
        self._commands.clear()
        self._size = 0
        self._since = [(arc, max(version, upto)) for arc, version in self._since]

    def knows(self, arc: Arc, after: Version) -> bool:
        """Whether all that happened in an arc after this version is here."""
        return all(version <= after for other, version in self._since if arc.overlaps(other))

    def after(self, arc: Arc, after: Version, upto: Version) -> Iterator[tuple[Version, Change]]:
        """What happened in an arc after one version and up to another, the latest first."""
        for command, _ in reversed(self._commands):
            if command.version <= after:
                return
            if command.version <= upto:
                for change in reversed(command.changes):
                    if position_of(change.name) in arc:
                        yield command.version, change
