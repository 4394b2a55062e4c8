"""The lines of an input file: `put <key> <value>`, `get <key>`, `delete <key>`, `#` comments, shell quoting.

A line takes time in proportion to its length and memory of its length only, whatever the file holds; `shlex` takes
seconds for a word of a megabyte, and a `#` in the middle of a word begins a comment there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

WORDS = {"put": 2, "get": 1, "delete": 1}
MAX_LINE = 9 * 1024 * 1024
"""Bytes. The largest value, each of its characters escaped, and the largest key fit."""

_SPACE = re.compile(r"[ \t\r\n]*")
_PIECE = re.compile(
    r"""(?P<plain>[^ \t\r\n'"\\]+) | '(?P<single>[^']*)' | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)" | \\(?P<escaped>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_DOUBLE_QUOTES = re.compile(r'\\(["\\])')


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


def read_lines(file: BinaryIO) -> Iterator[Line | Malformed]:
    """The lines of a file, one at a time. One that cannot be read is malformed, and the last."""
    number = 0
    while True:
        number += 1
        try:
            raw = file.readline(MAX_LINE)
            too_long = _skip_rest(file, raw)
        except OSError as error:
            yield Malformed(number, f"cannot be read: {error.strerror}")
            return
        if not raw:
            return
        parsed = Malformed(number, f"longer than {MAX_LINE:,} bytes") if too_long else _parsed(number, raw)
        if parsed is not None:
            yield parsed


def _skip_rest(file: BinaryIO, raw: bytes) -> bool:
    """Whether there is more of a line than was read, which is then passed over."""
    too_long = False
    while len(raw) == MAX_LINE and not raw.endswith(b"\n"):
        raw = file.readline(MAX_LINE)
        too_long = too_long or bool(raw)
    return too_long


def split_words(text: str) -> list[str]:
    """The words of a line as a shell would see them. Raises ValueError for a quote that does not close and the like."""
    words: list[str] = []
    at = _SPACE.match(text).end()  # type: ignore[union-attr]
    while at < len(text) and text[at] != "#":
        pieces: list[str] = []
        while at < len(text) and text[at] not in " \t\r\n":
            piece = _PIECE.match(text, at)
            if piece is None:
                raise ValueError("nothing after the backslash" if text[at] == "\\" else f"no closing {text[at]}")
            pieces.append(_unquoted(piece))
            at = piece.end()
        words.append("".join(pieces))
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    return words


def _unquoted(piece: re.Match[str]) -> str:
    content: str = piece[piece.lastgroup or 0]
    return _IN_DOUBLE_QUOTES.sub(r"\1", content) if piece.lastgroup == "double" else content


def _parsed(number: int, raw: bytes) -> Line | Malformed | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Malformed(number, f"not UTF-8: {error.reason} at byte {error.start}")
    try:
        words = split_words(text.removeprefix("\ufeff").rstrip("\r\n"))
    except ValueError as error:
        return Malformed(number, f"{error}: quote keys and values with spaces, and close the quotes")
    if not words:
        return None
    verb, *rest = words
    if verb not in WORDS:
        return Malformed(number, f"{verb[:80]!r} is none of put, get, delete")
    if len(rest) != WORDS[verb]:
        usage = "put KEY VALUE" if verb == "put" else f"{verb} KEY"
        return Malformed(number, f"{verb} with {len(rest)} words instead of {WORDS[verb]}: write {usage}")
    return Line(number, verb, *rest)
