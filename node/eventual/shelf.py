"""The records of one node: reading, writing and merging them, and the sums by which two nodes find what differs.

Fingerprints of records are added up in buckets, the leaves of a hash tree of fixed shape (after Merkle; addition in
place of hashing lets one change cost one step), kept in memory and made anew at a start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from random import Random

from node.codec import pack, unpack
from node.errors import NotServing, Overloaded, RingError, StoreFull
from node.eventual.agreed_time import MICROS
from node.eventual.cells import (
    MASK,
    Body,
    Cell,
    Written,
    context_of,
    covers,
    fingerprint,
    is_buried,
    joined,
    living,
    merge,
)
from node.eventual.messages import Burial, Deposit, Deposited, Sum
from node.eventual.stamps import HybridClock, Stamp, new_writer
from node.identifiers import EVERYTHING, RING, Arc, Identifier, Name, key_in, name_of, position_of
from node.settings import MIB, Settings
from node.store.interface import Batch, Store
from node.tasks import Tasks

BUCKETS = 4096
WIDTH = RING // BUCKETS
"""Points of a bucket."""
STRIPES = 256
CHUNK = MIB


class Shelf:
    """The records of one node."""

    def __init__(
        self, store: Store, clock: HybridClock, settings: Settings, tasks: Tasks, random: Random, *, siblings: bool
    ) -> None:
        """`tasks` fail when it is not known any more what is on the disk."""
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._settings = settings
        self._random = random
        self._writer = new_writer(random)
        self.siblings = siblings
        """Whether values that were written side by side are all kept."""
        self._locks = [asyncio.Lock() for _ in range(STRIPES)]
        self._closed = False
        self._totals = [0] * BUCKETS
        self._records = [0] * BUCKETS
        self._living = [0] * BUCKETS

    async def load(self) -> None:
        """Add up what the store left."""
        async for name, body in self.scan(EVERYTHING):
            self._count(name, (), body.cell)

    async def clear(self) -> None:
        """Have no records."""
        batch = Batch()
        batch.delete_arc(EVERYTHING)
        async with AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock)
            await self._store.commit(batch)
            self._totals, self._records, self._living = ([0] * BUCKETS for _ in range(3))

    async def close(self) -> None:
        """Change no record any more, NotServing in place of that; done when every change that was begun has ended."""
        self._closed = True
        for lock in self._locks:
            async with lock:
                pass

    def reopen(self) -> None:
        """Go on after `close`."""
        self._closed = False

    # -- records ------------------------------------------------------------------------------------------------------

    async def read(self, keys: Iterable[bytes]) -> list[Cell]:
        """What is known of these keys."""
        return [body.cell if body else () for body in await self._bodies([name_of(key) for key in keys])]

    async def write(self, question: Deposit, now: int) -> Deposited:
        """Write a value, unless the key holds something newer. Raises StoreFull, BadValue for a time too far in the
        future, and Overloaded when too many values of the key stand side by side."""
        return await asyncio.shield(asyncio.ensure_future(self._write(question, now)))

    async def _write(self, question: Deposit, now: int) -> Deposited:
        self._clock.observe(question.time)
        key = question.key
        async with self._turn([name_of(key)]):
            (held,) = await self.read([key])
            existed = bool(living(held))
            if held and held[0].stamp.time >= question.time:
                for written in held:
                    if written.stamp.time == question.time and written.value == question.value:
                        return Deposited(True, written.stamp, existed)  # an attempt before, that was passed on
                return Deposited(False, held[0].stamp, existed)
            replaced = tuple(written for written in held if covers(question.seen, written.stamp))
            context = joined((*question.seen, *context_of(replaced)))
            stamp = Stamp(question.time, self._writer_beside(written for written in held if written not in replaced))
            cell = merge([held, (Written(stamp, question.value, context),)], siblings=self.siblings)
            if len(cell) > self._settings.most_siblings:
                raise Overloaded(
                    f"{len(cell)} values of {key[:40]!r} stand side by side: read them and write over them"
                )
            await self._put({name_of(key): (held, cell)}, now)
            return Deposited(True, stamp, existed)

    def _writer_beside(self, standing: Iterable[Written]) -> int:
        """Who this node is in a stamp: nobody who signed what stays, as a later stamp of his stands for it too."""
        taken = {written.stamp.writer for written in standing} if self.siblings else ()
        return next(writer for writer in count(self._writer) if writer not in taken)

    async def merge(self, cells: Iterable[tuple[bytes, Cell]], now: int) -> list[tuple[bytes, Cell]]:
        """Take in what others know; what is held of these keys then. Raises StoreFull; BadValue for a stamp too far in
        the future, and then nothing is taken in."""
        return await asyncio.shield(asyncio.ensure_future(self._merge(list(cells), now)))

    async def _merge(self, cells: list[tuple[bytes, Cell]], now: int) -> list[tuple[bytes, Cell]]:
        for _, cell in cells:
            for written in cell:
                self._clock.observe(written.stamp.time)
        horizon = now - self.grace
        async with self._turn([name_of(key) for key, _ in cells]):
            held = await self.read([key for key, _ in cells])
            merged: list[tuple[bytes, Cell]] = []
            changes: dict[Name, tuple[Cell, Cell]] = {}
            for (key, cell), mine in zip(cells, held, strict=True):
                whole = merge([mine, cell], siblings=self.siblings)
                if not mine and is_buried(whole, horizon):
                    whole = cell  # it is as good as taken in: the tombstone was forgotten here already
                elif whole != mine:
                    changes[name_of(key)] = (mine, whole)
                merged.append((key, whole))
            if changes:
                await self._put(changes, now)
        return merged

    async def drop(self, listed: Iterable[tuple[bytes, bytes]]) -> None:
        """Let go of records that are still as listed, which others hold. What this node wrote to them it does not know
        any more: it goes on as another writer."""
        self._writer = new_writer(self._random)
        await self._let_go(listed)

    async def _let_go(self, listed: Iterable[tuple[bytes, bytes]]) -> None:
        wanted = dict(listed)
        keys = list(wanted)
        for at in range(0, len(keys), 500):
            await asyncio.shield(asyncio.ensure_future(self._drop(keys[at : at + 500], wanted)))

    async def _drop(self, keys: list[bytes], wanted: dict[bytes, bytes]) -> None:
        names = [name_of(key) for key in keys]
        async with self._turn(names):
            held = zip(names, await self.read(keys), strict=True)
            await self._put(
                {name: (cell, ()) for name, cell in held if cell and print_of(name, cell) == wanted[key_in(name)]}
            )

    async def bury(self, burial: Burial) -> int:
        """Let go of the tombstones that may go; how many."""
        old = [
            (key_in(name), print_of(name, body.cell))
            async for name, body in self.scan(burial.arc)
            if is_buried(body.cell, burial.horizon) and body.arrived < burial.known
        ]
        await self._let_go(old)
        return len(old)

    @property
    def grace(self) -> int:
        """How long tombstones are kept, in microseconds."""
        return int(self._settings.grace * MICROS)

    async def scan(self, arc: Arc) -> AsyncIterator[tuple[Name, Body]]:
        """All records of an arc, from a snapshot."""
        snapshot = await self._store.snapshot()
        try:
            after: Name | None = None
            while True:
                chunk, after = await snapshot.scan(arc, after, CHUNK)
                for record in chunk:
                    yield record.name, unpack(Body, record.body)
                if after is None:
                    return
        finally:
            await snapshot.close()

    async def _bodies(self, names: list[Name]) -> list[Body | None]:
        return [unpack(Body, body) if body is not None else None for body in await self._store.get_many(names)]

    async def _put(self, changes: dict[Name, tuple[Cell, Cell]], now: int = 0) -> None:
        batch = Batch()
        for name, (_, cell) in changes.items():
            if cell:
                batch.put(name, pack(Body(now, cell)))
            else:
                batch.delete(name)
        try:
            await self._store.commit(batch)
        except StoreFull:
            raise
        except RingError as error:  # sums that lack what is there would hide it from all others
            self._tasks.fail(error)
            raise
        for name, (before, after) in changes.items():
            self._count(name, before, after)

    @asynccontextmanager
    async def _turn(self, names: Iterable[Name]) -> AsyncIterator[None]:
        """Nobody else changes these records meanwhile. Raises NotServing once this is closed."""
        async with AsyncExitStack() as stack:
            for stripe in sorted({position_of(name) % STRIPES for name in names}):
                await stack.enter_async_context(self._locks[stripe])
            if self._closed:
                raise NotServing("this node goes into another ring: try again")
            yield

    # -- sums ---------------------------------------------------------------------------------------------------------

    def _count(self, name: Name, before: Cell, after: Cell) -> None:
        bucket = position_of(name) // WIDTH
        for cell, sign in ((before, -1), (after, 1)):
            if cell:
                self._totals[bucket] = (self._totals[bucket] + sign * fingerprint(name, cell)) & MASK
                self._records[bucket] += sign
                self._living[bucket] += sign * bool(living(cell))

    async def sum(self, arc: Arc) -> Sum:
        """What is held of an arc."""
        total, records, alive = 0, 0, 0
        for low, high in arc.ranges():
            first, last = -(-low // WIDTH), (high + 1) // WIDTH  # buckets that lie inside
            edges = [(low, high)] if first >= last else [(low, first * WIDTH - 1), (last * WIDTH, high)]
            if first < last:
                total += sum(self._totals[first:last])
                records += sum(self._records[first:last])
                alive += sum(self._living[first:last])
            for start, end in edges:
                if start <= end and any(self._records[start // WIDTH : end // WIDTH + 1]):
                    piece = Arc(Identifier((start - 1) % RING), Identifier(end))
                    async for name, body in self.scan(piece):
                        total += fingerprint(name, body.cell)
                        records += 1
                        alive += bool(living(body.cell))
        return Sum((total & MASK).to_bytes(16, "big"), records, alive)

    async def listing(self, arc: Arc, horizon: int) -> dict[bytes, bytes]:
        """Keys and fingerprints of the records of an arc, without what is buried."""
        return {
            key_in(name): print_of(name, body.cell)
            async for name, body in self.scan(arc)
            if not is_buried(body.cell, horizon)
        }

    def next_held(self, point: int) -> int | None:
        """The first point at or after `point` at which something may be held."""
        for bucket in range(point // WIDTH, BUCKETS):
            if self._records[bucket]:
                return max(point, bucket * WIDTH)
        return None


def divided(arc: Arc, ways: int = 16) -> list[Arc]:
    """The arc cut at borders of buckets into some pieces; itself if it lies within one."""
    cuts = range(int(arc.start) // WIDTH + 1, (int(arc.start) + arc.width) // WIDTH + 1)
    step = max(1, -(-len(cuts) // ways))
    pieces, rest = [], arc
    for cut in cuts[step - 1 :: step]:
        at = Identifier((cut * WIDTH - 1) % RING)
        if at in rest and at != rest.end:
            piece, rest = rest.split(at)
            pieces.append(piece)
    return [*pieces, rest]


def print_of(name: Name, cell: Cell) -> bytes:
    """A fingerprint as it travels."""
    return fingerprint(name, cell).to_bytes(16, "big")
