"""How records and notes are named in an ordered store of bytes, and what a batch is there. Pure: no engine, no I/O."""

from __future__ import annotations

from typing import Any

from node.identifiers import Arc, Name
from node.store.interface import Batch, Record

RECORD, RECORDS_END, NOTE = b"r", b"s", b"n"
"""Before the names of records, which so stand in the order of the ring; behind all of them; before those of notes."""

Step = tuple[Any, ...]
"""("put", name, content), ("delete", name) or ("delete_range", first, behind)."""


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
    return Record(name[len(RECORD) :], body)


def spans_of(arc: Arc, after: Name | None = None) -> list[tuple[Name, Name | None]]:
    """The arc as half-open ranges of names, clockwise from its start, beginning behind `after` if it lies in it."""
    spans: list[tuple[Name, Name | None]] = []
    for first, behind in reversed(arc.spans()):
        if after is not None and first <= after and (behind is None or after < behind):
            spans.clear()
            first = after + b"\x00"
        spans.append((first, behind))
    return spans


def ranges_of(arc: Arc, after: Name | None = None) -> list[tuple[bytes, bytes]]:
    """The same as ranges of where records stand."""
    return [
        (RECORD + first, RECORDS_END if behind is None else RECORD + behind) for first, behind in spans_of(arc, after)
    ]


def steps_of(batch: Batch) -> list[Step]:
    """What a batch does to names, in its order. Raises TypeError for what cannot be stored."""
    steps: list[Step] = []
    for change in batch.changes:
        if change[0] == "put":  # what most of it is
            _, name, body = change
            if type(name) is bytes and type(body) is bytes:
                steps.append(("put", RECORD + name, body))
                continue
        match change:
            case ("delete", bytes() as name):
                steps.append(("delete", RECORD + name))
            case ("delete_arc", Arc() as arc):
                steps += [("delete_range", first, behind) for first, behind in ranges_of(arc)]
            case ("note", str() as note, bytes() as content):
                steps.append(("put", note_name(note), content))
            case ("forget", str() as note):
                steps.append(("delete", note_name(note)))
            case ("forget_all", str() as prefix):
                steps.append(("delete_range", *notes_range(prefix)))
            case _:
                raise TypeError(f"this cannot be stored: {[type(part).__name__ for part in change]} for {change[0]!r}")
    return steps
