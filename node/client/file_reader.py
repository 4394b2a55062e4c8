"""An open file of a ring, for reading: `async with await ring.files.open(name) as file: await file.read(100)`."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from types import TracebackType

from node.client.blocks import Blocks, at_a_time
from node.client.manifests import FileInfo, Manifest
from node.errors import BadUsage


class AsyncFile:
    """The file as it was when it was opened. One reader at a time."""

    def __init__(self, name: str, manifest: Manifest, blocks: Blocks) -> None:
        """Made by `AsyncFiles.open`."""
        self.info = FileInfo.of(name, manifest)
        self._name = name
        self._manifest = manifest
        self._blocks = blocks
        self._at = 0
        self._fetched: dict[int, asyncio.Task[bytes]] = {}
        """The block read last, and those behind it that are on their way."""
        self._next = 0
        """The block that is read next if all is read in order."""
        self._closed = False

    async def __aenter__(self) -> AsyncFile:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        fetched, self._fetched = list(self._fetched.values()), {}
        for task in fetched:
            task.cancel()
        await asyncio.gather(*fetched, return_exceptions=True)

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on reading elsewhere, as in files; where. Raises BadUsage for a place before the beginning."""
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._manifest.size}
        if whence not in origins or origins[whence] + offset < 0:
            raise BadUsage(f"no place in {self._name!r}: offset {offset} from {whence}")
        self._at = origins[whence] + offset
        return self._at

    async def read(self, size: int = -1) -> bytes:
        """The next bytes, all that are left if `size` is negative; fewer only at the end. Raises as `Blocks.load`."""
        self._check_open()
        left = max(self._manifest.size - self._at, 0)
        content = bytearray(left if size < 0 else min(size, left))
        filled = 0
        while filled < len(content):
            filled += await self.readinto(memoryview(content)[filled:])
        return bytes(content)

    async def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer, at most to the end of a block; how many bytes, 0 at the end of the file."""
        self._check_open()
        if self._at >= self._manifest.size or not buffer:
            return 0
        number, start = divmod(self._at, self._manifest.block)
        block = await self._block(number)
        piece = memoryview(block)[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("read of closed file")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What is left, block by block."""
        while data := await self.read(self._manifest.block - self._at % self._manifest.block):
            yield data

    async def _block(self, number: int) -> bytes:
        """One block; if it follows the one before, the next ones are sent for."""
        ahead = at_a_time(self._manifest.block) - 1 if number and number == self._next else 0
        wanted = range(number, min(number + 1 + ahead, len(self._manifest)))
        for n in [n for n in self._fetched if n < number or n > number + at_a_time(self._manifest.block)]:
            self._fetched.pop(n).cancel()
        for n in wanted:
            if n not in self._fetched:
                self._fetched[n] = asyncio.ensure_future(self._blocks.load(self._name, self._manifest, n))
        self._next = number + 1
        try:
            return await asyncio.shield(self._fetched[number])
        except BaseException:
            if (task := self._fetched.pop(number, None)) is not None:  # so that it is tried again when read again
                task.cancel()
            raise
