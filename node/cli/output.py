"""What commands print: text and tables for people, JSON for scripts, progress for what takes long.

rich is imported when a terminal needs it, so that short commands are quick.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

SOON = 1.0
"""Seconds before progress is shown."""


def plain(value: Any) -> Any:
    """A value as JSON has it: bytes become {"base64": ...}, tuples lists, keys of dicts text."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name if isinstance(name, str) else str(name): plain(item) for name, item in value.items()}
    return value


def to_json(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(plain(value), ensure_ascii=False)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    print(to_json(value), flush=True)


def print_value(value: Any) -> None:
    """A value as a person wants it: text and bytes as they are, anything else as JSON."""
    if isinstance(value, bytes):
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
    else:
        print(value if isinstance(value, str) else to_json(value), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns; with colours on a terminal that is wide enough. Numbers are right-aligned."""
    rows = list(rows)
    listed = [[f"{cell:,}" if type(cell) is int else str(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(type(row[at]) in (int, float) for row in rows) for at in range(len(columns))]
    widths = [max(len(row[at]) for row in [list(columns), *listed]) for at in range(len(columns))]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) <= shutil.get_terminal_size().columns:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold cyan")
        for name, number in zip(columns, right, strict=True):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in listed:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        Console().print(table)
        return
    for row in [list(columns), *listed]:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


def complain(text: str) -> None:
    """A line on standard error, red on a terminal."""
    coloured = is_drawn_on() and not os.environ.get("NO_COLOR")  # see no-color.org
    print(f"\x1b[31m{text}\x1b[0m" if coloured else text, file=sys.stderr, flush=True)


def is_drawn_on() -> bool:
    """Whether standard error is a terminal that does what it is told by escapes."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Progress:
    """`with Progress("loading", total) as progress: progress.add(n)`: a bar with its rate on standard error, if that is
    a terminal, once it has lasted for a second."""

    def __init__(self, what: str, total: int | None = None, unit: str = "") -> None:
        """`total`: None if it is not known. `unit`: "B" for bytes."""
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0
        self._began = time.monotonic()
        self._shown: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def add(self, count: int = 1) -> None:
        """So much more is done."""
        self._done += count
        if self._shown is None and sys.stderr.isatty() and time.monotonic() - self._began > SOON:
            self._show()
        if self._shown is not None:
            self._shown.update(self._task, completed=self._done, rate=self._rate())

    def _rate(self) -> str:
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        return f"{rate / 1e6:,.1f} MB/s" if self._unit == "B" else f"{rate:,.0f}/s"

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        count = "{task.completed:,.0f}" if self._unit != "B" else "{task.completed:,} B"
        columns = [TextColumn(self._what), BarColumn(), TextColumn(count), TextColumn("{task.fields[rate]}")]
        self._shown = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self._shown.start()
        self._task = self._shown.add_task(self._what, total=self._total, rate="")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown is not None:
            self._shown.stop()
