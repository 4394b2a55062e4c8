"""Blocks of files in a ring: stored once whoever has them, checked by their hash whenever they are read.

A claim says that a block is there. It is written after the block, and only in place of the claim that was read before
(`put_if`). Whoever collects blocks first takes the claim back in the same way: so either the collector sees that the
block is wanted again, or the file sees that it has to be sent again. See docs/decisions/0008-files.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from node.client.manifests import BLOCK_KEY, CLAIM_KEY, Claim, Manifest, packed, unpacked
from node.data import Operations, Stored, Version
from node.errors import Damaged, VersionConflict
from node.settings import MIB, Settings
from node.values import pack_value, unpack_value

T = TypeVar("T")
Q = TypeVar("Q")

UNDER_WAY = 4 * MIB
"""Bytes of blocks on their way at a time: about what one chain carries before others have to wait."""


class Blocks:
    """All blocks of a ring. `conditional`: whether the ring can compare versions, as those with chains do."""

    def __init__(
        self, operations: Operations, settings: Settings, wall: Callable[[], float], *, conditional: bool
    ) -> None:
        self._operations = operations
        self._settings = settings
        self._wall = wall
        self.conditional = conditional

    async def store(self, digest: bytes, data: bytes, *, anew: bool = False) -> bool:
        """Have a block in the ring, claimed by now; whether it was sent. `anew`: also if it is said to be there.

        Raises as `Operations.put` does.
        """
        sent = False
        while True:
            claim, version = await self._claim(digest)
            there = claim is not None and claim.there and (sent or not anew)
            if not there:
                await self._operations.put(BLOCK_KEY + digest, pack_value(data, self._settings))
                sent = True
            if await self.state(digest, version, there=True) is not None:
                return sent

    async def reclaim(self, digest: bytes) -> bool:
        """Claim a block that was stored before; False if it may be gone."""
        while True:
            claim, version = await self._claim(digest)
            if claim is None or not claim.there:
                return False
            if await self.state(digest, version, there=True) is not None:
                return True

    async def _claim(self, digest: bytes) -> tuple[Claim | None, Version | None]:
        stored = await self._operations.get(CLAIM_KEY + digest)
        return (None, None) if stored is None else (unpacked(Claim, stored), stored.version)

    async def state(self, digest: bytes, version: Version | None, *, there: bool) -> Version | None:
        """Write a claim in place of the one of this version, None: where there is none; its version, or None if
        another was written meanwhile."""
        key, value = CLAIM_KEY + digest, packed(Claim(there, self._wall()))
        if not self.conditional:
            return await self._operations.put(key, value)
        try:
            return await self._operations.put_if(key, value, version)
        except VersionConflict:
            return None

    async def load(self, name: str, manifest: Manifest, number: int) -> bytes:
        """One block of a file. Raises Damaged if it is missing or is not what was stored, and as `Operations.get`."""
        digest = manifest.digest(number)
        stored = await self._operations.get(BLOCK_KEY + digest)
        data = await asyncio.to_thread(_checked, digest, stored) if stored is not None else None
        if data is None:
            what = "missing" if stored is None else "not what was stored"
            raise Damaged(
                f"block {number} of {len(manifest)} of file {name!r} is {what} (SHA-256 {digest.hex()[:16]}..): "
                "unless it was removed or replaced meanwhile, put it again with all its blocks (--whole)",
                number,
                digest.hex(),
            )
        return data

    async def read(self, name: str, manifest: Manifest, first: int = 0) -> AsyncIterator[bytes]:
        """The blocks of a file in their order, some of them on their way at a time. Raises as `load` does."""
        ahead = at_a_time(manifest.block)
        async for data in in_order(lambda n: self.load(name, manifest, n), range(first, len(manifest)), ahead):
            yield data


def _checked(digest: bytes, stored: Stored) -> bytes | None:
    """The block in a record, None if it is another."""
    data = unpack_value(stored.value)
    return data if type(data) is bytes and hashlib.sha256(data).digest() == digest else None


def at_a_time(block: int) -> int:
    """How many blocks of this size are on their way together."""
    return max(1, min(UNDER_WAY // max(block, 1), 64))


async def in_order(do: Callable[[Q], Awaitable[T]], questions: Iterable[Q], most: int) -> AsyncIterator[T]:
    """What all of them come to, in their order, so many under way at a time."""
    under_way: deque[asyncio.Future[T]] = deque()
    try:
        for question in questions:
            under_way.append(asyncio.ensure_future(do(question)))
            if len(under_way) == most:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
