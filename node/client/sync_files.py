"""Files in a ring without asyncio: `ring.files.put(path, name)`, `with ring.files.open(name) as file: ...`."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar

from node.client.collector import Collected
from node.client.file_reader import AsyncFile
from node.client.files import AsyncFiles, Source, Target
from node.client.manifests import BLOCK, FileInfo
from node.client.upload import GRACE, Progress
from node.errors import BadUsage

T = TypeVar("T")

BUFFER = 256 * 1024
"""Bytes read ahead for small reads."""


class Run(Protocol):
    """Waits for what a coroutine comes to, on another thread."""

    def __call__(self, work: Any) -> Any: ...


class Files:
    """The files of one ring. See `AsyncFiles` for what the methods mean and raise."""

    def __init__(self, files: AsyncFiles, run: Run) -> None:
        """Made by `Ring.files`."""
        self._files = files
        self._run = run

    def put(
        self, source: Source, name: str, *, block: int = BLOCK, whole: bool = False, progress: Progress | None = None
    ) -> FileInfo:
        """Store what is read from a path or a binary file under a name."""
        info: FileInfo = self._run(self._files.put(source, name, block=block, whole=whole, progress=progress))
        return info

    def get(self, name: str, target: Target, *, resume: bool = False, progress: Progress | None = None) -> FileInfo:
        """Write a file to a path or a binary file."""
        info: FileInfo = self._run(self._files.get(name, target, resume=resume, progress=progress))
        return info

    def open(self, name: str, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """A file for reading, as `open` gives one. Raises BadUsage for another mode: a file is put as a whole."""
        if mode != "rb":
            raise BadUsage(f"files of a ring are opened with mode 'rb', not {mode!r}: use put to write one")
        return io.BufferedReader(RawFile(self._run(self._files.open(name)), self._run), BUFFER)

    def stat(self, name: str) -> FileInfo:
        """What is known of a file."""
        info: FileInfo = self._run(self._files.stat(name))
        return info

    def ls(self, prefix: str = "") -> list[FileInfo]:
        """All files whose names begin with `prefix`, by name."""
        infos: list[FileInfo] = self._run(self._files.ls(prefix))
        return infos

    def rm(self, name: str) -> bool:
        """Remove a file; whether it was there."""
        there: bool = self._run(self._files.rm(name))
        return there

    def gc(self, *, grace: float = GRACE, alone: bool = False, dry_run: bool = False) -> Collected:
        """Remove blocks that no file has."""
        collected: Collected = self._run(self._files.gc(grace=grace, alone=alone, dry_run=dry_run))
        return collected


class RawFile(io.RawIOBase):
    """What a BufferedReader reads from."""

    def __init__(self, file: AsyncFile, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self._file = file
        self._run = run
        self.name = file.info.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._run(self._file.readinto(memoryview(buffer).cast("B")))
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._run(self._file.close())
