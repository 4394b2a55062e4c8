"""What a load has come to: counts, the file of rejects, and the state that an interrupted one is taken up from.

Everything before `place` is acknowledged or rejected, and the rejects are written: both are true of the state file at
any moment, since it is replaced as a whole and only after what it speaks of.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from node.cli.bulk.batches import Batch
from node.cli.bulk.rows import Place, Reject
from node.cli.output import complain
from node.cli.places import state_home
from node.errors import BadUsage

OFTEN = 1.0
"""Seconds between two states."""
SHOWN = 5
"""Rejects that are told of one by one."""


class Work(msgspec.Struct, frozen=True):
    """What is loaded where, and how it is read."""

    file: str
    size: int
    mtime: int
    """In nanoseconds."""
    format: str
    encoding: str
    key: str | None
    ring: str


class Counts(msgspec.Struct):
    """Rows so far."""

    stored: int = 0
    rejected: int = 0
    repeated: int = 0


class State(msgspec.Struct, frozen=True):
    """How far an unfinished load has come."""

    work: Work
    place: Place
    counts: Counts
    rejects: str
    rejects_size: int


class StateFile:
    """The state of the load of one file, below $XDG_STATE_HOME."""

    def __init__(self, file: str) -> None:
        self._path = state_home() / "load" / f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:32]}.json"

    def read(self) -> State | None:
        """None if no load of the file is unfinished. Raises BadUsage if it cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise BadUsage(f"{self._path} cannot be read: {error}: remove it and load the whole file") from None

    def write(self, state: State) -> None:
        """Instead of what was there. Raises BadUsage if it cannot be written."""
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise BadUsage(f"cannot write {new}: {error.strerror}: say with XDG_STATE_HOME where it can be") from None

    def remove(self) -> None:
        """There is nothing to resume. Raises BadUsage if it cannot be removed."""
        try:
            self._path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise BadUsage(f"cannot remove {self._path}: {error.strerror}") from None


def to_resume(state: State | None, work: Work) -> State | None:
    """The state if it is one of this work. Raises BadUsage if the work is another one by now."""
    if state is None:
        return None
    name, line = work.file, state.place.line
    if (state.work.size, state.work.mtime) != (work.size, work.mtime):
        raise BadUsage(f"{name} has changed since a load of it got to line {line:,}: load all of it, without --resume")
    if state.work.ring != work.ring:
        raise BadUsage(f"the load of {name} that got to line {line:,} was into another ring: leave out --resume")
    for option in ("format", "encoding", "key"):
        before, now = getattr(state.work, option), getattr(work, option)
        if before != now:
            raise BadUsage(f"the load of {name} that got to line {line:,} had --{option} {before}, not {now}")
    return state


class Rejects:
    """A file of {"line", "reason", "text"}, made with the first of them. That of an earlier load goes."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """`size`: how much of an earlier file to keep. Raises BadUsage if it is shorter than that."""
        self.path = path
        self._size = size
        self._file: BinaryIO | None = None
        if size and (not path.is_file() or path.stat().st_size < size):
            raise BadUsage(f"{path}, the rejects so far, is not there any more: load the whole file, without --resume")
        if not size and path.is_file():
            path.unlink()

    def add(self, rejects: list[Reject]) -> int:
        """Some more; the size of the file with them on disk. Raises BadUsage if it cannot be written."""
        if not rejects:
            return self._size
        lines = [{"line": each.line, "reason": each.reason, "text": each.text} for each in rejects]
        data = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines).encode(
            "utf-8", "backslashreplace"
        )
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise BadUsage(f"cannot write {self.path}: {error.strerror}: say where with --rejects") from None
        self._size += len(data)
        return self._size

    def _opened(self) -> BinaryIO:
        if not self._size:
            return self.path.open("wb")
        file = self.path.open("r+b")
        file.truncate(self._size)
        file.seek(self._size)
        return file

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class Ledger:
    """Of one load."""

    def __init__(self, work: Work, rejects: Rejects, save: Callable[[State], None] | None, state: State | None) -> None:
        """`save`: None if it cannot be resumed; `state`: what it goes on from."""
        self._work = work
        self._save = save
        self.rejects = rejects
        self._rejects_size = state.rejects_size if state else 0
        self._saved = time.monotonic()
        self.place: Place | None = state.place if state else None
        """None: before the first row."""
        self.counts = state.counts if state else Counts()
        self.first_rejects: list[Reject] = []
        """Of this run."""

    def enter(self, batch: Batch) -> None:
        """A batch is acknowledged, as all before it are."""
        self._rejects_size = self.rejects.add(batch.rejects)
        self.first_rejects += batch.rejects[: SHOWN - len(self.first_rejects)]
        self.counts.stored += batch.rows
        self.counts.rejected += len(batch.rejects)
        self.counts.repeated += batch.repeated
        self.place = batch.after
        if time.monotonic() - self._saved > OFTEN:
            self.save()

    @property
    def resumable(self) -> bool:
        """Whether another load can go on where this one stops."""
        return self._save is not None

    def save(self) -> None:
        """Write down how far it is. Where that is not possible it is said, and the load goes on without."""
        if self._save is not None and self.place is not None:
            path = str(self.rejects.path.absolute())
            try:
                self._save(State(self._work, self.place, self.counts, path, self._rejects_size))
            except BadUsage as error:
                complain(f"ring load: it cannot be resumed if it is interrupted: {error}")
                self._save = None
        self._saved = time.monotonic()

    def close(self) -> None:
        """Let go of the file of rejects."""
        self.rejects.close()
