"""The data side of a node of an eventual ring: any replica takes a write, any replica answers.

Put together here: where operations go, what a node answers that has come to own an arc a moment ago, and the rounds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import TypeVar

from node.batches import side_by_side
from node.chord.household import Household
from node.codec import Address, Contact
from node.data import Scan, Scanned, Stored, Verified, Version
from node.errors import Definite, Moved, OutcomeUnknown, RingError, Unavailable
from node.events import Event
from node.eventual import messages as m
from node.eventual.agreed_time import AgreedTime
from node.eventual.awake import Vigil
from node.eventual.cells import Cell, Context, context_of, joined, living
from node.eventual.exchange import Exchange
from node.eventual.limits import Limited, check_lasting
from node.eventual.messages import DEPOSIT, HELD, PICK, SUMS, Deposit, Deposited, Sum
from node.eventual.placement import Placement
from node.eventual.seeker import Seeker
from node.eventual.shelf import Shelf
from node.eventual.stamps import HybridClock, Stamp
from node.identifiers import EVERYTHING, Arc, Identifier, key_in, position_of
from node.settings import MIB, Settings
from node.store.interface import Store
from node.tasks import Tasks
from node.transport import Switchboard, Transport
from node.values import check_sizes

T = TypeVar("T")
A = TypeVar("A")

log = logging.getLogger(__name__)

ANSWER = 4 * MIB
"""Bytes of values in one answer, about."""
SIDE_BY_SIDE = 64
"""Operations of one batch under way at a time."""
REPAIRS = 32
"""Reads being repaired at a time; further ones are answered without."""


class Commons(Limited):
    """One node's part in an eventual ring. Versions are (microseconds since 1970, writer)."""

    def __init__(
        self,
        household: Household,
        shelf: Shelf,
        exchange: Exchange,
        placement: Placement,
        transport: Transport,
        settings: Settings,
        clock: HybridClock,
        time: AgreedTime,
        tasks: Tasks,
        vigil: Vigil,
    ) -> None:
        self._household = household
        self._shelf = shelf
        self._exchange = exchange
        self._placement = placement
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._time = time
        self._tasks = tasks
        self._vigil = vigil
        self.operations = self
        self._seeker = Seeker(placement, transport, settings)
        self.traffic = self._seeker.traffic
        self._repairs = 0

    @classmethod
    async def open(
        cls,
        household: Household,
        store: Store,
        transport: Transport,
        settings: Settings,
        random: Random,
        wall: Callable[[], float],
        tasks: Tasks,
        replicas: int,
        siblings: bool,
    ) -> Commons:
        """On what the store left."""
        time = AgreedTime(wall, settings.max_future)
        clock = HybridClock(time, settings.max_future)
        shelf = Shelf(store, clock, settings, tasks, random, siblings=siblings)
        await shelf.load()
        placement = Placement(household, replicas)
        vigil = await Vigil.load(household, store, transport, settings, time)
        exchange = Exchange(shelf, placement, time, transport, settings, random, tasks, vigil)
        return cls(household, shelf, exchange, placement, transport, settings, clock, time, tasks, vigil)

    def connect(self, receive: Switchboard) -> None:
        """Answer others."""
        receive.connect(DEPOSIT, self._deposit)
        receive.connect(PICK, self._pick)
        receive.connect(HELD, self._held)
        receive.connect(m.CONTACTS, self._contacts)
        receive.connect(m.GET_MANY, self._get_many)
        receive.connect(m.PUT_MANY, self._put_checked)
        receive.connect(m.DELETE_MANY, self.delete_many)
        receive.connect(m.SCAN, self._scan)
        receive.connect(m.PART, self._part)
        receive.connect(m.COUNT, self.count)
        self._exchange.connect(receive)
        self._vigil.connect(receive)

    def begin(self) -> None:
        """Begin all rounds."""
        self._tasks.spawn(self._exchange.keep())
        self._tasks.spawn(self._vigil.keep())

    def ring_changed(self) -> None:
        """Members of this node have other neighbours."""
        self._placement.forget()
        self._exchange.wanted.set()

    async def wake(self, others: Iterable[Address]) -> None:
        """Come up beside these: with nothing, if they may have forgotten what was deleted while this node was away."""
        if await self._vigil.meet(others):
            Event.EMPTIED.tell(
                log,
                "away for longer than %g s, in which what is here may have been deleted and forgotten: empty now",
                self._settings.grace,
            )
            await self._shelf.clear()

    async def join(self, seats: tuple[Identifier, ...]) -> None:
        """Nothing to do: where members stand is known by the ring alone."""

    async def serves(self) -> bool:
        """It always does."""
        return True

    async def close(self) -> None:
        """Write nothing any more, whoever asks; done when what was begun is on the disk."""
        await self._shelf.close()

    async def reopen(self) -> None:
        """Go on after `close`."""
        self._shelf.reopen()

    async def part(self) -> bool:
        """Give others all that is here; True once they have it. Raises RingErrors of the network."""
        await self._exchange.part()
        return True

    # -- operations ---------------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> Stored | None:
        """The value written last, as far as the replica that answers knows. Raises Unavailable."""
        values = await self.get_all(key)
        return values[0] if values else None

    async def get_all(self, key: bytes) -> tuple[Stored, ...]:
        """All values that stand side by side, the newest first. Raises Unavailable."""
        cell = await self._seeker.ask(key, PICK, key, self._pick)
        return tuple(_stored(written.stamp, written.value) for written in cell if written.value is not None)

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        """Write a packed value in place of what stands there. Raises Unavailable, StoreFull, Overloaded, OutcomeUnknown
        if a node may have taken it, and BadUsage for one that expires."""
        check_lasting(expires)
        return await self.put_over(key, value, ())

    async def put_over(self, key: bytes, value: bytes, over: tuple[Version, ...]) -> Version:
        """Where siblings are kept: write a packed value in place of these versions and all they had replaced. Raises
        as `put` does."""
        stamp = (await self._write(key, value, joined(Stamp(*version) for version in over))).newest
        return stamp.time, stamp.writer

    async def delete(self, key: bytes) -> bool:
        """Remove a key, of siblings those that the replica asked knows of; whether there was a value. Raises as `put`
        does."""
        seen = context_of(await self._seeker.ask(key, PICK, key, self._pick)) if self._shelf.siblings else ()
        return (await self._write(key, None, seen)).existed

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        """Each as `get` reads it."""
        wanted = list(dict.fromkeys(keys))
        return dict(zip(wanted, await side_by_side(self.get, wanted, SIDE_BY_SIDE), strict=True))

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes]], expires: int = 0) -> None:
        """Each as `put` writes it."""
        check_lasting(expires)
        await self._put_many(tuple(dict(pairs).items()))

    async def _put_many(self, pairs: tuple[tuple[bytes, bytes], ...]) -> tuple[Version, ...]:
        return tuple(await self._each(lambda pair: self.put(*pair), pairs))

    async def _put_checked(self, pairs: tuple[tuple[bytes, bytes], ...]) -> tuple[Version, ...]:
        check_sizes(pairs, self._settings)
        return await self._put_many(pairs)

    async def delete_many(self, keys: Iterable[bytes]) -> int:
        """Remove keys, each as `delete` does; how many were there."""
        return sum(await self._each(self.delete, tuple(dict.fromkeys(keys))))

    async def _each(self, write: Callable[[T], Awaitable[A]], things: Sequence[T]) -> list[A]:
        """Write them all, side by side. If some fail and others do not, that is OutcomeUnknown: nobody may do all of it
        again somewhere else."""
        done = 0

        async def counted(thing: T) -> A:
            nonlocal done
            answer = await write(thing)
            done += 1
            return answer

        try:
            return await side_by_side(counted, things, SIDE_BY_SIDE)
        except Definite as error:
            if not done:
                raise
            raise OutcomeUnknown(f"{done} of {len(things)} keys are done, the rest failed: {error}") from None

    async def _write(self, key: bytes, value: bytes | None, seen: Context) -> Deposited:
        """Have a replica take a write; what it already holds, however new, makes this one newer still."""
        time = self._clock.next(max((stamp.time for stamp in seen), default=0))
        doubts: list[OutcomeUnknown] = []
        while True:
            try:
                answer = await self._seeker.ask(key, DEPOSIT, Deposit(key, value, time, seen), self._deposit, doubts)
            except Definite as error:
                if not doubts:
                    raise
                raise OutcomeUnknown(f"one node may have taken this write, and no other does: {error}") from None
            if answer.taken:
                return answer
            time = self._clock.next(answer.newest.time)

    # -- what this node answers ---------------------------------------------------------------------------------------

    async def _contacts(self, _: None) -> tuple[Contact, ...]:
        return tuple(view.me for view in await self._household.census())

    async def _get_many(self, keys: tuple[bytes, ...]) -> tuple[Stored | None, ...]:
        found = await self.get_many(keys)
        size = 0
        for n, key in enumerate(keys):
            stored = found[key]
            size += len(stored.value) if stored is not None else 0
            if n and size > ANSWER:
                keys = keys[:n]
                break
        return tuple(found[key] for key in keys)

    async def _deposit(self, question: Deposit) -> Deposited:
        self._exchange.check_open()
        if question.value is None:
            await self._cell(question.key)  # whether there is a value to delete, others may know
        deposited = await self._shelf.write(question, self._time.micros())
        if deposited.taken:
            self._tasks.spawn(self._passed_on(question.key))
        return deposited

    async def _passed_on(self, key: bytes) -> None:
        try:
            await self._exchange.pass_on(key)
        except RingError as error:
            log.debug("%s; the comparison of arcs will do it", error)
            self._exchange.wanted.set()

    async def _pick(self, key: bytes) -> Cell:
        cell = await self._cell(key)
        if self._repairs < REPAIRS:
            self._tasks.spawn(self._repaired(key))
        return cell

    async def _repaired(self, key: bytes) -> None:
        self._repairs += 1
        try:
            await self._exchange.repair(key)
        except RingError as error:
            log.debug("%s; the comparison of arcs will do it", error)
        finally:
            self._repairs -= 1

    async def _held(self, key: bytes) -> Cell:
        (cell,) = await self._shelf.read([key])
        return cell

    async def _cell(self, key: bytes) -> Cell:
        """What is held here; together with what others hold while this node has not caught up with them."""
        position = Identifier.of_key(key)
        if self._exchange.is_settled(position):
            return await self._held(key)
        nodes = await self._placement.candidates(position, self._settings.probe / 4)
        others = [node for node in nodes[: self._settings.successors] if node != self._placement.here]
        answers = await asyncio.gather(*(self._held_by(node, key) for node in others))
        found = [(key, cell) for cell in answers if cell]
        if found:
            await self._shelf.merge(found, self._time.micros())
        return await self._held(key)

    async def _held_by(self, node: Address, key: bytes) -> Cell:
        try:
            return await HELD.ask(self._transport, node, key, deadline=self._settings.probe / 4)
        except RingError:
            return ()

    # -- looking at all of it -----------------------------------------------------------------------------------------

    async def scan(
        self, prefix: bytes = b"", *, keys_only: bool = False
    ) -> AsyncIterator[tuple[tuple[bytes, Stored], ...]]:
        """All records whose keys begin with `prefix`, each as one of its replicas knows it. Raises Unavailable."""
        rest: Arc | None = EVERYTHING
        while rest is not None:
            scanned = await self._scan(Scan(rest, prefix, keys_only))
            rest = scanned.rest
            if scanned.records:
                yield scanned.records

    async def _scan(self, question: Scan) -> Scanned:
        """The first records of an arc, from the owner of its beginning. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        while True:
            (node, *_) = await self._placement.at(question.arc.start.plus(1))
            try:
                if node == self._placement.here:
                    return await self._part(question)
                return await m.PART.ask(self._transport, node, question, deadline=self._settings.call)
            except RingError as error:
                if loop.time() > deadline:
                    raise Unavailable(f"no answer about {question.arc} in time: {error}") from None
            self._placement.forget()
            await asyncio.sleep(self._settings.backoff)

    async def _part(self, question: Scan) -> Scanned:
        """The first records of an arc of which this node owns the beginning. Raises Moved."""
        part = self._placement.part_of(question.arc)
        if part is None:
            raise Moved(f"{question.arc} does not begin here", None)
        found: list[tuple[bytes, Stored]] = []
        size, last = 0, part.start
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.probe / 4
        async for name, body in self._shelf.scan(part):
            position, key = position_of(name), key_in(name)
            if (size > MIB or loop.time() > until) and position != last:
                return Scanned(tuple(found), Arc(last, question.arc.end))
            last = position
            if key.startswith(question.prefix) and (cell := living(body.cell)):
                value = b"" if question.keys_only else cell[0].value or b""
                size += len(key) + len(value)
                found.append((key, _stored(cell[0].stamp, value)))
        rest = None if part.end == question.arc.end else Arc(part.end, question.arc.end)
        return Scanned(tuple(found), rest)

    async def count(self, arc: Arc = EVERYTHING) -> int:
        """How many keys there are in an arc that one member owns, or in the ring. Raises RingErrors of the network."""
        if arc == EVERYTHING:
            return sum(await asyncio.gather(*map(self.count, await self._arcs())))
        (node, *_) = await self._placement.at(arc.end)
        return (await self._sum(node, arc)).living

    async def replicas(self, key: bytes) -> tuple[tuple[Address, str], ...]:
        """The nodes that should hold a key. Raises Unavailable."""
        return tuple((node, "replica") for node in await self._placement.replicas_at(Identifier.of_key(key)))

    async def verify(self) -> tuple[Verified, ...]:
        """Compare the replicas of all arcs. Raises RingErrors of the network."""
        return tuple(await asyncio.gather(*map(self._verified, await self._arcs())))

    async def _arcs(self) -> list[Arc]:
        """Those of the members there are."""
        views = await self._household.census()
        return [Arc(views[at - 1].me.id, view.me.id) for at, view in enumerate(views)]

    async def _verified(self, arc: Arc) -> Verified:
        nodes = tuple(await self._placement.replicas_at(arc.end))
        try:
            sums = await asyncio.gather(*(self._sum(node, arc) for node in nodes))
        except RingError as error:
            return Verified(arc, 0, nodes, f"not compared: {error}")
        keys = max(each.living for each in sums)
        if len({each.total for each in sums}) == 1:
            return Verified(arc, keys, nodes, "")
        counts = ", ".join(f"{node} has {each.living}" for node, each in zip(nodes, sums, strict=True))
        return Verified(arc, keys, nodes, f"replicas differ, and are being compared: {counts} keys")

    async def _sum(self, node: Address, arc: Arc) -> Sum:
        (found,) = await SUMS.ask(self._transport, node, (arc,), deadline=4 * self._settings.operation)
        return found


def _stored(stamp: Stamp, value: bytes) -> Stored:
    return Stored((stamp.time, stamp.writer), value)
