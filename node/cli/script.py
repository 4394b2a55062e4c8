"""The lines of an input file: `put <key> <value>`, `get <key>`, `delete <key>`, `#` comments, shell quoting."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS = {"put": 2, "get": 1, "delete": 1}
MAX_LINE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to do."""

    number: int
    verb: str
    key: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that says nothing we know, and why."""

    number: int
    reason: str


def read_lines(path: Path) -> Iterator[Line | Malformed]:
    """The lines of a file, one at a time. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE):
            number += 1
            parsed = _parsed(number, raw)
            if parsed is not None:
                yield parsed


def _parsed(number: int, raw: bytes) -> Line | Malformed | None:
    try:
        words = shlex.split(raw.decode().lstrip("\ufeff"), comments=True)
    except UnicodeDecodeError as error:
        return Malformed(number, f"not UTF-8: {error.reason} at byte {error.start}")
    except ValueError as error:
        return Malformed(number, f"{str(error).lower()}: quote keys and values with spaces, and close the quotes")
    if not words:
        return None
    verb, *rest = words
    if verb not in WORDS:
        return Malformed(number, f"{verb!r} is none of put, get, delete")
    if len(rest) != WORDS[verb]:
        usage = "put KEY VALUE" if verb == "put" else f"{verb} KEY"
        return Malformed(number, f"{verb} with {len(rest)} words instead of {WORDS[verb]}: write {usage}")
    return Line(number, verb, *rest)
