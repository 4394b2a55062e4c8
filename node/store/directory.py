"""The data directory: ours, nobody else's at the same time, and recognisable as such."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from node.errors import BadUsage, DirectoryDamaged, DirectoryInUse

MARKER = "rpychord-store"
FORMAT = "1\n"
LOCK = "LOCK.rpychord"
PROBE = "probe"


class Directory:
    """A locked data directory. Close it to let others in; a killed process lets go by dying."""

    def __init__(self, path: Path) -> None:
        """Make or take the directory. Raises DirectoryInUse, DirectoryDamaged, BadUsage."""
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = sorted(each.name for each in path.iterdir())
            if found and MARKER not in found and found != [LOCK]:
                raise DirectoryDamaged(
                    f"{path} holds other things ({', '.join(found[:3])}) and no store of ours: choose another"
                )
            self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadUsage(f"cannot use data directory {path}: {error.strerror}; choose another with --data") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise DirectoryInUse(
                f"data directory {path} is in use by process {holder}: stop it, or choose another"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._check_format()

    def _check_format(self) -> None:
        marker = self.path / MARKER
        if not marker.exists():
            marker.write_text(FORMAT)
        elif marker.read_text() != FORMAT:
            self.close()
            raise DirectoryDamaged(
                f"{self.path} was written by another version of rpychord: use that one, or another directory"
            )

    def probe(self, size: int) -> None:
        """Raises OSError unless `size` bytes can be written here."""
        path = self.path / PROBE
        try:
            with path.open("wb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._lock)
