"""Taking operations on keys to the nodes that answer them, from a node of the ring or from a client of it.

The map tells where; a wrong answer makes it be read anew. Keys of one arc travel together, and apart where it was split
meanwhile. Every write has a name, an operation of this router, so trying again changes nothing that was done
already. What could not be decided within the deadline is said to be unknown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from node.batches import all_of, portions, side_by_side
from node.chain.gathering import Gathering, Named
from node.chain.messages import COUNT, READ, SCAN, WRITE, Edit, Operation, Read, Write, Written
from node.chain.patience import Patience
from node.chain.ring_map import Entry, Life, RingMap
from node.codec import unpack_each
from node.data import Scan, Scanned, Stored, Version
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
from node.identifiers import EVERYTHING, Arc, Name, key_in, name_of, position_of
from node.settings import Settings
from node.transport import A, Method, Q, Transport
from node.values import readable

if TYPE_CHECKING:  # a client has none, and starts without them
    from node.chain.chains import Chains

T = TypeVar("T")

TRY_AGAIN = (Moved, NotAMember, NotServing, Overloaded, Unreachable)
QUICK = 64
"""Keys that are read so quickly that a node which is silent for the time of a probe is not waited for."""
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


Answers = list[tuple[Sequence[Named[T]], A]]
"""Each with the things it is about."""


@dataclass(slots=True)
class Errand(Generic[T, Q, A]):
    """A way of asking the nodes that hold some things: what, whom, and how much of it an answer leaves to be asked."""

    method: Method[Q, A]
    question: Callable[[Sequence[Named[T]], Any], Q]
    """Made of the things, and what else there is to say."""
    whom: Callable[[Entry], Life]
    here: Callable[[Q], Awaitable[A]] | None
    rest: Callable[[Sequence[Named[T]], A], Sequence[Named[T]]]
    writes: bool = False
    """Whether an answer that did not come leaves open what happened."""


class Router:
    """The way to the head or the tail of any key's chain; `local` are the chains of the node it starts from, if any."""

    def __init__(
        self,
        charts: Charts,
        transport: Transport,
        settings: Settings,
        random: Random,
        local: Chains | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`now`: the time by which deadlines are kept, in seconds; that of the running loop if it is left out. With it
        an operation may be begun on a thread that has no loop, on which it is done if it succeeds at once."""
        self._charts = charts
        self._life = local.replicas.life if local is not None else None
        self._transport = transport
        self._settings = settings
        self._random = random
        self._client = random.randbytes(16)
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._slots = count()
        self._free: deque[tuple[int, int]] = deque()
        """Slots that no operation is in, and the last number used in each."""
        chains = local
        self._reads: Errand[bytes, Read, tuple[bytes | None, ...]] = Errand(
            READ, _read, lambda entry: entry.tail, chains.read if chains else None, _unread
        )
        self._writes: Errand[Edit, Write, Written] = Errand(
            WRITE, _write, lambda entry: entry.head, chains.write if chains else None, _nothing, writes=True
        )
        self._scans: Errand[Arc, Scan, Scanned] = Errand(
            SCAN, self._scan, lambda entry: entry.tail, chains.scan if chains else None, _nothing
        )
        self._counts: Errand[Arc, Arc, int] = Errand(
            COUNT, self._part, lambda entry: entry.tail, chains.count if chains else None, _nothing
        )
        self._single_reads = Gathering(self._read, _length, self._arc_of)
        self._single_writes = Gathering(self._write_each, _size, self._arc_of)
        self._reading: asyncio.Task[RingError | None] | None = None
        self._blind: RingError | None = None
        """Why the map could not be read the last time."""

    # -- single operations -------------------------------------------------------------------------------------------

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key. Raises NoQuorum, Unavailable."""
        named = name_of(key), key
        if not self._single_reads.goes_alone:
            return await self._single_reads.together(named)
        try:
            bodies = await self._ask(self._reads, (named,), None, self._settings.operation)
            (stored,) = unpack_each(Stored, bodies)
            return stored
        except (RingError, ValueError):  # it is asked again, and whatever is wrong is seen to
            return await self._single_reads.alone(named)

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        """Write a packed value. Raises NoQuorum, Unavailable, StoreFull, OutcomeUnknown."""
        return (await self._single_writes.one((name_of(key), Edit(key, value, expires=expires)))).version

    async def put_if(self, key: bytes, value: bytes, version: Version | None, expires: int = 0) -> Version:
        """Write it if the key has this version, None: if it is absent. Raises VersionConflict, and as `put` does."""
        return (await self._write_one(Edit(key, value, True, version, expires=expires))).version

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        name = name_of(key)
        return position_of(name) in (await self._single_writes.one((name, Edit(key, None)))).outcome.gone

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
        answers: Answers[Edit, Written] = []
        await self._write([(name_of(edit.key), edit)], answers)
        ((_, written),) = answers
        if written.outcome.conflict is not None:
            _, found = written.outcome.conflict
            raise VersionConflict(f"{readable(edit.key[:40])!r} has version {found}, not {edit.expected}", found)
        if written.outcome.unfit:
            raise BadValue(written.outcome.unfit)
        return written

    # -- many keys ---------------------------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        """The records of keys. Raises as `get` does."""
        found: dict[Name, Stored | None] = {}
        asked = portions(((name_of(key), key) for key in keys), _length, self._arc_of)
        await side_by_side(lambda part: self._read(part, found), asked, SIDE_BY_SIDE)
        return {key_in(name): stored for name, stored in found.items()}

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes]], expires: int = 0) -> None:
        """Write packed values, each for itself: not all at one moment. Raises as `put` does; the message says how many
        were written."""
        last = dict(pairs)
        edits = ((name_of(key), Edit(key, value, expires=expires)) for key, value in last.items())
        await self._write_many(edits, len(last))

    async def delete_many(self, keys: Iterable[bytes]) -> int:
        """Remove keys; how many were there. Raises as `put_many` does."""
        wanted = dict.fromkeys(keys)
        answers = await self._write_many(((name_of(key), Edit(key, None)) for key in wanted), len(wanted))
        return len({position for _, written in answers for position in written.outcome.gone})

    async def _write_many(self, edits: Iterable[Named[Edit]], count: int) -> Answers[Edit, Written]:
        answers: Answers[Edit, Written] = []
        asked = portions(edits, _size, self._arc_of)
        try:
            await side_by_side(lambda part: self._write(part, answers), asked, SIDE_BY_SIDE)
        except RingError as error:
            if count == 1:
                raise
            done = sum(len(part) for part, _ in answers)
            raise type(error)(f"{done} of {count} keys are done, the rest failed: {error}", *error.args[1:]) from None
        return answers

    def _arc_of(self, named: Named[object]) -> int:
        """The number of the arc something is in, as far as the map is known now."""
        ring = self._charts.ring
        return ring.number_of(named[0]) if ring is not None else 0

    # -- arcs --------------------------------------------------------------------------------------------------------

    async def scan(
        self, prefix: bytes = b"", *, keys_only: bool = False
    ) -> AsyncIterator[tuple[tuple[bytes, Stored], ...]]:
        """All records whose keys begin with `prefix`, portion by portion, each as of the moment it is read. Raises as
        `get` does."""
        left = [EVERYTHING]
        while left:
            piece = left.pop(0)
            asked: list[Arc] = []
            answers: Answers[Arc, Scanned] = []
            await self._run(self._scans, [(piece.start.plus(1).packed, piece)], answers, (asked, prefix, keys_only))
            ((_, scanned),) = answers
            left = [*([scanned.rest] if scanned.rest is not None else []), *piece.minus(asked[-1]), *left]
            if scanned.records:
                yield scanned.records

    async def count(self, arc: Arc = EVERYTHING) -> int:
        """How many keys an arc holds. Raises as `get` does."""
        counted = 0
        left = [arc]
        while left:
            piece = left.pop(0)
            asked: list[Arc] = []
            answers: Answers[Arc, int] = []
            await self._run(self._counts, [(piece.start.plus(1).packed, piece)], answers, asked)
            ((_, keys),) = answers
            left = [*piece.minus(asked[-1]), *left]
            counted += keys
        return counted

    def _scan(self, named: Sequence[Named[Arc]], how: tuple[list[Arc], bytes, bool]) -> Scan:
        asked, prefix, keys_only = how
        return Scan(self._part(named, asked), prefix, keys_only)

    def _part(self, named: Sequence[Named[Arc]], asked: list[Arc]) -> Arc:
        """The first part of a piece of the ring that one chain holds."""
        ring = self._charts.ring
        assert ring is not None
        ((first, piece),) = named
        asked.append(piece.intersect(ring.holding(first).arc)[0])
        return asked[-1]

    # -- going there -------------------------------------------------------------------------------------------------

    async def _read(self, named: Sequence[Named[bytes]], found: dict[Name, Stored | None]) -> None:
        """Read records into `found`: those that are there by the end, if this raises."""
        answers: Answers[bytes, tuple[bytes | None, ...]] = []
        try:
            await self._run(self._reads, named, answers)
        finally:
            for asked, bodies in answers:
                found.update(zip([name for name, _ in asked], unpack_each(Stored, bodies), strict=False))

    async def _write_each(self, named: Sequence[Named[Edit]], found: dict[Name, Written]) -> None:
        """As `_write`; what became of each edit goes into `found`, of those that are done if this raises."""
        answers: Answers[Edit, Written] = []
        try:
            await self._write(named, answers)
        finally:
            for asked, written in answers:
                found.update(dict.fromkeys([name for name, _ in asked], written))

    async def _write(self, named: Sequence[Named[Edit]], answers: Answers[Edit, Written]) -> None:
        """Do one operation. `answers`: those that have come, if this raises."""
        try:
            slot, last = self._free.pop()  # one step, as other threads do it too
        except IndexError:
            slot, last = next(self._slots), 0
        operation = Operation(self._client, slot, last + 1)
        try:
            await self._run(self._writes, named, answers, operation)
        finally:
            self._free.append((slot, operation.number))

    async def _run(
        self,
        errand: Errand[T, Q, A],
        named: Sequence[Named[T]],
        answers: Answers[T, A],
        more: Any = None,
        unknown: OutcomeUnknown | None = None,
        deadline: float | None = None,
    ) -> None:
        """Ask until all is answered, or the deadline is over: raises what it was that lacked."""
        if deadline is None:
            deadline = self._now() + self._settings.operation
        attempt = 0
        while named:
            if attempt and len({self._arc_of(each) for each in named}) > 1:
                groups = portions(named, lambda _: 0, self._arc_of)
                await all_of(self._run(errand, group, answers, more, unknown, deadline) for group in groups)
                return
            try:
                answer = await self._ask(errand, named, more, deadline - self._now())
                answers.append((named, answer))
                named = errand.rest(named, answer)
                continue
            except TRY_AGAIN as error:
                failure: RingError = error.with_traceback(None)  # what is kept must not keep the frames it came through
            except OutcomeUnknown as error:
                failure = error.with_traceback(None)
                unknown = unknown or failure  # the first attempt had the time to find out why
            except StoreFull:
                if unknown is not None:
                    raise unknown from None
                raise
            await asyncio.sleep(0)  # what was begun on a thread goes on on the loop
            blind = await self._read_map(deadline - self._now())
            attempt += 1
            pause = self._settings.backoff * min(2**attempt, 4) * self._random.uniform(0.5, 1)
            if self._now() + pause >= deadline:
                raise self._given_up(attempt, failure, unknown if errand.writes else None, blind)
            await asyncio.sleep(pause)

    async def _ask(self, errand: Errand[T, Q, A], named: Sequence[Named[T]], more: Any, left: float) -> A:
        ring = self._charts.ring
        if ring is None:
            raise NotServing("the ring map is not known yet: try again")
        life = errand.whom(ring.holding(named[0][0]))
        question = errand.question(named, more)
        if life == self._life and errand.here is not None:
            silence = "this node does not get it done in time"
            async with Patience(max(left, 0.001), (OutcomeUnknown if errand.writes else NotServing)(silence)):
                return await errand.here(question)
        resident = ring.resident(life)
        if resident is None:
            raise NotServing("the ring map is changing: try again")
        quick = errand is self._reads and len(named) <= QUICK
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


def _read(named: Sequence[Named[bytes]], _: None) -> Read:
    return Read(tuple([key for _, key in named]))


def _unread(asked: Sequence[Named[bytes]], got: Sequence[bytes | None]) -> Sequence[Named[bytes]]:
    """What did not fit into the answer."""
    if not got:
        raise BadValue("an empty answer came: the nodes of this ring run different versions?")
    return asked[len(got) :]


def _write(named: Sequence[Named[Edit]], operation: Operation) -> Write:
    return Write(operation, tuple([edit for _, edit in named]))


def _nothing(named: object, answer: object) -> tuple[()]:
    return ()


def _length(named: Named[bytes]) -> int:
    return len(named[1])


def _size(named: Named[Edit]) -> int:
    edit = named[1]
    return len(edit.key) + len(edit.value or b"")
