"""The parts that a replica's history is made of: commands, and what is remembered of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from node.chain.messages import Change, Command, Logged, Operation
from node.data import Version
from node.identifiers import Name

Slot = tuple[bytes, int]
"""A client, and one of its slots."""

OVERHEAD = 64
"""What a command, and each of its changes, costs beside keys and values, in bytes."""


def log_name(uid: int, number: int) -> str:
    """The note that a command is remembered in; names sort as numbers do."""
    return f"{log_prefix(uid)}{number:016x}"


def log_prefix(uid: int) -> str:
    """Begins the names of all notes of a replica's log."""
    return f"log/{uid:016x}/"


def slot_of(operation: Operation) -> Slot:
    """Where an operation is remembered."""
    return operation.client, operation.slot


def last_of_each_slot(log: Mapping[int, Logged]) -> dict[Slot, int]:
    """Where the last operation of each slot stands. In the log of a merged arc an older one may stand behind it."""
    last: dict[Slot, tuple[int, int]] = {}
    for n, logged in log.items():
        if logged.operation is not None:
            slot = slot_of(logged.operation)
            last[slot] = max(last.get(slot, (0, n)), (logged.operation.number, n))
    return {slot: n for slot, (_, n) in last.items()}


def remade(logged: Logged, bodies: Mapping[Name, bytes | None], last: Mapping[Name, Version]) -> Command:
    """A command as its records show it. `last`: which command wrote each; a later one, which must travel with this one,
    brings the record."""
    changes = tuple(Change(name, bodies[name]) for name in logged.names if last[name] == logged.version)
    overtaken = len(changes) < len(logged.names)
    return Command(logged.version, logged.operation, changes, logged.outcome, logged.covers, overtaken)


def names_of(command: Command) -> tuple[Name, ...]:
    """The keys it writes."""
    return tuple([change.name for change in command.changes])


def size_of(command: Command) -> int:
    """What it costs, in bytes."""
    changes = command.changes
    return OVERHEAD * (1 + len(changes)) + sum([len(change.name) + len(change.body or b"") for change in changes])
