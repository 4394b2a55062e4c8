"""Copies of an arc for a newcomer to its chain, while it is read and written.

    begin   the source watches which keys are written from now on
    sum     fingerprints of bounded chunks: what the newcomer has already is passed over
    pull    the other chunks, each from a snapshot of its moment; a cursor makes a chunk repeatable
    delta   what was written behind the cursor meanwhile, and what is remembered of operations, until little is left
    finish  the source is sealed; the last changes, and how far its history goes: now the copy is its equal

The newcomer stands for nothing from the moment there is a source until it is finished. What it has of the arc, from an
earlier replica or a copy that broke off, is no more than records that may be right.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from node.batches import fitting
from node.chain.messages import (
    BEGIN,
    DELTA,
    NEVER,
    PULL,
    SUM,
    BeginMirror,
    Change,
    Changes,
    Delta,
    Logged,
    Pull,
    Pulled,
    Summed,
)
from node.chain.replica import Replica, Watch
from node.chain.replicas import Replicas
from node.chain.ring_map import Life
from node.codec import Address, pack
from node.data import Version
from node.errors import Moved, OutcomeUnknown, Unreachable
from node.identifiers import Arc, Name, position_of
from node.settings import Settings
from node.store.interface import Batch, Record, Snapshot
from node.transport import A, Method, Q, Transport

DELTA_RECORDS = 500
"""Changed records sent at a time; when no more are left than this, it is time to seal if they are not large."""
DELTA_OPERATIONS = 5_000
"""Operations sent at a time."""
ATTEMPTS = 5
"""How often one step is tried before the copy begins anew."""


@dataclass(slots=True, eq=False)
class Mirror:
    """A copy in the making as its source sees it."""

    replica: Replica
    watch: Watch
    used: float
    number: int = -1
    changes: Changes | None = None
    logged: int = -1
    """Up to which number the log was sent."""
    step: asyncio.Lock = field(default_factory=asyncio.Lock)


class Source:
    """The side that has the arc."""

    def __init__(self, replicas: Replicas, settings: Settings, random: Random) -> None:
        self._replicas = replicas
        self._settings = settings
        self._random = random
        self._mirrors: dict[bytes, Mirror] = {}

    async def begin(self, request: BeginMirror) -> bytes:
        """Begin a copy; its name. Raises Moved if exactly this arc is not held here by a member of its chain."""
        replica = self._replicas.of(request.arc)
        if replica is None or self._replicas.life not in replica.state.chain:
            raise Moved(f"{request.arc} is not held here", None)
        mirror = Mirror(replica, Watch(), asyncio.get_running_loop().time())
        replica.watches.append(mirror.watch)
        name = self._random.randbytes(16)
        self._mirrors[name] = mirror
        return name

    async def pull(self, request: Pull) -> Pulled:
        """The next chunk of the arc."""
        records, after = await self._chunk(request)
        return Pulled(tuple(Change(record.name, record.body) for record in records), after)

    async def sum(self, request: Pull) -> Summed:
        """A fingerprint of what `pull` would answer."""
        records, after = await self._chunk(request)
        return Summed(Fingerprint(records).digest, after)

    async def _chunk(self, request: Pull) -> tuple[list[Record], Name | None]:
        mirror = self._mirror(request.mirror)
        snapshot = await self._replicas.store.snapshot()
        try:
            return await snapshot.scan(mirror.replica.arc, request.after, self._settings.chunk)
        finally:
            await snapshot.close()

    async def delta(self, request: Delta) -> Changes:
        """The next changed records, then what is remembered of operations; once sealed, with the last of that how far
        they go. Repeatable by number."""
        mirror = self._mirror(request.mirror)
        replica = mirror.replica
        async with mirror.step:
            if request.number == mirror.number and mirror.changes is not None:
                return mirror.changes
            if request.number < mirror.number:  # what it took would be lacking in the answers to come
                raise Moved("this part of the copy was answered before", None)
            if request.sealed and replica.state.sealed < request.sealed:
                raise Moved(f"{replica.arc} is not sealed in epoch {request.sealed}", None)
            records = await self._next(mirror)
            left = len(mirror.watch.written)
            log: tuple[Logged, ...] = ()
            if not left:
                log, left = self._next_of_log(mirror)
            position = replica.position if request.sealed and not left else NEVER
            mirror.number, mirror.changes = request.number, Changes(records, left, position, log)
            return mirror.changes

    def _next_of_log(self, mirror: Mirror) -> tuple[tuple[Logged, ...], int]:
        """The next operations remembered, about one chunk of them, and how many are left."""
        replica = mirror.replica
        numbers = [number for number in replica.log.entries if number > mirror.logged]
        some = [_for_copy(replica.log.entries[number], replica.stable) for number in numbers[:DELTA_OPERATIONS]]
        if not some:
            return (), 0
        count = fitting(map(pack, some), self._settings.chunk)
        mirror.logged = numbers[count - 1]
        return tuple(some[:count]), len(numbers) - count

    async def _next(self, mirror: Mirror) -> tuple[Change, ...]:
        """Take the next changed records out of the watch, about one chunk of them."""
        names = list(mirror.watch.written)[:DELTA_RECORDS]
        for name in names:
            del mirror.watch.written[name]  # what is written from now on is sent again
        try:
            bodies = await self._replicas.store.get_many(names)
        except BaseException:
            mirror.watch.written |= dict.fromkeys(names)
            raise
        records: list[Change] = []
        size = 0
        for name, body in zip(names, bodies, strict=True):
            if size < self._settings.chunk:
                records.append(Change(name, body))
                size += len(name) + len(body or b"")
            else:
                mirror.watch.written[name] = None
        return tuple(records)

    def _mirror(self, name: bytes) -> Mirror:
        mirror = self._mirrors.get(name)
        if mirror is None or mirror.replica.gone:
            raise Moved("this copy is void: begin again", None)
        mirror.used = asyncio.get_running_loop().time()
        return mirror

    def expire(self) -> None:
        """Forget copies whose newcomer has gone quiet."""
        now = asyncio.get_running_loop().time()
        for name, mirror in list(self._mirrors.items()):
            if mirror.replica.gone or now - mirror.used > 4 * self._settings.operation:
                if mirror.watch in mirror.replica.watches:
                    mirror.replica.watches.remove(mirror.watch)
                del self._mirrors[name]


class Fingerprint:
    """Of records in their order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        """More of them."""
        for record in records:
            self._hash.update(pack((record.name, record.body)))

    @property
    def digest(self) -> bytes:
        """As it is by now."""
        return self._hash.digest()


