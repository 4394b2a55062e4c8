"""Rows of CSV, TSV and JSON lines: each one a key and a value, or rejected with a reason and its text.

A row that is wrong takes no other with it. Where quotes do not close, the first line of what they swallowed is rejected
and reading goes on with the second; a row with the wrong number of columns is rejected as a whole.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from node.cli.bulk.lines import MAX_LINE, Line, Source
from node.cli.bulk.tagged import read_json, untagged
from node.errors import BadUsage
from node.settings import MIB, Settings
from node.values import key_of, pack_value

MAX_ROW = 8 * MIB
"""Bytes of a row of several lines: quotes that are open for longer are taken as not closed."""
DELIMITERS = {"csv": ",", "tsv": "\t"}


class Place(NamedTuple):
    """Between two rows: the byte and the line that come next."""

    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class Row:
    """A key, packed, and the value that goes there."""

    key: bytes
    value: Any
    size: int
    after: Place


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is not loaded."""

    line: int
    reason: str
    text: str
    after: Place

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return len(self.text)


class Rows(Protocol):
    """A file as rows."""

    source: Source

    @property
    def key(self) -> str | None:
        """The name of the column or field that is the key; None: each row says it."""
        ...

    def read(self, place: Place | None = None) -> Iterator[Row | Reject]:
        """All rows, or those behind a place of an earlier reading. Raises BadByte."""
        ...


def _lines_of(source: Source, place: Place | None) -> Iterator[Line]:
    return source.lines() if place is None else source.lines_from(*place)


def _after(line: Line) -> Place:
    return Place(line.end, line.number + 1)


def _row(key: Any, value: Any, after: Place, settings: Settings) -> Row:
    """Raises BadValue if the ring would not store it."""
    name = key_of(key, settings)
    return Row(name, value, len(name) + len(pack_value(value, settings)), after)


# -- JSON lines ------------------------------------------------------------------------------------------------------


class JsonRows:
    """One object a line: with `key` that field is the key and the object the value, without it `ring dump` wrote it."""

    def __init__(self, source: Source, key: str | None, settings: Settings) -> None:
        """Raises BadUsage if there is no `key` and the first object was not written by `ring dump`."""
        self.source = source
        self.key = key
        self._settings = settings
        first = source.head_text.split(maxsplit=0)[:1]
        if key is None and first:
            self._check(first[0].splitlines()[0])

    def _check(self, line: str) -> None:
        try:
            found = read_json(line)
        except (ValueError, RecursionError):
            return  # cut off, or a reject
        if type(found) is dict and not found.keys() & {"key", "value"}:
            raise BadUsage(f"say with --key which field of {self.source.name} is the key: {', '.join(found)[:500]}")

    def read(self, place: Place | None = None) -> Iterator[Row | Reject]:
        for line in _lines_of(self.source, place):
            if line.cut:
                yield _too_long(self.source, line)
            elif text := self.source.text(line).strip():
                try:
                    key, value = self._pair(read_json(text))
                    yield _row(key, value, _after(line), self._settings)
                except ValueError as error:
                    yield Reject(line.number, str(error), text, _after(line))
                except RecursionError:
                    yield Reject(line.number, "nested too deep", text, _after(line))

    def _pair(self, found: Any) -> tuple[Any, Any]:
        """Raises ValueError if there is no key in it."""
        if type(found) is not dict:
            raise ValueError("not an object: a line is {...}")
        if self.key is None:
            if found.keys() != {"key", "value"}:
                raise ValueError('an object without exactly "key" and "value": say with --key which field is the key')
            return untagged(found["key"]), untagged(found["value"])
        if found.get(self.key) in (None, ""):
            raise ValueError(f"the key, {self.key!r}, is {'empty' if self.key in found else 'missing'}")
        return found[self.key], found


# -- CSV and TSV -----------------------------------------------------------------------------------------------------


