"""Commands of a replica on their way down the chain: ordered here, and not known to be stable. Pure."""

from __future__ import annotations

from node.chain.history import OVERHEAD, size_of
from node.chain.messages import Command
from node.data import Version


class UnderWay:
    """The commands as they travel, by version. Those from before a restart are not here: they are made anew of the
    store."""

    def __init__(self) -> None:
        self._commands: dict[Version, tuple[Command, int]] = {}
        self.size = 0
        """Bytes of all of them."""

    def __contains__(self, version: Version) -> bool:
        return version in self._commands

    def add(self, command: Command) -> None:
        """It was ordered."""
        size = size_of(command)
        self._commands[command.version] = command, size
        self.size += size

    def upto(self, version: Version) -> dict[Version, Command]:
        """Those up to a version."""
        return {each: command for each, (command, _) in self._commands.items() if each <= version}

    def size_of(self, version: Version) -> int:
        """Bytes of that one, or the least that a command costs."""
        return self._commands[version][1] if version in self._commands else OVERHEAD

    def drop(self, version: Version) -> None:
        """It is stable, or was refused."""
        if version in self._commands:
            self.size -= self._commands.pop(version)[1]

    def refuse(self, after: Version) -> None:
        """None of those after a version has happened."""
        for version in [each for each in self._commands if each > after]:
            self.drop(version)