def _for_copy(logged: Logged, stable: Version) -> Logged:
    """What a newcomer needs of a log: of what is stable only the operations."""
    return replace(logged, names=logged.names if logged.version > stable else ())


class Destination:
    """A copy in the making as the newcomer sees it."""

    def __init__(
        self, replicas: Replicas, transport: Transport, settings: Settings, arc: Arc, life: Life, source: Address
    ) -> None:
        self._replicas = replicas
        self._transport = transport
        self._settings = settings
        self.arc = arc
        self.source_life = life
        self._source = source
        self._name = b""
        self._number = 0
        self._log: list[Logged] = []

    async def copy(self) -> None:
        """Copy until little is left to copy. Raises Moved, and RingErrors of the network: begin again."""
        self._name = await self._ask(BEGIN, BeginMirror(self.arc))
        await self._replicas.release(self.arc)  # not before: where nobody has the arc, this may be what is left of it
        mine = await self._replicas.store.snapshot()
        try:
            some, _ = await mine.scan(self.arc, None, 1)
            await (self._put_right(mine) if some else self._pull_all())
        finally:
            await mine.close()
        while await self._lags():
            continue

    async def _lags(self) -> bool:
        """Copy some of what was written meanwhile; whether the rest, at this pace, would hold up writes too long."""
        began = asyncio.get_running_loop().time()
        changes = await self._delta(0)
        took = asyncio.get_running_loop().time() - began
        copied = len(changes.records) + len(changes.log)
        return changes.left > DELTA_RECORDS or changes.left * took > copied * self._settings.freeze / 2

    async def _pull_all(self) -> None:
        """Chunk after chunk, each asked for while the one before is stored."""
        coming: asyncio.Future[Pulled] | None = asyncio.ensure_future(self._ask(PULL, Pull(self._name, None)))
        try:
            while coming is not None:
                pulled = await coming
                following = Pull(self._name, pulled.after)
                coming = asyncio.ensure_future(self._ask(PULL, following)) if pulled.after is not None else None
                await self._put(pulled.records)
        finally:
            if coming is not None:
                coming.cancel()

    async def _put_right(self, mine: Snapshot) -> None:
        """Chunk after chunk, pulled where what is here is something else. Equal records make equal chunks."""
        after: Name | None = None
        while True:
            theirs, (records, until) = await asyncio.gather(
                self._ask(SUM, Pull(self._name, after)), mine.scan(self.arc, after, self._settings.chunk)
            )
            if theirs != Summed(Fingerprint(records).digest, until):
                pulled = await self._ask(PULL, Pull(self._name, after))
                await self._remove(mine, after, pulled)
                await self._put(pulled.records)
                after = pulled.after
            else:
                after = theirs.after
            if after is None:
                return

    async def _remove(self, mine: Snapshot, after: Name | None, pulled: Pulled) -> None:
        """Remove what is here, and not there, of what was pulled."""
        there = {record.name for record in pulled.records}
        last = None if pulled.after is None else self._place(pulled.after)
        going_on = True
        while going_on:
            records, after = await mine.scan(self.arc, after, self._settings.chunk)
            here = [record.name for record in records if last is None or self._place(record.name) <= last]
            await self._put(Change(name, None) for name in here if name not in there)
            going_on = after is not None and len(here) == len(records)

    def _place(self, name: Name) -> tuple[int, Name]:
        """Where it stands in the arc, clockwise from its start."""
        return Arc(self.arc.start, position_of(name)).width, name

    async def finish(self, epoch: int) -> Version:
        """The source is sealed in `epoch`: copy the rest, and be a sealed replica. How far its history goes."""
        while (changes := await self._delta(epoch)).left:
            continue
        await self._replicas.prepare(self.arc, epoch, changes.position, tuple(self._log))
        return changes.position

    async def _delta(self, sealed: int) -> Changes:
        self._number += 1
        changes = await self._ask(DELTA, Delta(self._name, self._number, sealed))
        await self._put(changes.records)
        self._log += changes.log
        return changes

    async def _ask(self, method: Method[Q, A], question: Q) -> A:
        """One step, repeated if its answer is lost: every step gives the same answer again."""
        for attempt in range(ATTEMPTS):
            try:
                return await method.ask(self._transport, self._source, question, deadline=self._settings.call)
            except (OutcomeUnknown, Unreachable):
                if attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(self._settings.backoff * 2**attempt)
        raise AssertionError("not reached")

    async def _put(self, records: Iterable[Change]) -> None:
        batch = Batch()
        for record in records:
            if record.body is None:
                batch.delete(record.name)
            else:
                batch.put(record.name, record.body)
        await self._replicas.store.commit(batch, to_disk=False)  # what makes it a replica takes all of it to the disk