class TableRows:
    """Rows of columns whose names are in the first one. The value is all of it: {name: text, ...}."""

    def __init__(self, source: Source, key: str | None, delimiter: str, settings: Settings) -> None:
        """Reads the names. Raises BadUsage if there are none, or no column `key`, a name or a number from 1 on."""
        csv.field_size_limit(2 * MAX_LINE)
        self.source = source
        self._delimiter = delimiter
        self._settings = settings
        self._records = _records(source, source.lines(), delimiter)
        self.columns = self._names()
        self._at = self._column(key)
        self.key = self.columns[self._at]

    def _names(self) -> list[str]:
        _, names = next(self._records, ((), "it is empty"))
        if isinstance(names, str):
            raise BadUsage(f"{self.source.name} does not begin with the names of its columns: {names}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadUsage(f"{self.source.name}: several columns are called {twice[0]!r}: give each a name of its own")
        return names

    def _column(self, key: str | None) -> int:
        shown = ", ".join(self.columns)[:500]
        if key is None:
            raise BadUsage(f"say with --key which column of {self.source.name} is the key: {shown}")
        if key in self.columns:
            return self.columns.index(key)
        if key.isascii() and key.isdigit() and 1 <= int(key) <= len(self.columns):
            return int(key) - 1
        raise BadUsage(f"{self.source.name} has no column {key!r}: --key takes one of {shown}, or a number from 1 on")

    def read(self, place: Place | None = None) -> Iterator[Row | Reject]:
        if place is not None:
            self._records = _records(self.source, _lines_of(self.source, place), self._delimiter)
        for lines, cells in self._records:
            after = _after(lines[-1])
            try:
                yield _row(*self._pair(cells), after, self._settings)
            except ValueError as error:
                text = "".join(map(self.source.shown, lines)).rstrip("\r\n")
                yield Reject(lines[0].number, str(error), text, after)

    def _pair(self, cells: list[str] | str) -> tuple[str, dict[str, str]]:
        """Raises ValueError if this is no row."""
        if isinstance(cells, str):
            raise ValueError(cells)
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} column{'s' * (len(cells) > 1)} instead of {len(self.columns)}")
        if not cells[self._at]:
            raise ValueError(f"the key, {self.key!r}, is empty")
        return cells[self._at], dict(zip(self.columns, cells, strict=True))


class _Unclosed(ValueError):
    """Quotes are open for too long, or a line is too long."""


class _Feed:
    """Lines as text for csv.reader, which takes as many as a record needs."""

    def __init__(self, source: Source, lines: Iterator[Line]) -> None:
        self._source = source
        self._lines = lines
        self._again: deque[Line] = deque()
        self._size = 0
        self.taken: list[Line] = []
        """Those of the record being read."""

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        if self.taken and (line.cut or self._size + len(line.raw) > MAX_ROW):
            self._again.appendleft(line)
            raise _Unclosed(f"a quote is not closed within {MAX_ROW:,} bytes")
        self.taken.append(line)
        self._size += len(line.raw)
        if line.cut:
            raise _Unclosed(f"longer than {MAX_LINE:,} bytes")
        return self._source.text(line)

    def begin(self) -> None:
        """A record begins."""
        self.taken = []
        self._size = 0

    def give_up(self) -> Line:
        """The first line of the record is none: the others are read once more, as what they are without it."""
        self._again.extendleft(reversed(self.taken[1:]))
        return self.taken[0]


def _records(source: Source, lines: Iterator[Line], delimiter: str) -> Iterator[tuple[Sequence[Line], list[str] | str]]:
    """The lines of each record and its cells, or what is wrong with it. Empty lines are passed over."""
    feed = _Feed(source, lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _Unclosed) as error:
            what = str(error) if isinstance(error, _Unclosed) else f"quotes are not closed as they should be: {error}"
            if isinstance(error, csv.Error) and len(feed.taken) > 1:
                what += f" (read to line {feed.taken[-1].number})"
            yield (feed.give_up(),), what
            continue
        if cells:
            yield feed.taken, cells


def _too_long(source: Source, line: Line) -> Reject:
    reason = f"longer than {MAX_LINE:,} bytes, of which this is the beginning"
    return Reject(line.number, reason, source.shown(line), _after(line))


def rows_of(source: Source, kind: str, key: str | None, settings: Settings) -> Rows:
    """The rows of a file of this kind. Raises BadUsage if it does not begin as one."""
    if kind == "jsonl":
        return JsonRows(source, key, settings)
    return TableRows(source, key, DELIMITERS[kind], settings)
