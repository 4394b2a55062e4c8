"""A file on its way out of a ring: written under another name, which it keeps if that breaks off, and renamed when it
is whole. All methods block."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from node.client.manifests import Manifest
from node.errors import BadUsage

SUFFIX = ".part"


class Part:
    """`PATH.part`, which becomes PATH."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, BadUsage if another process writes it or PATH is no name of a file."""
        if path.is_dir() or not path.name:
            raise BadUsage(f"{path} is a directory: give the name of a file")
        self._path = path
        self.path = path.with_name(path.name + SUFFIX)
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BadUsage(f"another process writes {self.path}: wait for it, or give another name") from None

    def keep(self, manifest: Manifest) -> int:
        """Keep what is there as far as it is the file of this manifest, whole blocks only; how many."""
        number = 0
        while number < len(manifest):
            data = self._file.read(min(manifest.block, manifest.size - number * manifest.block))
            if hashlib.sha256(data).digest() != manifest.digest(number):
                break
            number += 1
        self._cut(min(number * manifest.block, manifest.size))
        return number

    def empty(self) -> None:
        """Begin anew."""
        self._cut(0)

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self._file.seek(size)

    def write(self, data: bytes) -> None:
        """Append a block."""
        write_all(self._file, data)

    def finish(self) -> None:
        """It is whole: let it appear under its name."""
        os.replace(self.path, self._path)
        self._file.close()

    def close(self) -> None:
        """Leave it as it is."""
        self._file.close()


def write_all(file: object, data: bytes) -> None:
    """Write all of it, also to what takes a part at a time, as unbuffered files and pipes do."""
    left = memoryview(data)
    while left:
        written: int | None = file.write(left)  # type: ignore[attr-defined]
        left = left[written:] if written is not None else left[len(left) :]
