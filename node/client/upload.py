"""A file on its way into a ring: block after block, several on their way at a time, the manifest in the end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from node.client.blocks import Blocks, at_a_time
from node.client.manifests import DIGEST, LARGEST_BLOCK, MOST_BLOCKS, Manifest, file_key, packed
from node.data import Operations
from node.errors import BadUsage, Damaged
from node.settings import Settings

GRACE = 24 * 3600.0
"""Seconds that a block nobody names is kept at least, so that a file under way finds the blocks it has counted on."""

Progress = Callable[[int, bool], None]
"""Told of each block: its bytes, and whether it was sent."""


class Upload:
    """Nothing of it can be seen under its name before `finish`."""

    def __init__(
        self,
        name: str,
        block: int,
        blocks: Blocks,
        operations: Operations,
        settings: Settings,
        wall: Callable[[], float],
        *,
        whole: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """`whole`: send blocks that are said to be there too. Raises BadUsage for what is no name or no size."""
        if type(block) is not int or not 0 < block <= LARGEST_BLOCK:
            raise BadUsage(f"a block has 1 to {LARGEST_BLOCK} bytes, not {block!r}")
        self._key = file_key(name, settings)
        self._name = name
        self.block = block
        self._blocks = blocks
        self._operations = operations
        self._wall = wall
        self._whole = whole
        self._progress = progress
        self._began = wall()
        self._size = 0
        self._digests = bytearray()
        self._sha256 = hashlib.sha256()
        self._stored: dict[bytes, None] = {}
        self._window = Window(at_a_time(block))

    def hashed(self, data: bytes) -> bytes:
        """The digest of the next block, which counts from now on. May run on another thread."""
        self._sha256.update(data)
        return hashlib.sha256(data).digest()

    async def add(self, data: bytes, digest: bytes) -> None:
        """Take in the next block: all but the last are of full size. Returns when there is room for another one.

        Raises what went wrong with one of the blocks before, and BadUsage for more than fit.
        """
        if len(self._digests) >= MOST_BLOCKS * DIGEST:
            raise BadUsage(
                f"{self._name!r} has more than {MOST_BLOCKS:,} blocks of {self.block:,} bytes: put it in parts"
            )
        self._size += len(data)
        self._digests += digest
        await self._window.start(self._store(digest, data))

    async def _store(self, digest: bytes, data: bytes) -> None:
        sent = digest not in self._stored and await self._blocks.store(digest, data, anew=self._whole)
        self._stored[digest] = None
        if self._progress is not None:
            self._progress(len(data), sent)

    async def finish(self, modified: float | None = None) -> Manifest:
        """Wait for all blocks, then write the manifest. Raises as `add` does, and Damaged if it took so long that
        blocks were collected."""
        await self._window.drained()
        digests, sha256 = bytes(self._digests), self._sha256.digest()
        manifest = Manifest(self._size, self.block, digests, sha256, self._wall(), modified)
        await self._operations.put(self._key, packed(manifest))
        if self._wall() - self._began > GRACE / 2:
            await self._reclaim()
        return manifest

    async def _reclaim(self) -> None:
        """Claim all blocks once more: what was claimed first may have been collected before there was a manifest."""
        for digest in self._stored:
            if not await self._blocks.reclaim(digest):
                raise Damaged(
                    f"putting {self._name!r} took so long that blocks of it were collected: put it again",
                    None,
                    digest.hex(),
                )

    async def abandon(self) -> None:
        """Stop sending."""
        await self._window.abandon()


class Window:
    """Some works under way at a time; the first that fails ends it."""

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)
        self._working: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a work, once there is room for it. Raises what another one raised before."""
        try:
            await self._room.acquire()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            work.close()
            raise
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def drained(self) -> None:
        """Wait until all are done. Raises what the first one raised."""
        while self._working and self._failure is None:
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            raise self._failure

    async def abandon(self) -> None:
        """End those under way."""
        working = list(self._working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
