"""What answers for arcs: reads and writes of the keys this node holds. It never asks another node.

A read gets the value, *then* checks that the node still holds the arc and may answer, then answers. A write is
acknowledged when it is durable and the node still may answer. Writes of one key become durable in the order they were
taken in. Whether the node may answer is a lease that its successors extend (see `leases`); one that was paused or cut
off lets it run out and refuses, and nobody takes over its arcs before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from node.codec import Address, pack, unpack
from node.errors import Moved, NotServing, OutcomeUnknown, StoreFull, Unavailable
from node.identifiers import Arc, Identifier
from node.replication.holdings import Holdings
from node.replication.messages import Copy, Stored, Version
from node.settings import Settings
from node.store.interface import Batch, Cursor, Record, Store

HOLDINGS = "holdings"
SEQUENCE = "sequence"
SEQUENCE_BLOCK = 1 << 20
"""Sequence numbers set aside at a time, so that none is given twice across restarts."""


@dataclass(slots=True, eq=False)
class Watch:
    """Keys of an arc written since it was set: for hand-overs, whose readers may have passed them by already."""

    arc: Arc
    written: dict[tuple[Identifier, bytes], None] = field(default_factory=dict)


class Holder:
    """The pieces of one node and the records in them."""

    def __init__(
        self, store: Store, holdings: Holdings, sequence: int, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self.store = store
        self.settings = settings
        self.holdings = holdings
        self._clock = clock
        self._standing_until = float("-inf")
        self._stands = asyncio.Event()
        self._sequence = self._sequence_limit = sequence
        self._pending: dict[tuple[Identifier, bytes], list[Stored]] = {}
        self._deleting: dict[tuple[Identifier, bytes], asyncio.Event] = {}
        self._written = asyncio.Event()
        self._watches: list[Watch] = []
        self.fetching: list[Arc] = []
        self._frozen: dict[Arc, asyncio.Event] = {}
        self._whereabouts: list[tuple[Arc, Address]] = []
        self._changing = asyncio.Lock()

    @classmethod
    async def load(cls, store: Store, settings: Settings, clock: Callable[[], float]) -> Holder:
        """The holder as its store left it; it stands for nothing until told."""
        holdings = await store.read_note(HOLDINGS)
        sequence = await store.read_note(SEQUENCE)
        return cls(
            store,
            unpack(Holdings, holdings) if holdings else Holdings(),
            unpack(int, sequence) if sequence else 0,
            settings,
            clock,
        )

    # -- may it answer -------------------------------------------------------------------------------------------

    @property
    def stands(self) -> bool:
        """Whether the node may answer for what it holds."""
        return self._clock() <= self._standing_until

    @property
    def stands_for_ever(self) -> bool:
        """It was alone in its ring when it last asked."""
        return self._standing_until == float("inf")

    def confirm(self, until: float) -> None:
        """It may answer until `until`, by its clock."""
        self._standing_until = until
        self._stands.set()

    async def _standing(self) -> None:
        """Wait a moment for the lease if it has run out. Raises NotServing."""
        if self.stands:
            return
        self._stands.clear()
        try:
            async with asyncio.timeout(self.settings.call / 2):
                while not self.stands:
                    await self._stands.wait()
                    self._stands.clear()
        except TimeoutError:
            raise NotServing("this node waits for its successor to confirm its arcs: try again") from None

    # -- reads and writes ----------------------------------------------------------------------------------------

    async def get(self, position: Identifier, key: bytes) -> Stored | None:
        """The record of a key, None if it has none.

        Raises Moved, NotServing, and Unavailable if only a node that does not answer can know.
        """
        while True:
            self._piece_for(position)
            body = await self.store.get(position, key)
            if self.stands:
                break
            await self._standing()
        piece = self.holdings.at(position)
        if piece is None:
            raise self._moved(position)
        stored = unpack(Stored, body) if body is not None else None
        if not piece.is_current(stored.version[0] if stored else None):
            raise Unavailable(
                f"key {key[:40]!r} may be on a node that does not answer since its arc {piece.arc} was taken over: "
                "start that node again with its data directory"
            )
        return stored if stored is not None and stored.value is not None else None

    async def put(self, position: Identifier, key: bytes, value: bytes) -> Version:
        """Write a value; the version it got, durable. Raises Moved, NotServing, StoreFull, OutcomeUnknown."""
        while True:
            await self._writable(position)
            deleting = self._deleting.get((position, key))
            if deleting is None:
                break
            await deleting.wait()
        return await self._durable((position, key), *self._submit(position, key, value))

    async def delete(self, position: Identifier, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `get` and `put` do."""
        name = (position, key)
        while True:
            await self._writable(position)
            deleting = self._deleting.get(name)
            if deleting is None:
                break
            await deleting.wait()
        self._deleting[name] = asyncio.Event()
        try:
            pending = self._pending.get(name)
            there = pending[-1].value is not None if pending else await self.get(position, key) is not None
            await self._writable(position)
            removal = self._submit(position, key, None) if there else None
        finally:
            self._deleting.pop(name).set()
        if removal is not None:
            await self._durable(name, *removal)
        return there

    async def _writable(self, position: Identifier) -> None:
        """Wait until the position is held, not frozen, and the node stands; not longer than whoever asked will wait.

        Raises Moved, NotServing.
        """
        try:
            async with asyncio.timeout(self.settings.call / 2):
                while True:
                    self._piece_for(position)
                    frozen = next((event for arc, event in self._frozen.items() if position in arc), None)
                    if frozen is not None:
                        await frozen.wait()
                    elif self.stands:
                        return
                    else:
                        await self._standing()
        except TimeoutError:
            raise NotServing(f"{position.hex[:8]}.. is on its way to another node: try again") from None

    def _piece_for(self, position: Identifier) -> None:
        if self.holdings.at(position) is None:
            raise self._moved(position)

    def _submit(self, position: Identifier, key: bytes, value: bytes | None) -> tuple[Stored, Awaitable[None]]:
        """Order a write now; it is acknowledged by `_durable`."""
        piece = self.holdings.at(position)
        if piece is None:
            raise self._moved(position)
        batch = Batch()
        stored = Stored((piece.epoch, self._next_sequence(batch)), value)
        watches = [watch for watch in self._watches if position in watch.arc]
        if value is None and not piece.lacks and not watches:
            batch.delete(position, key)
        else:
            batch.put(position, key, pack(stored))
        for watch in watches:
            watch.written[position, key] = None
        self._pending.setdefault((position, key), []).append(stored)
        return stored, self.store.commit(batch)

    async def _durable(self, name: tuple[Identifier, bytes], stored: Stored, commit: Awaitable[None]) -> Version:
        """Wait for the disk; then the write counts if the node still may answer."""
        try:
            await commit
        finally:
            self._pending[name].remove(stored)
            if not self._pending[name]:
                del self._pending[name]
            self._written.set()
        if not self.stands:
            raise OutcomeUnknown("the write is on disk here, but another node may have taken over meanwhile")
        return stored.version

    def _next_sequence(self, batch: Batch) -> int:
        self._sequence += 1
        if self._sequence >= self._sequence_limit:
            self._sequence_limit = self._sequence + SEQUENCE_BLOCK
            batch.note(SEQUENCE, pack(self._sequence_limit))
        return self._sequence

    def _moved(self, position: Identifier) -> Moved:
        where = next((address for arc, address in self._whereabouts if position in arc), None)
        hint = (where.host, where.port) if where else None
        return Moved(f"this node does not hold {position.hex[:8]}..", hint)

    # -- for hand-overs ------------------------------------------------------------------------------------------

    def watch(self, arc: Arc) -> Watch:
        """From now on remember which keys of `arc` are written here, beginning with the writes not durable yet."""
        watch = Watch(arc, {name: None for name in self._pending if name[0] in arc})
        self._watches.append(watch)
        return watch

    def written(self, watch: Watch, limit: int | None) -> list[tuple[Identifier, bytes]]:
        """Take the next keys out of a watch, at most `limit`; one whose write is not durable yet stays in it."""
        durable = [name for name in watch.written if name not in self._pending][:limit]
        for name in durable:
            del watch.written[name]
        return durable

    def unwatch(self, watch: Watch) -> None:
        """Enough of that."""
        self._watches.remove(watch)

    async def freeze(self, arc: Arc) -> None:
        """Take no new writes of `arc` and wait until those under way are durable. Reads go on."""
        self._frozen[arc] = asyncio.Event()
        while any(position in arc for position, _ in self._pending):
            self._written.clear()
            await self._written.wait()

    def thaw(self, arc: Arc) -> None:
        """Take writes of `arc` again, or tell them where it went."""
        frozen = self._frozen.pop(arc, None)
        if frozen is not None:
            frozen.set()

    async def change(self, transition: Callable[[Holdings], Holdings], batch: Batch | None = None) -> None:
        """Change the holdings, durably and together with `batch`. What is given up is no longer served from the start,
        what is gained is served once it is durable."""
        async with self._changing:
            before = self.holdings
            after = transition(before)
            for piece in before.excess(piece.arc for piece in after.pieces):
                self.holdings = self.holdings.without(piece.arc)
            batch = batch or Batch()
            batch.note(HOLDINGS, pack(after))
            try:
                await self.store.commit(batch)
            except StoreFull:
                self.holdings = before
                raise
            self.holdings = after

    def went_to(self, arc: Arc, address: Address) -> None:
        """Who asks here for `arc` is sent there."""
        self._whereabouts = [(a, w) for a, w in self._whereabouts if not a.intersect(arc)][-64:]
        self._whereabouts.append((arc, address))

    async def copies(self, wanted: Iterable[tuple[Identifier, bytes]]) -> tuple[Copy, ...]:
        """These records as they are now; a missing one as a copy without body."""
        names = list(wanted)
        bodies = await self.store.get_many(names)
        return tuple(Copy(p, k, body) for (p, k), body in zip(names, bodies, strict=True))

    async def take_in(self, copies: Iterable[Copy], *, mark_deletes: bool = True) -> None:
        """Store records fetched of an arc that is not held here; marks of deletes only where somebody may need them."""
        batch = Batch()
        for copy in copies:
            if copy.body is None or not (mark_deletes or unpack(Stored, copy.body).value is not None):
                batch.delete(copy.position, copy.key)
            else:
                batch.put(copy.position, copy.key, copy.body)
        await self.store.commit(batch)

    def take_in_newer(self, watch: Watch) -> Callable[[Iterable[Copy]], Awaitable[None]]:
        """What stores records fetched of an arc that is held here too: of each key the higher version stays."""

        async def take_in(copies: Iterable[Copy]) -> None:
            theirs = [copy for copy in copies if copy.body is not None]
            mine = await self.store.get_many([(copy.position, copy.key) for copy in theirs])
            newer = [copy for copy, body in zip(theirs, mine, strict=True) if _newer(copy.body, body)]
            await self.take_in(copy for copy in newer if (copy.position, copy.key) not in watch.written)

        return take_in

    async def forget_deletes(self, watch: Watch) -> None:
        """Drop the marks of deletes in a watched arc where nothing is lacking any more: nobody needs them."""
        arcs = [piece.arc for piece in self.holdings.within(watch.arc) if not piece.lacks]
        snapshot = await self.store.snapshot()
        try:
            for arc in arcs:
                after: Cursor | None = None
                while True:
                    records, after = await snapshot.scan(arc, after, self.settings.chunk)
                    batch = Batch()
                    for record in records:
                        marked = unpack(Stored, record.body).value is None
                        if marked and (record.position, record.key) not in watch.written:
                            batch.delete(record.position, record.key)
                    await self.store.commit(batch)
                    if after is None:
                        break
        finally:
            await snapshot.close()


def _newer(body: bytes | None, than: bytes | None) -> bool:
    if body is None:
        return False
    return than is None or unpack(Stored, body).version > unpack(Stored, than).version


def copy_of(record: Record) -> Copy:
    """A record as it travels."""
    return Copy(record.position, record.key, record.body)
