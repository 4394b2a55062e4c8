"""Files put and removed while blocks are collected, in the order that a seed gives: no file that was put lacks a block.

The ring is one dictionary here, linearizable as a ring of chains is; time jumps by hours between any two steps.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from random import Random
from typing import Any

import pytest

from node.client.blocks import Blocks
from node.client.collector import Collector
from node.client.manifests import BLOCK_KEY, CLAIM_KEY, FILE_KEY, Claim, packed
from node.client.upload import GRACE, Upload
from node.data import Stored, Version
from node.errors import Damaged, VersionConflict
from node.settings import Settings

SETTINGS = Settings()
CONTENTS = [bytes([n]) for n in range(4)]
DIGESTS = [hashlib.sha256(data).digest() for data in CONTENTS]


class Memory:
    """Keys and values; every operation happens at one moment between its beginning and its end."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.records: dict[bytes, Stored] = {}
        self.sequence = 0
        self.time = 1e9

    async def passes(self) -> None:
        """Others do something meanwhile, and it may take long."""
        for _ in range(self.random.choice((0, 1, 2, 5))):
            await asyncio.sleep(0)
        if self.random.random() < 0.06:
            self.time += self.random.uniform(0, 0.7 * GRACE)

    async def get(self, key: bytes) -> Stored | None:
        await self.passes()
        found = self.records.get(key)
        await self.passes()
        return found

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        return {key: await self.get(key) for key in keys}

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        await self.passes()
        version = self._write(key, value)
        await self.passes()
        return version

    def _write(self, key: bytes, value: bytes) -> Version:
        self.sequence += 1
        self.records[key] = Stored((1, self.sequence), value)
        return (1, self.sequence)

    def _check(self, key: bytes, version: Version | None) -> None:
        found = self.records.get(key)
        if (found.version if found is not None else None) != version:
            raise VersionConflict(f"{key!r}", None)

    async def put_if(self, key: bytes, value: bytes, version: Version | None, expires: int = 0) -> Version:
        await self.passes()
        self._check(key, version)
        written = self._write(key, value)
        await self.passes()
        return written

    async def delete(self, key: bytes) -> bool:
        await self.passes()
        return self.records.pop(key, None) is not None

    async def delete_if(self, key: bytes, version: Version) -> None:
        await self.passes()
        self._check(key, version)
        del self.records[key]
        await self.passes()

    async def scan(self, prefix: bytes = b"", *, keys_only: bool = False) -> AsyncIterator[tuple[Any, ...]]:
        for key in sorted(self.records, key=lambda key: hashlib.sha1(key).digest()):
            await self.passes()
            if key in self.records and key.startswith(prefix):
                yield ((key, self.records[key]),)

    def lacks(self, digest: bytes) -> bool:
        return BLOCK_KEY + digest not in self.records


class Run:
    """Some who put and remove files and some who collect, at a time."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.memory: Any = Memory(self.random)
        self.happened: Counter[str] = Counter()
        self.put: dict[str, frozenset[bytes]] = {}
        """Files that are there, and what they are made of."""

    def blocks(self) -> Blocks:
        return Blocks(self.memory, SETTINGS, self.wall, conditional=True)

    def wall(self) -> float:
        time: float = self.memory.time
        return time

    def check(self) -> None:
        for name, digests in self.put.items():
            for digest in digests:
                assert not self.memory.lacks(digest), f"{name} lacks {DIGESTS.index(digest)}"

    async def puts(self, name: str) -> None:
        for _ in range(6):
            upload = Upload(name, 1, self.blocks(), self.memory, SETTINGS, self.wall)
            chosen = [self.random.randrange(len(CONTENTS)) for _ in range(self.random.randrange(4))]
            for n in chosen:
                await upload.add(CONTENTS[n], upload.hashed(CONTENTS[n]))
            self.put.pop(name, None)  # from some moment in `finish` on it is another file
            try:
                await upload.finish()
            except Damaged:
                self.happened["too long"] += 1
                continue
            self.put[name] = frozenset(DIGESTS[n] for n in chosen)
            self.check()
            await self.memory.passes()
            if self.random.random() < 0.7:
                del self.put[name]
                await self.memory.delete(FILE_KEY + name.encode())
            self.memory.time += self.random.choice((0.0, 0.0, 1.1 * GRACE))

    async def breaks_off(self) -> None:
        """Store a block and claim it or not, and never name it."""
        for _ in range(4):
            n = self.random.randrange(len(CONTENTS))
            await self.memory.put(BLOCK_KEY + DIGESTS[n], b"\xc4\x01" + CONTENTS[n])
            await self.memory.passes()

    async def collects(self) -> None:
        for _ in range(8):
            collector = Collector(
                self.memory, self.blocks(), self.wall, grace=GRACE, alone=False, dry_run=self.random.random() < 0.1
            )
            self.happened["removed"] += (await collector.collect()).removed
            self.check()

    async def run(self) -> None:
        puts = [self.puts(f"file {n}") for n in range(3)]
        await asyncio.gather(*puts, self.breaks_off(), self.collects(), self.collects())
        self.check()
        for _ in range(3):  # what no file needs goes in the end
            self.memory.time += 2 * GRACE
            await Collector(self.memory, self.blocks(), self.wall, grace=GRACE, alone=False, dry_run=False).collect()
        named = frozenset[bytes]().union(*self.put.values())
        assert {key for key in self.memory.records if key.startswith(BLOCK_KEY)} >= {BLOCK_KEY + d for d in named}
        claims = {key.removeprefix(CLAIM_KEY) for key in self.memory.records if key.startswith(CLAIM_KEY)}
        assert claims >= named, "a block lacks its claim"


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_no_file_that_was_put_lacks_a_block(first: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + 250):
        run = Run(seed)
        try:
            asyncio.run(run.run())
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        happened += run.happened
    assert happened["removed"] > 50 and happened["too long"], happened


def mutated(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    if mutant == "claims are not compared":

        async def state(blocks: Blocks, digest: bytes, version: Version | None, *, there: bool) -> Version | None:
            return await blocks._operations.put(CLAIM_KEY + digest, packed(Claim(there, blocks._wall())))

        monkeypatch.setattr(Blocks, "state", state)
    elif mutant == "blocks are removed in any version":
        delete = Collector._delete

        async def anyway(collector: Collector, key: bytes, version: Version) -> bool:
            if key.startswith(BLOCK_KEY):
                return await collector._operations.delete(key)
            return await delete(collector, key, version)

        monkeypatch.setattr(Collector, "_delete", anyway)
    else:

        async def nothing(upload: Upload) -> None: ...

        monkeypatch.setattr(Upload, "_reclaim", nothing)


@pytest.mark.parametrize(
    "mutant", ["claims are not compared", "blocks are removed in any version", "a long put is not checked"]
)
def test_without_one_of_its_parts_a_file_lacks_a_block(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutated(monkeypatch, mutant)
    for seed in range(1000):
        try:
            asyncio.run(Run(seed).run())
        except AssertionError as error:
            if "lacks" in str(error):
                return
            raise
    pytest.fail("not found in 1,000 seeds")
