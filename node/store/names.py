"""How records and notes are named in an ordered store of bytes, and what a batch is there. Pure: no engine, no I/O."""

from __future__ import annotations

from typing import Any

from node.identifiers import BYTES, RING, Arc, Identifier
from node.store.interface import Batch, Cursor, Record

RECORD, RECORDS_END, NOTE = b"r", b"s", b"n"

Step = tuple[Any, ...]
"""("put", name, content), ("delete", name) or ("delete_range", first, behind)."""


def record_name(position: Identifier, key: bytes) -> bytes:
    """Where a record stands; names sort as (position, key) does."""
    return RECORD + position.packed + key


def note_name(name: str) -> bytes:
    """Where a note stands: in no arc."""
    return NOTE + name.encode()


def notes_range(prefix: str) -> tuple[bytes, bytes]:
    """The half-open range of the names of all notes that begin with `prefix`; no text has the byte behind it."""
    return note_name(prefix), note_name(prefix) + b"\xff"


def note_of(name: bytes) -> str:
    """The note of a name."""
    return name[len(NOTE) :].decode()


def record_of(name: bytes, body: bytes) -> Record:
    """The record of a name."""
    return Record(Identifier.from_bytes(name[1 : 1 + BYTES], "big"), name[1 + BYTES :], body)


def ranges_of(arc: Arc, after: Cursor | None = None) -> list[tuple[bytes, bytes]]:
    """The arc as half-open ranges of names, clockwise from its start, beginning behind the cursor if it lies in it."""
    ranges: list[tuple[bytes, bytes]] = []
    for low, high in reversed(arc.ranges()):
        first = RECORD + Identifier(low).packed
        if after is not None and low <= after.position <= high:
            ranges.clear()
            first = record_name(after.position, after.key) + b"\x00"
        ranges.append((first, _behind(high)))
    return ranges


def steps_of(batch: Batch) -> list[Step]:
    """What a batch does to names, in its order. Raises TypeError for what cannot be stored."""
    steps: list[Step] = []
    for change in batch.changes:
        if change[0] == "put":  # what most of it is
            _, position, key, body = change
            if type(position) is Identifier and type(key) is bytes and type(body) is bytes:
                steps.append(("put", RECORD + position.to_bytes(BYTES, "big") + key, body))
                continue
        match change:
            case ("delete", Identifier() as position, bytes() as key):
                steps.append(("delete", record_name(position, key)))
            case ("delete_arc", Arc() as arc):
                steps += [("delete_range", first, behind) for first, behind in ranges_of(arc)]
            case ("note", str() as name, bytes() as content):
                steps.append(("put", note_name(name), content))
            case ("forget", str() as name):
                steps.append(("delete", note_name(name)))
            case ("forget_all", str() as prefix):
                steps.append(("delete_range", *notes_range(prefix)))
            case _:
                raise TypeError(f"this cannot be stored: {[type(part).__name__ for part in change]} for {change[0]!r}")
    return steps


def _behind(high: int) -> bytes:
    """The first name behind all records at positions up to `high`, which may be the last of the ring."""
    return RECORD + Identifier(high + 1).packed if high + 1 < RING else RECORDS_END
