"""Taking operations on keys to the nodes that answer them, from a node of the ring or from a client of it.

The map tells where; a wrong answer makes it be read anew. Keys of one arc travel together, and apart where it was split
meanwhile. Every write has a name, an operation of this router, so trying again changes nothing that was done
already. What could not be decided within the deadline is said to be unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from node.batches import all_of, portions, side_by_side
from node.chain.messages import COUNT, READ, SCAN, WRITE, Edit, Operation, Read, Write, Written
from node.chain.ring_map import Entry, Life, RingMap
from node.data import Scan, Stored, Version
from node.errors import (
    BadValue,
    Moved,
    NoQuorum,
    NotAMember,
    NotServing,
    OutcomeUnknown,
    Overloaded,
    RingError,
    StoreFull,
    Unavailable,
    Unreachable,
    VersionConflict,
)
from node.identifiers import EVERYTHING, Arc, Identifier
from node.settings import Settings
from node.transport import A, Method, Q, Transport

if TYPE_CHECKING:  # a client has none, and starts without them
    from node.chain.chains import Chains

T = TypeVar("T")

TRY_AGAIN = (Moved, NotAMember, NotServing, Overloaded, Unreachable)
SIDE_BY_SIDE = 16
"""Questions of one batch under way at a time."""


class Charts(Protocol):
    """Where the ring map is learnt."""

    @property
    def ring(self) -> RingMap | None:
        """As far as it is known."""
        ...

    async def current(self) -> object:
        """Learn it as it is now. Raises RingErrors."""
        ...


Placed = tuple[Identifier, T]
"""Something, and where its key is."""


@dataclass(frozen=True, slots=True)
class Errand(Generic[T, Q, A]):
    """What is asked of the nodes that hold some things: how to ask, whom, and what to do with the answer."""

    method: Method[Q, A]
    question: Callable[[Sequence[Placed[T]]], Q]
    whom: Callable[[Entry], Life]
    here: Callable[[Q], Awaitable[A]] | None
    done: Callable[[Sequence[Placed[T]], A], Sequence[Placed[T]]]
    """Takes the answer; returns what has to be asked again, because the answer was not about it."""
    writes: bool = False
    """Whether an answer that did not come leaves open what happened."""


class Router:
    """The way to the head or the tail of any key's chain; `local` are the chains of the node it starts from, if any."""

    def __init__(
        self, charts: Charts, transport: Transport, settings: Settings, random: Random, local: Chains | None = None
    ) -> None:
        self._charts = charts
        self._local = local
        self._life = local.replicas.life if local is not None else None
        self._transport = transport
        self._settings = settings
        self._random = random
        self._client = random.randbytes(16)
        self._numbers: list[int] = []
        """The last number used in each slot."""
        self._free: list[int] = []
        self._reading: asyncio.Task[RingError | None] | None = None
        self._blind: RingError | None = None
        """Why the map could not be read the last time."""

    # -- single operations -------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key. Raises NoQuorum, Unavailable."""
        return (await self._read([(Identifier.of_key(key), key)]))[key]

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        """Write a packed value. Raises NoQuorum, Unavailable, StoreFull, OutcomeUnknown."""
        return (await self._write_one(Edit(key, value, expires=expires))).version

    async def put_if(self, key: bytes, value: bytes, version: Version | None, expires: int = 0) -> Version:
        """Write it if the key has this version, None: if it is absent. Raises VersionConflict, and as `put` does."""
        return (await self._write_one(Edit(key, value, True, version, expires=expires))).version

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        return bool((await self._write_one(Edit(key, None))).outcome.gone)

    async def delete_if(self, key: bytes, version: Version) -> None:
        """Remove a key that has this version. Raises VersionConflict, and as `put` does."""
        await self._write_one(Edit(key, None, True, version))

    async def increment(self, key: bytes, amount: int | float) -> tuple[bytes, Version]:
        """Add to a number, which is 0 if the key is absent; what it came to, packed, and its version. Raises BadValue
        if something else is stored there, and as `put` does."""
        written = await self._write_one(Edit(key, None, amount=amount))
        assert written.outcome.total is not None
        return written.outcome.total, written.version

    async def _write_one(self, edit: Edit) -> Written:
        (written,) = await self._write([(Identifier.of_key(edit.key), edit)])
        if written.outcome.conflict is not None:
            _, found = written.outcome.conflict
            raise VersionConflict(f"{edit.key[:40]!r} has version {found}, not {edit.expected}", found)
        if written.outcome.unfit:
            raise BadValue(written.outcome.unfit)
        return written

    # -- many keys ---------------------------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        """The records of keys. Raises as `get` does."""
        named = [(Identifier.of_key(key), key) for key in dict.fromkeys(keys)]
        found: dict[bytes, Stored | None] = {}

        async def read(part: Sequence[Placed[bytes]]) -> None:
            found.update(await self._read(part))

        await side_by_side(read, self._portions(named, len), SIDE_BY_SIDE)
        return found

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes]], expires: int = 0) -> None:
        """Write packed values, each for itself: not all at one moment. Raises as `put` does; the message says how many
        were written."""
        edits = [Edit(key, value, expires=expires) for key, value in dict(pairs).items()]
        await self._write_many(edits)

    async def delete_many(self, keys: Iterable[bytes]) -> int:
        """Remove keys; how many were there. Raises as `put_many` does."""
        return await self._write_many([Edit(key, None) for key in dict.fromkeys(keys)])

    async def _write_many(self, edits: Sequence[Edit]) -> int:
        placed = [(Identifier.of_key(edit.key), edit) for edit in edits]
        done = gone = 0

        async def write(part: Sequence[Placed[Edit]]) -> None:
            nonlocal done, gone
            written = await self._write(part)
            gone += len({where for each in written for where in each.outcome.gone})
            done += len(part)

        try:
            await side_by_side(write, self._portions(placed, _size), SIDE_BY_SIDE)
        except RingError as error:
            if len(edits) == 1:
                raise
            raise type(error)(
                f"{done} of {len(edits)} keys are done, the rest failed: {error}", *error.args[1:]
            ) from None
        return gone

    def _portions(self, placed: Iterable[Placed[T]], size_of: Callable[[T], int]) -> list[list[Placed[T]]]:
        """Apart by arc, as far as the map is known, and by size."""
        groups = self._grouped(list(placed))
        return [portion for group in groups for portion in portions(group, lambda each: size_of(each[1]))]

    def _grouped(self, placed: Sequence[Placed[T]]) -> list[list[Placed[T]]]:
        """Apart by arc."""
        ring = self._charts.ring
        if ring is None or len(placed) < 2:
            return [list(placed)] if placed else []
        groups: dict[int, list[Placed[T]]] = {}
        number = ring.number_at
        for each in placed:
            groups.setdefault(number(each[0]), []).append(each)
        return list(groups.values())

    # -- arcs --------------------------------------------------------------------------------------------------------

    async def scan(
        self, prefix: bytes = b"", *, keys_only: bool = False
    ) -> AsyncIterator[tuple[tuple[bytes, Stored], ...]]:
        """All records whose keys begin with `prefix`, portion by portion, each as of the moment it is read. Raises as
        `get` does."""
        here = self._local.scan if self._local is not None else None
        left = [EVERYTHING]
        while left:
            piece = left.pop(0)
            part, scanned = await self._first_of(piece, SCAN, lambda part: Scan(part, prefix, keys_only), here)
            left = [*([scanned.rest] if scanned.rest is not None else []), *piece.minus(part), *left]
            if scanned.records:
                yield scanned.records

    async def count(self, arc: Arc = EVERYTHING) -> int:
        """How many keys an arc holds. Raises as `get` does."""
        here = self._local.count if self._local is not None else None
        counted = 0
        left = [arc]
        while left:
            piece = left.pop(0)
            part, keys = await self._first_of(piece, COUNT, lambda part: part, here)
            left = [*piece.minus(part), *left]
            counted += keys
        return counted

    async def _first_of(
        self,
        piece: Arc,
        method: Method[Q, A],
        question: Callable[[Arc], Q],
        here: Callable[[Q], Awaitable[A]] | None,
    ) -> tuple[Arc, A]:
        """Ask about the first part of a piece of the ring that one chain holds; that part, and the answer."""
        parts: list[Arc] = []
        answers: list[A] = []

        def ask(_: object) -> Q:
            assert self._charts.ring is not None
            parts.append(piece.intersect(self._charts.ring.at(first).arc)[0])
            return question(parts[-1])

        def done(_: object, answer: A) -> Sequence[Placed[Arc]]:
            answers.append(answer)
            return ()

        first = piece.start.plus(1)
        await self._run(Errand(method, ask, lambda entry: entry.tail, here, done), [(first, piece)])
        return parts[-1], answers[-1]

    # -- going there -------------------------------------------------------------------------------------------------

    async def _read(self, placed: Sequence[Placed[bytes]]) -> dict[bytes, Stored | None]:
        found: dict[bytes, Stored | None] = {}

        def done(asked: Sequence[Placed[bytes]], answer: tuple[Stored | None, ...]) -> Sequence[Placed[bytes]]:
            if not answer:
                raise BadValue("an empty answer came: the nodes of this ring run different versions?")
            found.update(zip((key for _, key in asked), answer, strict=False))
            return asked[len(answer) :]

        here = self._local.read if self._local is not None else None
        errand: Errand[bytes, Read, tuple[Stored | None, ...]] = Errand(
            READ, lambda part: Read(tuple(key for _, key in part)), lambda entry: entry.tail, here, done
        )
        await self._run(errand, placed)
        return found

    async def _write(self, placed: Sequence[Placed[Edit]]) -> list[Written]:
        """One operation; an answer for each part that it had to be taken apart into."""
        slot = self._free.pop() if self._free else self._new_slot()
        self._numbers[slot] += 1
        operation = Operation(self._client, slot, self._numbers[slot])
        answers: list[Written] = []

        def done(_: Sequence[Placed[Edit]], answer: Written) -> Sequence[Placed[Edit]]:
            answers.append(answer)
            return ()

        here = self._local.write if self._local is not None else None
        errand: Errand[Edit, Write, Written] = Errand(
            WRITE,
            lambda part: Write(operation, tuple(edit for _, edit in part)),
            lambda entry: entry.head,
            here,
            done,
            writes=True,
        )
        try:
            await self._run(errand, placed)
        finally:
            self._free.append(slot)
        return answers

    def _new_slot(self) -> int:
        self._numbers.append(0)
        return len(self._numbers) - 1

    async def _run(
        self, errand: Errand[T, Any, Any], placed: Sequence[Placed[T]], unknown: OutcomeUnknown | None = None
    ) -> None:
        """Ask until all is answered, or the deadline is over: raises what it was that lacked."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        attempt = 0
        while placed:
            groups = self._grouped(placed)
            if len(groups) > 1:
                await all_of(self._run(errand, group, unknown) for group in groups)
                return
            try:
                placed = errand.done(placed, await self._ask(errand, placed, deadline - loop.time()))
                continue
            except TRY_AGAIN as error:
                failure: RingError = error
            except OutcomeUnknown as error:
                failure, unknown = error, unknown or error  # the first attempt had the time to find out why
            except StoreFull:
                if unknown is not None:
                    raise unknown from None
                raise
            blind = await self._read_map(deadline - loop.time())
            attempt += 1
            pause = self._settings.backoff * min(2**attempt, 4) * self._random.uniform(0.5, 1)
            if loop.time() + pause >= deadline:
                raise self._given_up(attempt, failure, unknown if errand.writes else None, blind)
            await asyncio.sleep(pause)

    async def _ask(self, errand: Errand[T, Q, A], placed: Sequence[Placed[T]], left: float) -> A:
        ring = self._charts.ring
        if ring is None:
            raise NotServing("the ring map is not known yet: try again")
        life = errand.whom(ring.at(placed[0][0]))
        question = errand.question(placed)
        if life == self._life and errand.here is not None:
            return await errand.here(question)
        resident = ring.resident(life)
        if resident is None:
            raise NotServing("the ring map is changing: try again")
        quick = errand.method.name == READ.name and len(placed) == 1
        patience = self._settings.probe if quick else 1.25 * self._settings.call  # a head takes `call`
        patience = min(max(left, 0.001), patience)
        return await errand.method.ask(self._transport, resident.address, question, deadline=patience)

    async def _read_map(self, left: float) -> RingError | None:
        """Read the map anew, together with all who want that; the error if it cannot be read."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read_anew())
        try:
            async with asyncio.timeout(max(left, 0.001)):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            return self._blind

    async def _read_anew(self) -> RingError | None:
        try:
            await self._charts.current()
        except RingError as error:
            self._blind = error
        else:
            self._blind = None
        return self._blind

    def _given_up(
        self, attempts: int, failure: RingError, unknown: OutcomeUnknown | None, blind: RingError | None
    ) -> RingError:
        """What to say once the deadline is over."""
        if unknown is not None:
            return OutcomeUnknown(f"tried {attempts} times within {self._settings.operation} s: {unknown}")
        if isinstance(blind, NoQuorum):
            return blind
        return Unavailable(f"no answer for this key within {self._settings.operation} s: {failure}")


def _size(edit: Edit) -> int:
    return len(edit.key) + len(edit.value or b"")
