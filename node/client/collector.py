"""Removing blocks that no file names any more.

A block goes if no manifest names it and its claim is older than the grace: first the claim is taken back, in place of
the one that was read, then the block is removed in the version that was listed before. Whoever wants it meanwhile has
either renewed the claim, or finds none and sends the block again. See docs/decisions/0008-files.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from node.batches import side_by_side
from node.client.blocks import Blocks
from node.client.manifests import BLOCK_KEY, CLAIM_KEY, DIGEST, FILE_KEY, RESERVED, Claim, Manifest, unpacked
from node.data import Operations, Version
from node.errors import BadUsage, VersionConflict

BATCH = 500
"""Claims or manifests looked at together."""
SIDE_BY_SIDE = 16
"""Manifests read, and blocks removed, at a time: a manifest may have megabytes."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of it, in blocks."""

    removed: int
    waiting: int
    """Named by no file, and wanted too short a time ago."""
    kept: int
    """Named by files."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there, by digest, and which digests are named by files."""

    blocks: dict[bytes, Version]
    claims: frozenset[bytes]
    named: frozenset[bytes]

    @property
    def unnamed(self) -> list[bytes]:
        """Blocks and claims that no file needs."""
        return sorted(self.claims.union(self.blocks) - self.named)


class Collector:
    """One collection."""

    def __init__(
        self,
        operations: Operations,
        blocks: Blocks,
        wall: Callable[[], float],
        *,
        grace: float,
        alone: bool,
        dry_run: bool,
    ) -> None:
        """`alone`: nobody puts files meanwhile, and all nodes are there. Raises BadUsage without it in a ring that
        cannot compare versions."""
        if not blocks.conditional and not alone:
            raise BadUsage(
                "in an eventual ring nobody can tell whether a block is wanted again at this moment: say alone=True "
                "(--alone) when nobody puts files and all nodes are up"
            )
        self._operations = operations
        self._blocks = blocks
        self._grace = grace
        self._dry_run = dry_run
        self._began = wall()
        self._removed = self._waiting = 0

    async def collect(self) -> Collected:
        """Do it. Raises as `Operations` do; what is not removed then is removed the next time."""
        found = await self._look()
        unnamed = found.unnamed
        for at in range(0, len(unnamed), BATCH):
            part = unnamed[at : at + BATCH]
            claims = await self._operations.get_many(CLAIM_KEY + digest for digest in part)
            old: list[tuple[bytes, Version]] = []
            for digest in part:
                stored = claims[CLAIM_KEY + digest]
                if stored is None:  # whoever sent it may be about to claim it
                    await self._begin_to_wait(digest)
                elif unpacked(Claim, stored).at <= self._began - self._grace:
                    old.append((digest, stored.version))
                else:
                    self._waiting += 1
            await side_by_side(lambda each: self._remove(*each, found.blocks.get(each[0])), old, SIDE_BY_SIDE)
        return Collected(self._removed, self._waiting, len(found.named.intersection(found.blocks)))

    async def _begin_to_wait(self, digest: bytes) -> None:
        self._waiting += 1
        if not self._dry_run:
            await self._blocks.state(digest, None, there=False)

    async def _remove(self, digest: bytes, claim: Version, block: Version | None) -> None:
        """Remove a block of this version whose claim has this version, unless either has changed."""
        if self._dry_run:
            self._removed += block is not None
            return
        taken_back = await self._blocks.state(digest, claim, there=False)
        if taken_back is None:
            self._waiting += 1
            return
        if block is not None and await self._delete(BLOCK_KEY + digest, block):
            self._removed += 1
        await self._delete(CLAIM_KEY + digest, taken_back)

    async def _delete(self, key: bytes, version: Version) -> bool:
        if not self._blocks.conditional:
            return await self._operations.delete(key)
        try:
            await self._operations.delete_if(key, version)
        except VersionConflict:
            return False
        return True

    async def _look(self) -> Found:
        """Blocks are listed before their claims are read, and so are the versions to remove them in."""
        blocks: dict[bytes, Version] = {}
        claims: set[bytes] = set()
        files: list[bytes] = []
        async for records in self._operations.scan(RESERVED, keys_only=True):
            for key, stored in records:
                if key.startswith(BLOCK_KEY):
                    blocks[key.removeprefix(BLOCK_KEY)] = stored.version
                elif key.startswith(CLAIM_KEY):
                    claims.add(key.removeprefix(CLAIM_KEY))
                elif key.startswith(FILE_KEY):
                    files.append(key)
        named: set[bytes] = set()

        async def read(file: bytes) -> None:
            if (stored := await self._operations.get(file)) is not None:
                named.update(_digests(unpacked(Manifest, stored)))

        for at in range(0, len(files), BATCH):
            await side_by_side(read, files[at : at + BATCH], SIDE_BY_SIDE)
        return Found(blocks, frozenset(claims), frozenset(named))


def _digests(manifest: Manifest) -> Iterator[bytes]:
    return (manifest.digests[at : at + DIGEST] for at in range(0, len(manifest.digests), DIGEST))
