"""Files in a ring: `await ring.files.put("photo.jpg", "holiday")`, `get`, `open`, `ls`, `stat`, `rm`, `gc`.

A file is cut into blocks that stand under their hashes, spread over the ring; what is there already is not sent again.
It appears under its name as a whole, when all its blocks are stored; a reader sees the file as it was when it began.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from node.client.aside import Aside
from node.client.blocks import Blocks
from node.client.collector import Collected, Collector
from node.client.file_reader import AsyncFile
from node.client.manifests import BLOCK, FILE_KEY, FileInfo, Manifest, file_key, unpacked
from node.client.part import Part, write_all
from node.client.upload import GRACE, Progress, Upload
from node.data import Operations
from node.errors import BadUsage, NoSuchFile
from node.settings import Settings
from node.values import key_of

Source = str | os.PathLike[str] | IO[bytes] | io.RawIOBase
"""A path, or what has `read`."""
Target = str | os.PathLike[str] | IO[bytes] | io.RawIOBase
"""A path, or what has `write`."""


class Sink(Protocol):
    """What blocks are written to."""

    def write(self, data: bytes) -> object:
        """Append."""
        ...


class AsyncFiles:
    """The files of one ring; see `AsyncRing.files`."""

    def __init__(self, operations: Operations, settings: Settings, *, conditional: bool) -> None:
        """`conditional`: see `Blocks`."""
        self._operations = operations
        self._settings = settings
        self._wall: Callable[[], float] = time.time
        self._blocks = Blocks(operations, settings, self._now, conditional=conditional)

    def _now(self) -> float:
        return self._wall()

    # -- in and out --------------------------------------------------------------------------------------------------

    async def put(
        self,
        source: Source,
        name: str,
        *,
        block: int = BLOCK,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> FileInfo:
        """Store what is read from a path or a binary file under a name, in place of what stood there.

        If it breaks off, nothing has changed under the name; put again, it sends only what is missing. `whole`: send
        all blocks, for what is Damaged. `progress` is told of each block. Raises OSError for what cannot be read,
        BadUsage, Unavailable, NoQuorum, StoreFull, OutcomeUnknown.
        """
        upload = Upload(
            name, block, self._blocks, self._operations, self._settings, self._now, whole=whole, progress=progress
        )
        aside = Aside()
        try:
            async with _opened(aside, source) as (file, modified):
                while (read := await aside.do(partial(_next_block, file, upload))) is not None:
                    await upload.add(*read)
            return FileInfo.of(name, await upload.finish(modified))
        finally:
            await upload.abandon()
            aside.end()

    async def get(
        self, name: str, target: Target, *, resume: bool = False, progress: Progress | None = None
    ) -> FileInfo:
        """Write a file to a path or a binary file.

        A path gets it as a whole in the end: until then it is PATH.part, which stays if this breaks off. `resume`: keep
        what PATH.part has of the file, as far as it is right. Every block is checked by its hash; `progress` is told of
        each. Raises NoSuchFile, Damaged, OSError for what cannot be written, BadUsage, Unavailable, NoQuorum.
        """
        manifest = await self._manifest(name)
        aside = Aside()
        try:
            if not isinstance(target, str | os.PathLike):
                if resume:
                    raise BadUsage("only what is written to a path can be resumed")
                await self._copy(name, manifest, 0, target, aside, progress)
            else:
                await self._get_to(Path(target), name, manifest, aside, resume, progress)
        finally:
            aside.end()
        return FileInfo.of(name, manifest)

    async def _get_to(
        self, path: Path, name: str, manifest: Manifest, aside: Aside, resume: bool, progress: Progress | None
    ) -> None:
        part = await aside.do(partial(Part, path))
        try:
            first = 0
            if resume:
                first = await aside.do(partial(part.keep, manifest))
                if progress is not None and first:
                    progress(min(first * manifest.block, manifest.size), False)
            else:
                await aside.do(part.empty)
            await self._copy(name, manifest, first, part, aside, progress)
            await aside.do(part.finish)
        finally:
            await aside.do(part.close)

    async def _copy(
        self, name: str, manifest: Manifest, first: int, to: Sink, aside: Aside, progress: Progress | None
    ) -> None:
        async with aclosing(self._blocks.read(name, manifest, first)) as blocks:  # type: ignore[type-var]
            async for data in blocks:
                await aside.do(partial(write_all, to, data))
                if progress is not None:
                    progress(len(data), True)

    async def open(self, name: str) -> AsyncFile:
        """A file for reading, from any place in it. Raises NoSuchFile."""
        return AsyncFile(name, await self._manifest(name), self._blocks)

    # -- names -------------------------------------------------------------------------------------------------------

    async def stat(self, name: str) -> FileInfo:
        """What is known of a file. Raises NoSuchFile."""
        return FileInfo.of(name, await self._manifest(name))

    async def ls(self, prefix: str = "") -> list[FileInfo]:
        """All files whose names begin with `prefix`, by name. Looks through all keys of the ring."""
        found: list[FileInfo] = []
        async for records in self._operations.scan(FILE_KEY + key_of(prefix, self._settings)):
            for key, stored in records:
                found.append(FileInfo.of(key.removeprefix(FILE_KEY).decode(), unpacked(Manifest, stored)))
        return sorted(found, key=lambda info: info.name)

    async def rm(self, name: str) -> bool:
        """Remove a file; whether it was there. Its blocks stay until `gc` finds that no file needs them."""
        return await self._operations.delete(file_key(name, self._settings))

    async def gc(self, *, grace: float = GRACE, alone: bool = False, dry_run: bool = False) -> Collected:
        """Remove blocks that no file has and that were last put more than `grace` seconds ago: longer than any put
        takes, and than the clocks of those who put differ. Looks through all keys of the ring.

        `alone`: nobody puts files meanwhile, and all nodes are up; an eventual ring takes nothing else. `dry_run`:
        remove nothing, and tell what would be. Raises BadUsage, Unavailable, NoQuorum, OutcomeUnknown.
        """
        collector = Collector(self._operations, self._blocks, self._now, grace=grace, alone=alone, dry_run=dry_run)
        return await collector.collect()

    async def _manifest(self, name: str) -> Manifest:
        stored = await self._operations.get(file_key(name, self._settings))
        if stored is None:
            raise NoSuchFile(f"there is no file {name!r} in the ring")
        return unpacked(Manifest, stored)


@asynccontextmanager
async def _opened(aside: Aside, source: Source) -> AsyncIterator[tuple[IO[bytes] | io.RawIOBase, float | None]]:
    """The source for reading, and when it was last changed, where that is known."""
    if not isinstance(source, str | os.PathLike):
        yield source, None
        return
    file = await aside.do(lambda: open(source, "rb", buffering=0))  # noqa: SIM115 - closed on the same thread
    try:
        yield file, os.fstat(file.fileno()).st_mtime
    finally:
        await aside.do(file.close)


def _next_block(file: IO[bytes] | io.RawIOBase, upload: Upload) -> tuple[bytes, bytes] | None:
    """The next block and its digest, None at the end. A pipe gives less at a time than it is asked for."""
    data = file.read(upload.block) or b""
    if len(data) < upload.block:
        parts = [data]
        missing = upload.block - len(data)
        while missing and data:
            data = file.read(missing) or b""
            parts.append(data)
            missing -= len(data)
        data = b"".join(parts)
    return (data, upload.hashed(data)) if data else None
