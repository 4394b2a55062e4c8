"""What a node answers of the chains it is in: writes at the head, reads at the tail, and what links bring.

    write   the head orders it; it is acknowledged when the tail, and so every member, has it on its disk
    read    the tail reads the value, *then* checks that its lease holds and that it is not sealed, then answers

A member takes commands of its own epoch, from the member before it, in order; nothing after it was sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from itertools import pairwise

from node.batches import MOST, VOLUME, fitting
from node.chain import ordering
from node.chain.history import OVERHEAD
from node.chain.lease import Lease
from node.chain.links import Links
from node.chain.messages import (
    Append,
    Change,
    Command,
    Digest,
    Link,
    Linked,
    Logged,
    Operation,
    Outcome,
    Read,
    Seal,
    Sealed,
    Still,
    Watched,
    Watching,
    Write,
    Written,
)
from node.chain.mirror import Fingerprint
from node.chain.ordering import named
from node.chain.patience import Patience
from node.chain.replica import Replica
from node.chain.replicas import Replicas
from node.codec import unpack
from node.data import Scan, Scanned, Stored, Traffic, Version, is_lasting
from node.errors import BadValue, Moved, NotServing, OutcomeUnknown, StoreFull
from node.identifiers import Arc, Identifier, Name, key_in, position_of
from node.settings import MIB, Settings
from node.store.interface import Record
from node.values import check_sizes

ANSWER = 4 * MIB
"""Bytes of values in one answer, about."""


class Chains:
    """The chains of one node."""

    def __init__(
        self,
        replicas: Replicas,
        links: Links,
        settings: Settings,
        lease: Lease,
        wall: Callable[[], float],
    ) -> None:
        self.replicas = replicas
        self._links = links
        self._settings = settings
        self._lease = lease
        self._wall = wall
        self.traffic = Traffic()

    # -- reads -------------------------------------------------------------------------------------------------------

    async def read(self, question: Read) -> tuple[bytes | None, ...]:
        """The packed records of keys of one arc, as many as fit into an answer. Raises Moved, NotServing."""
        answer = self.read_at_once(question)
        if answer is not None:
            return answer
        names = named(question.keys)
        await self._lease.obtain()
        replica = self._holding(names)
        self._check_answers(replica, replica.is_tail, len(names))
        bodies = await replica.store.get_many(names)
        if not replica.is_durable(names):  # what was read may be on its way to the disk
            async with self._patience(NotServing(f"{replica.arc} is slow to write: try again")):
                await replica.reached(lambda: replica.is_durable(names))
        return self._read(replica, bodies)

    def read_at_once(self, question: Read) -> tuple[bytes | None, ...] | None:
        """What `read` answers where nothing has to be waited for, else None. Raises as it does."""
        if not self._lease.use():
            return None
        names = named(question.keys)
        replica = self._holding(names)
        bodies = replica.store.peek_many(names)
        return self._read(replica, bodies) if bodies is not None and replica.is_durable(names) else None

    def _read(self, replica: Replica, bodies: list[bytes | None]) -> tuple[bytes | None, ...]:
        """What was just read and is durable, as an answer. Raises NotServing."""
        self._check_answers(replica, replica.is_tail, len(bodies))
        answered = bodies[: fitting(bodies, ANSWER)] if len(bodies) > 1 else bodies
        self.traffic.straight += len(answered)
        return tuple([body if body is None or is_lasting(body) or self._stored(body) else None for body in answered])

    async def scan(self, question: Scan) -> Scanned:
        """The first records of an arc, as of one moment: as many as fill an answer, or are found in the time for one.
        Raises Moved, NotServing."""
        await self._lease.obtain()
        replica = self._holding_all(question.arc)
        self._check_answers(replica, replica.is_tail)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.probe / 4
        found: list[tuple[bytes, Stored]] = []
        size = 0
        after: Name | None = None
        snapshot = await replica.store.snapshot()
        try:
            async with self._patience(NotServing(f"{replica.arc} is slow to write: try again")):
                await replica.settled()  # what is in it may be on its way to the disk
            while True:
                records, after = await snapshot.scan(question.arc, after, self._settings.chunk)
                page = self._wanted(question, records)
                found += page
                size += sum(len(key) + len(stored.value) for key, stored in page)
                if after is None or size >= self._settings.chunk or loop.time() > until:
                    break
        finally:
            await snapshot.close()
        self._check_answers(replica, replica.is_tail)
        end = question.arc.end
        reached = end if after is None else position_of(after)
        return Scanned(tuple(found), Arc(reached, end) if reached != end else None)

    def _wanted(self, question: Scan, records: Iterable[Record]) -> list[tuple[bytes, Stored]]:
        """Those of the records that a scan is about."""
        page: list[tuple[bytes, Stored]] = []
        for record in records:
            key = key_in(record.name)
            if key.startswith(question.prefix) and (stored := self._stored(record.body)) is not None:
                page.append((key, Stored(stored.version, b"") if question.keys_only else stored))
        return page

    def _stored(self, body: bytes | None) -> Stored | None:
        """The record with this body; None if there is none, or its time is over."""
        return self._living(unpack(Stored, body)) if body is not None else None

    def _living(self, stored: Stored | None) -> Stored | None:
        if stored is not None and stored.expires and stored.expires <= 1000 * self._wall():
            return None
        return stored

    def _holding(self, names: tuple[Name, ...]) -> Replica:
        replica = self.replicas.holding(names)
        if replica is None:
            raise self._astray(position_of(names[0]), len(names))
        return replica

    def _holding_all(self, arc: Arc) -> Replica:
        replica = self.replicas.at(arc.end)
        if replica is None or arc.minus(replica.arc):
            raise self._astray(arc.end)
        return replica

    def _astray(self, position: Identifier, operations: int = 1) -> Moved:
        self.traffic.astray += operations
        return Moved(f"this node does not hold {position.hex[:8]}..", None)

    def _check_answers(self, replica: Replica, is_right: bool, operations: int = 1) -> None:
        if not is_right:
            self.traffic.astray += operations * replica.follows  # else it may be the right one, in a moment
            raise NotServing(f"this node does not answer for {replica.arc} at the moment: try again")
        if not self._lease.holds():
            raise NotServing("this node waits for its lease: try again")

    # -- writes ------------------------------------------------------------------------------------------------------

    async def write(self, question: Write) -> Written:
        """Order edits of keys of one arc and bring them down the chain.

        Raises Moved, NotServing, Overloaded, StoreFull; OutcomeUnknown if it was ordered and the rest
        of the chain did not confirm it in time.
        """
        size = check_sizes([(edit.key, edit.value) for edit in question.edits], self._settings)
        size += OVERHEAD * len(question.edits)
        if size > (most := max(VOLUME, self._settings.max_key + self._settings.max_value) + OVERHEAD * MOST):
            raise BadValue(f"edits of {size} bytes in one question: send at most {most}")
        names = named([edit.key for edit in question.edits])
        edits = tuple(zip(names, question.edits, strict=True))
        await self._lease.obtain()
        replica = self._holding(names)
        await replica.gate.enter(size, self._settings.call / 4)
        try:
            existing = await self._existing(replica, edits)
            ordered = self._order(replica, question.operation, edits, existing)
        finally:
            replica.gate.leave(size)
        if isinstance(ordered, Logged):
            return await self._answer_again(replica, ordered, question)
        command, stored = ordered
        await stored
        return await self._stable(replica, command.version, command.outcome)

    async def _existing(self, replica: Replica, edits: ordering.Edits) -> dict[Name, Stored | None]:
        """The records that decide what edits come to, once writes need not wait."""
        asked = tuple([name for name, edit in edits if edit.conditional or edit.value is None])
        while True:
            await replica.stirs()
            existing = await replica.current(asked) if asked else {}
            if not replica.is_still:
                return existing

    def _order(
        self, replica: Replica, operation: Operation, edits: ordering.Edits, existing: dict[Name, Stored | None]
    ) -> Logged | tuple[Command, asyncio.Future[None]]:
        """Order what was not ordered yet of an operation: the command, and when it is stored. Where nothing is left of
        it, what is remembered of it."""
        self._check_answers(replica, replica.is_head, len(edits))
        known = replica.log.remembers(operation)
        if known is not None and known.operation is not None and known.operation.number >= operation.number:
            edits = ordering.left(known, edits) if known.operation == operation else ()
            if not edits:
                return known
        else:
            known = None
        replica.check_disk()
        if replica.lasting and any(edit.expires for _, edit in edits):
            replica.lasting = 0
        if existing and not any(edit.conditional and edit.value is None for _, edit in edits):  # so the expired go
            existing = {name: self._living(stored) for name, stored in existing.items()}
        command = ordering.ordered(replica.next_version(), operation, edits, existing, known, self._settings)
        self.traffic.straight += len(edits)
        return command, replica.take((command,))

    async def _answer_again(self, replica: Replica, known: Logged, question: Write) -> Written:
        """An operation that is tried again gets the answer it had, once it is stable."""
        assert known.operation is not None
        if known.operation.number > question.operation.number:
            raise OutcomeUnknown("a later operation of this client took its place: what became of it is not known")
        written = await self._stable(replica, known.version, known.outcome)
        last = replica.log.remembers(question.operation)
        if last is None or last.version != known.version:
            raise OutcomeUnknown("the disk was full at the first attempt, or a later operation took its place")
        return written

    async def _stable(self, replica: Replica, version: Version, outcome: Outcome) -> Written:
        if replica.stable >= version:
            return Written(version, outcome)
        try:
            async with self._patience(NotServing("it took too long")):
                while replica.stable < version:
                    await replica.confirmed(version)
                    await replica.reached(lambda: replica.follows)
        except (NotServing, StoreFull) as error:
            why = replica.trouble or error
            raise OutcomeUnknown(f"the rest of the chain did not confirm the write: {why}") from None
        return Written(version, outcome)

    def _patience(self, otherwise: Exception) -> Patience:
        return Patience(self._settings.call, otherwise)

    # -- watching ----------------------------------------------------------------------------------------------------

    async def watch(self, question: Watching) -> Watched:
        """What was committed in some places of one arc since; waits for something to tell. Any member knows that, from
        where one is now only the tail. Raises Moved, NotServing, BadValue."""
        if not question.places or not question.patience >= 0:
            raise BadValue("a watch is of one place at least, with some seconds of patience")
        replica = self._holding_all(question.places[0][0])
        places = [(arc, after) for arc, after in question.places if after is not None]
        if any(arc.minus(replica.arc) for arc, _ in question.places):
            raise self._astray(replica.arc.end)
        if not (replica.is_tail if len(places) < len(question.places) else replica.follows):
            raise NotServing(f"this node does not tell of {replica.arc} at the moment: try again")
        if not places:
            return Watched((), replica.stable)
        deadline = asyncio.get_running_loop().time() + min(question.patience, self._settings.watch)
        while True:
            upto = replica.stable
            if not all(replica.recent.knows(arc, after) for arc, after in places):
                return Watched((), upto, True)
            found = [event for arc, after in places for event in replica.recent.after(arc, after, upto)]
            events = sorted((e for e in found if _is_watched(question, key_in(e[1].name))), key=lambda event: event[0])
            if events or asyncio.get_running_loop().time() >= deadline:
                return _bounded(events, upto)
            places = [(arc, max(after, upto)) for arc, after in places]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await replica.reached(lambda upto=upto: replica.stable > upto)  # type: ignore[misc]

    # -- links -------------------------------------------------------------------------------------------------------

    async def link(self, question: Link) -> Linked:
        """The one before this node in a chain begins. Raises NotServing if this node follows in another epoch."""
        adopted = await self.replicas.adopt(question.entry)
        if adopted is not None:
            self._links.follow(adopted)
        replica = self._following(question.entry.arc, question.entry.epoch, question.sender)
        return Linked(replica.position, replica.stable)

    async def append(self, question: Append) -> None:
        """Take commands, and return when the rest of the chain has them too. Raises NotServing, StoreFull."""
        replica = self._following(question.arc, question.epoch, question.sender)
        if replica.ordered < question.after:
            async with self._patience(NotServing(f"{replica.arc}: what comes before these commands did not come")):
                await replica.reached(lambda: replica.ordered >= question.after)
            self._following(question.arc, question.epoch, question.sender)
        new = tuple(command for command in question.commands if command.version > replica.ordered)
        if any(later.version <= earlier.version for earlier, later in pairwise(new)):
            raise BadValue("the commands are not in the order of their versions")
        if new:
            await replica.take(new)
        if replica.stable < question.last:
            async with self._patience(NotServing(f"{replica.arc}: the rest of the chain is slow")):
                await replica.confirmed(question.last)
        if replica.stable < question.last:
            raise NotServing(f"{replica.arc} was sealed meanwhile")

    def _following(self, arc: Arc, epoch: int, sender: bytes) -> Replica:
        replica = self.replicas.of(arc)
        if replica is None or not replica.follows or replica.state.epoch != epoch:
            raise NotServing(f"this node does not follow in epoch {epoch} of {arc}")
        if replica.entry.before(replica.life) != sender:
            raise NotServing(f"the sender does not come before this node in epoch {epoch} of {arc}")
        return replica

    async def still(self, question: Still) -> None:
        """Let what is under way arrive, and order nothing more for a moment. Raises NotServing."""
        replica = self.replicas.of(question.arc)
        if replica is None or not replica.is_head or replica.state.epoch != question.epoch:
            raise NotServing(f"this node does not order the writes of {question.arc} in epoch {question.epoch}")
        replica.hold_still(self._settings.freeze)
        async with self._patience(NotServing(f"{question.arc}: what is under way does not arrive")):
            await replica.reached(lambda: replica.stable >= replica.ordered or not replica.follows)

    async def seal(self, question: Seal) -> Sealed:
        """See `Replicas.seal`; only the life that the chain registered may answer."""
        if question.life != self.replicas.life:
            raise Moved("this node lost the disk that belongs to the chain", None)
        return await self.replicas.seal(question.arc, question.epoch, question.spell)

    # -- counting ----------------------------------------------------------------------------------------------------

    async def count(self, arc: Arc) -> int:
        """How many keys there are in an arc that one chain holds. Raises Moved, NotServing."""
        await self._lease.obtain()
        replica = self._holding_all(arc)
        self._check_answers(replica, replica.is_tail)
        async with self._patience(NotServing(f"{replica.arc} is slow to write: try again")):
            await replica.settled()
        counted = await replica.store.count(arc)
        self._check_answers(replica, replica.is_tail)
        return counted

    async def digest(self, arc: Arc) -> Digest:
        """A fingerprint of all records of an arc, which must be held here as one. Raises Moved, NotServing."""
        replica = self.replicas.of(arc)
        if replica is None or self.replicas.life not in replica.state.chain:
            raise Moved(f"{arc} is not held here", None)
        await replica.at_rest()
        position = replica.position
        snapshot = await self.replicas.store.snapshot()
        fingerprint, records = Fingerprint(), 0
        try:
            if replica.ordered != position:  # some of that may be in it
                raise NotServing(f"{arc} is being written: try again")
            after: Name | None = None
            while True:
                chunk, after = await snapshot.scan(arc, after, self._settings.chunk)
                fingerprint.add(chunk)
                records += len(chunk)
                if after is None:
                    return Digest(fingerprint.digest, records, position)
        finally:
            await snapshot.close()


def _is_watched(question: Watching, key: bytes) -> bool:
    return key == question.key if question.exact else key.startswith(question.key)


def _bounded(events: list[tuple[Version, Change]], upto: Version) -> Watched:
    """As many as one answer takes; what was written together stays together."""
    size = 0
    for n, (version, change) in enumerate(events):
        if size > ANSWER and version != events[n - 1][0]:
            return Watched(tuple(events[:n]), events[n - 1][0])
        size += len(change.body or b"")
    return Watched(tuple(events), upto)
