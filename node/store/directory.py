"""The data directory: ours, nobody else's at the same time, and recognisable as such."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

from node.errors import BadUsage, DirectoryDamaged, DirectoryInUse

MARKER = "rpychord-store"
CONTENT = "db"
FORMAT = "2\n"
LOCK = "LOCK.rpychord"
BEGUN = {LOCK, MARKER + ".new", CONTENT, "settings.toml", "log"}
"""What a process killed while it made the directory may have left in it; and what people lay there for a node to come,
and what that logged by then."""


class Directory:
    """A locked data directory. Close it to let others in; a killed process lets go by dying."""

    def __init__(self, path: Path) -> None:
        """Make or take the directory. Raises DirectoryInUse, DirectoryDamaged, BadUsage."""
        self.path = path
        self._lock = -1
        self._new: list[Path] = []
        self._found: set[str] = set()
        try:
            self._take()
        except OSError as error:
            self.undo()
            raise BadUsage(f"cannot use data directory {path}: {error.strerror}; choose another with --data") from None
        except BadUsage:
            self.undo()
            raise

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a node has been there."""
        return (path / MARKER).exists()

    def _take(self) -> None:
        self._new = [each for each in (self.path, *self.path.parents) if not each.exists()]
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._found = {each.name for each in self.path.iterdir()}
        if MARKER not in found and not found <= BEGUN:
            raise DirectoryDamaged(
                f"{self.path} holds other things ({', '.join(sorted(found)[:3])}) and no store of ours: choose another"
            )
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DirectoryInUse(
                f"data directory {self.path} is in use by process {holder}: stop it, or choose another"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._check_format()

    def _check_format(self) -> None:
        marker = self.path / MARKER
        if not marker.exists():
            self._mark(marker)
        elif marker.read_bytes() != FORMAT.encode():
            raise DirectoryDamaged(
                f"{self.path} was written by another version of rpychord: use that one, or another directory"
            )

    def _mark(self, marker: Path) -> None:
        """Whole or not at all, and there after a power cut, as the directory itself."""
        new = marker.with_name(marker.name + ".new")
        with new.open("w") as file:
            file.write(FORMAT)
            file.flush()
            os.fsync(file.fileno())
        (self.path / CONTENT).mkdir(mode=0o700, exist_ok=True)
        new.rename(marker)
        for directory in (self.path, self.path.absolute().parent):
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def undo(self) -> None:
        """Let go of it, and leave nothing of what was made by taking it, unless it was one before."""
        if self._lock >= 0 and MARKER not in self._found:
            if CONTENT not in self._found:
                shutil.rmtree(self.path / CONTENT, ignore_errors=True)
            for name in {MARKER, MARKER + ".new", LOCK} - self._found:
                with contextlib.suppress(OSError):
                    (self.path / name).unlink()
        with contextlib.suppress(OSError):  # what others have put there stays
            for each in self._new:
                each.rmdir()
        self.close()

    def close(self) -> None:
        """Let go of it."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
