"""What a ring should hold after the lines done so far: in a temporary file, so that any number of keys fits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expected:
    """What the last write of a key was to leave behind."""

    value: str | None
    """None: it was deleted."""
    line: int


class Expectations:
    """By key, on disk."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file of sqlite's own, gone when closed
        self._database.execute("PRAGMA cache_size = -4096")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE expected (key TEXT PRIMARY KEY, value TEXT, line INTEGER) WITHOUT ROWID")

    def expect(self, key: str, value: str | None, line: int) -> None:
        """From now on `key` has this value, for that line wrote it; None: that line deleted it."""
        self._database.execute("INSERT OR REPLACE INTO expected VALUES (?, ?, ?)", (key, value, line))

    def forget(self, key: str) -> None:
        """What `key` has is not known any more."""
        self._database.execute("DELETE FROM expected WHERE key = ?", (key,))

    def of(self, key: str) -> Expected | None:
        """What `key` should have; None: it has not been written."""
        row = self._database.execute("SELECT value, line FROM expected WHERE key = ?", (key,)).fetchone()
        return None if row is None else Expected(*row)

    def all(self) -> Iterator[tuple[str, Expected]]:
        """Every key that was written, and what it should have."""
        for key, value, line in self._database.execute("SELECT key, value, line FROM expected"):
            yield key, Expected(value, line)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()
