"""Handing an arc over to another node, while it is read and written: the source's side and the destination's.

    begin     the source watches which keys of the arc are written from now on
    pull ...  bounded chunks of the arc, each from a snapshot of its moment; the cursor makes a chunk repeatable
    delta ... what was written behind the cursor meanwhile, until little is left
    freeze    writes of the arc wait, the last changes go over; the destination notes durably that it is *prepared*
    release   the source gives the arc up durably; from here on the destination answers for it
    confirm   the destination does; a source that leaves the ring may go

At every moment at most one of the two answers. If either dies on the way, the destination knows whether the source let
go (`released`) or must ask it; a source not asked to release in time takes writes again, and the transfer is void.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from node.codec import Address
from node.errors import Moved, NotServing, OutcomeUnknown, Unreachable
from node.identifiers import Arc
from node.replication.holder import Holder, Watch, copy_of
from node.replication.holdings import Holdings, Piece, Prepared, subtract
from node.replication.messages import (
    BEGIN,
    CONFIRM,
    DELTA,
    PULL,
    RELEASE,
    Begin,
    Begun,
    Changes,
    Copy,
    Delta,
    Pull,
    Pulled,
)
from node.settings import Settings
from node.store.interface import Batch, Cursor
from node.transport import A, Method, Q, Transport

log = logging.getLogger(__name__)

DELTA_RECORDS = 1000
"""Changed records sent at a time; when no more are left than this, it is time to freeze."""
ATTEMPTS = 4
"""How often one step of a hand-over is tried before it begins anew."""


@dataclass(slots=True, eq=False)
class Transfer:
    """A hand-over as its source sees it."""

    name: bytes
    by: Address
    piece: Piece
    watch: Watch
    used: float
    number: int = -1
    changes: Changes | None = None
    frozen: bool = False
    releasing: bool = False
    step: asyncio.Lock = field(default_factory=asyncio.Lock)


class Source:
    """The side that has the arc."""

    def __init__(self, holder: Holder, settings: Settings, random: Random) -> None:
        self._holder = holder
        self._settings = settings
        self._random = random
        self._transfers: dict[bytes, Transfer] = {}
        self._unconfirmed: dict[bytes, None] = {}

    async def begin(self, request: Begin) -> Begun:
        """Begin to hand over the first piece held of an arc. Raises Moved if nothing of it is held, NotServing while
        this node fetches part of it itself."""
        held = self._holder.holdings.within(request.arc)
        if not held:
            raise Moved(f"nothing of {request.arc} is held here", None)
        if any(arc.intersect(held[0].arc) for arc in self._holder.fetching):
            raise NotServing(f"{held[0].arc} is being fetched by this node itself: ask again")
        overlapping = [t for t in self._transfers.values() if t.piece.arc.intersect(held[0].arc)]
        if any(transfer.releasing for transfer in overlapping):
            raise NotServing(f"{held[0].arc} is going to another node at this moment: ask again")
        for transfer in overlapping:
            self._end(transfer)
        name = self._random.randbytes(16)
        watch = self._holder.watch(held[0].arc)
        self._transfers[name] = Transfer(name, request.by, held[0], watch, asyncio.get_running_loop().time())
        return Begun(name, held[0])

    async def pull(self, request: Pull) -> Pulled:
        """The next chunk of the arc."""
        transfer = self._transfer(request.transfer)
        snapshot = await self._holder.store.snapshot()
        try:
            records, after = await snapshot.scan(transfer.piece.arc, request.after, self._settings.chunk)
        finally:
            await snapshot.close()
        return Pulled(tuple(copy_of(record) for record in records), after)

    async def delta(self, request: Delta) -> Changes:
        """The next changed records; with `freeze`, after writes of the arc have come to rest. Repeatable by number."""
        transfer = self._transfer(request.transfer)
        async with transfer.step:
            if request.number == transfer.number and transfer.changes is not None:
                return transfer.changes
            if request.freeze and not transfer.frozen:
                transfer.frozen = True
                await self._holder.freeze(transfer.piece.arc)
            limit = None if transfer.frozen else DELTA_RECORDS
            copies = await self._holder.copies(self._holder.written(transfer.watch, limit))
            transfer.number, transfer.changes = request.number, Changes(copies, len(transfer.watch.written))
            return transfer.changes

    async def release(self, name: bytes) -> bool:
        """Give the arc up, durably; False if the transfer is void and the arc stays here."""
        transfer = self._transfers.get(name)
        if transfer is not None and transfer.frozen:
            async with transfer.step:  # asked twice, the second must not answer before the first has an answer
                if self._transfers.get(name) is transfer:
                    await self._let_go(transfer)
        return name in self._holder.holdings.released

    async def _let_go(self, transfer: Transfer) -> None:
        arc = transfer.piece.arc
        if self._holder.holdings.missing(arc):
            self._end(transfer)
            return
        transfer.releasing = True
        self._unconfirmed[transfer.name] = None
        batch = Batch()
        batch.delete_arc(arc)
        try:
            await self._holder.change(lambda holdings: holdings.releasing(arc, transfer.name), batch)
            self._holder.went_to(arc, transfer.by)
        finally:
            transfer.releasing = False
            self._end(transfer)

    async def confirm(self, name: bytes) -> None:
        """The destination answers for the arc now."""
        self._unconfirmed.pop(name, None)

    @property
    def unconfirmed(self) -> bool:
        """Whether a destination may still have to ask what became of a release."""
        return bool(self._unconfirmed)

    def expire(self) -> None:
        """Void transfers whose destination has gone quiet."""
        now = asyncio.get_running_loop().time()
        for transfer in list(self._transfers.values()):
            patience = self._settings.freeze if transfer.frozen else 4 * self._settings.operation
            if now - transfer.used > patience and not transfer.releasing:
                log.info("hand-over of %s is void: its destination went quiet", transfer.piece.arc)
                self._end(transfer)

    def _transfer(self, name: bytes) -> Transfer:
        transfer = self._transfers.get(name)
        if transfer is None:
            raise Moved("this hand-over is void: begin again", None)
        transfer.used = asyncio.get_running_loop().time()
        return transfer

    def _end(self, transfer: Transfer) -> None:
        del self._transfers[transfer.name]
        self._holder.unwatch(transfer.watch)
        self._holder.thaw(transfer.piece.arc)


class Destination:
    """The side that gets the arc."""

    def __init__(self, holder: Holder, transport: Transport, settings: Settings, me: Address) -> None:
        self._holder = holder
        self._transport = transport
        self._settings = settings
        self._me = me

    async def fetch(self, source: Address, arc: Arc) -> Arc:
        """Fetch the first piece that `source` holds of `arc` and answer for it from now on; the arc it covered.

        Raises Moved if the source holds nothing of it, and RingErrors of the network; then nothing has changed, or it
        is *prepared* and `resolve` must find out.
        """
        begun = await self._ask(BEGIN, source, Begin(arc, self._me))
        piece, name = begun.piece, begun.transfer
        mine = self._holder.holdings.within(piece.arc)
        watch = self._holder.watch(piece.arc)
        self._holder.fetching.append(piece.arc)
        try:
            await self._make_room(piece, mine)
            if mine:
                await self._pull_all(source, name, self._holder.take_in_newer(watch))
            else:
                await self._pull_all(source, name, partial(self._holder.take_in, mark_deletes=bool(piece.lacks)))
            if [each.arc for each in self._holder.holdings.within(piece.arc)] != [each.arc for each in mine]:
                raise Moved(f"{piece.arc} changed hands while it was fetched: begin again", None)
            prepared = Prepared(self._gained(piece, mine), source, name)
            await self._holder.change(lambda holdings: holdings.preparing(prepared))
            await self.resolve(prepared)
            if mine:
                await self._holder.forget_deletes(watch)
        finally:
            self._holder.fetching.remove(piece.arc)
            self._holder.unwatch(watch)
        return piece.arc

    async def resolve(self, prepared: Prepared, attempts: int = ATTEMPTS) -> None:
        """Ask the source to let go, and answer for the arc if it did. Raises if the source does not answer."""
        released = await self._ask(RELEASE, prepared.source, prepared.transfer, attempts=attempts)

        def settled(holdings: Holdings) -> Holdings:
            left = holdings.resolved(prepared.transfer)
            return left.adding(_since(holdings, prepared.pieces)) if released else left

        await self._holder.change(settled)
        if not released:
            raise Moved("the hand-over became void: begin again", None)
        await self._ask(CONFIRM, prepared.source, prepared.transfer, attempts=attempts)

    async def _make_room(self, piece: Piece, mine: tuple[Piece, ...]) -> None:
        """Where nothing is held, left-overs go; where something is, its new writes must win over what is fetched."""
        batch = Batch()
        for gap in subtract((piece.arc,), (each.arc for each in mine)):
            batch.delete_arc(gap)
        newer = [Piece(each.arc, max(each.epoch, piece.epoch) + 1, each.lacks) for each in mine]
        await self._holder.change(lambda holdings: holdings.adding(newer), batch)

    @staticmethod
    def _gained(piece: Piece, mine: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """What is held of the fetched arc when all is done."""
        gaps = subtract((piece.arc,), (each.arc for each in mine))
        merged = (each.merged(piece, each.arc) for each in mine)
        return (*(piece.clipped(gap) for gap in gaps), *merged)

    async def _pull_all(
        self, source: Address, name: bytes, take_in: Callable[[Iterable[Copy]], Awaitable[None]]
    ) -> None:
        after: Cursor | None = None
        while True:
            pulled = await self._ask(PULL, source, Pull(name, after))
            await take_in(pulled.records)
            after = pulled.after
            if after is None:
                break
        number, freeze = 0, False
        while True:
            changes = await self._ask(DELTA, source, Delta(name, number, freeze))
            await take_in(changes.records)
            if freeze:
                return
            number += 1
            freeze = changes.left <= DELTA_RECORDS

    async def _ask(self, method: Method[Q, A], to: Address, question: Q, attempts: int = ATTEMPTS) -> A:
        """One step, repeated if its answer is lost: every step gives the same answer again."""
        for attempt in range(attempts - 1):
            try:
                return await method.ask(self._transport, to, question, deadline=self._settings.call)
            except (OutcomeUnknown, Unreachable) as error:
                log.debug("hand-over: %s; trying again", error)
            await asyncio.sleep(self._settings.backoff * 2**attempt)
        return await method.ask(self._transport, to, question, deadline=self._settings.call)


def _since(holdings: Holdings, fetched: tuple[Piece, ...]) -> list[Piece]:
    """What is held once `fetched` is ours: itself, merged with what was taken over while its source did not answer."""
    newer = [(held, piece) for piece in fetched for held in holdings.within(piece.arc) if held.epoch > piece.epoch]
    return [*fetched, *(held.merged(piece, held.arc) for held, piece in newer)]
