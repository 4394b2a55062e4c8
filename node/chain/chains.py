"""What a node answers of the chains it is in: writes at the head, reads at the tail, and what links bring.

    write   the head orders it; it is acknowledged when the tail, and so every member, has it on its disk
    read    the tail reads the value, *then* checks that its lease holds and that it is not sealed, then answers

A member takes commands of its own epoch, from the member before it, in order; nothing after it was sealed.
"""

from __future__ import annotations

import asyncio
import hashlib

from node.chain.lease import Lease
from node.chain.links import Links
from node.chain.messages import (
    Append,
    Change,
    Command,
    Digest,
    Edit,
    Link,
    Linked,
    Logged,
    Name,
    Outcome,
    Read,
    Seal,
    Sealed,
    Still,
    Write,
    Written,
)
from node.chain.replica import Replica
from node.chain.replicas import Replicas
from node.codec import pack, unpack
from node.data import Stored, Version
from node.errors import Moved, NotServing, OutcomeUnknown, StoreFull
from node.identifiers import Arc, Identifier
from node.settings import Settings
from node.store.interface import Cursor


class Chains:
    """The chains of one node."""

    def __init__(
        self,
        replicas: Replicas,
        links: Links,
        settings: Settings,
        lease: Lease,
    ) -> None:
        self.replicas = replicas
        self._links = links
        self._settings = settings
        self._lease = lease

    # -- reads -------------------------------------------------------------------------------------------------------

    async def read(self, question: Read) -> tuple[Stored | None, ...]:
        """The records of keys of one arc. Raises Moved, NotServing."""
        names = tuple((Identifier.of_key(key), key) for key in question.keys)
        await self._lease.obtain()
        replica = self._holding(names)
        self._check_answers(replica, replica.is_tail)
        bodies = await replica.store.get_many(list(names))
        async with self._patience(NotServing(f"{replica.arc} is slow to write: try again")):
            await replica.reached(lambda: replica.is_durable(names))  # what was read may be on its way to the disk
        self._check_answers(replica, replica.is_tail)
        return tuple(unpack(Stored, body) if body is not None else None for body in bodies)

    def _holding(self, names: tuple[Name, ...]) -> Replica:
        replica = self.replicas.at(names[0][0])
        if replica is None or not all(position in replica.arc for position, _ in names):
            raise Moved(f"this node does not hold {names[0][0].hex[:8]}..", None)
        return replica

    def _check_answers(self, replica: Replica, is_right: bool) -> None:
        if not is_right:
            raise NotServing(f"this node does not answer for {replica.arc} at the moment: try again")
        if not self._lease.holds():
            raise NotServing("this node waits for its lease: try again")

    # -- writes ------------------------------------------------------------------------------------------------------

    async def write(self, question: Write) -> Written:
        """Order edits of keys of one arc and bring them down the chain.

        Raises Moved, NotServing, Overloaded, StoreFull; OutcomeUnknown if it was ordered and the rest
        of the chain did not confirm it in time.
        """
        names = tuple((Identifier.of_key(edit.key), edit.key) for edit in question.edits)
        edits = tuple(zip(names, question.edits, strict=True))
        asked = tuple(name for name, edit in edits if edit.conditional or edit.value is None)
        await self._lease.obtain()
        replica = self._holding(names)
        while True:
            await replica.stirs()
            existing = await replica.current(asked) if asked else {}
            if not replica.is_still:
                break
        self._check_answers(replica, replica.is_head)
        known = replica.remembers(question.operation)
        if known is not None and known.operation is not None and known.operation.number >= question.operation.number:
            return await self._answer_again(replica, known, question)
        replica.check_room()
        command = self._command(replica, question, edits, existing)
        await replica.take((command,))
        return await self._stable(replica, command.version, command.outcome)

    @staticmethod
    def _command(
        replica: Replica, question: Write, edits: tuple[tuple[Name, Edit], ...], existing: dict[Name, Stored | None]
    ) -> Command:
        """A write as it is ordered. One that comes to nothing is ordered too: if an attempt of it that was late came to
        something later on, its client would have been told wrong."""
        version = replica.next_version()
        conflict = _conflict(edits, existing)
        if conflict is not None:
            return Command(version, question.operation, (), Outcome(conflict=conflict))
        gone = tuple(name[0] for name, edit in edits if edit.value is None and existing[name] is not None)
        changes = tuple(
            Change(position, key, None if edit.value is None else pack(Stored(version, edit.value)))
            for (position, key), edit in edits
            if edit.value is not None or position in gone
        )
        return Command(version, question.operation, changes, Outcome(gone))

    async def _answer_again(self, replica: Replica, known: Logged, question: Write) -> Written:
        """An operation that is tried again gets the answer it had, once it is stable."""
        assert known.operation is not None
        if known.operation.number > question.operation.number:
            raise OutcomeUnknown("a later operation of this client took its place: what became of it is not known")
        written = await self._stable(replica, known.version, known.outcome)
        if replica.remembers(question.operation) is not known:
            raise OutcomeUnknown("the disk was full at the first attempt, or a later operation took its place")
        return written

    async def _stable(self, replica: Replica, version: Version, outcome: Outcome) -> Written:
        try:
            async with self._patience(NotServing("it took too long")):
                while replica.stable < version:
                    await replica.confirmed(version)
                    await replica.reached(lambda: replica.follows)
        except (NotServing, StoreFull) as error:
            why = replica.trouble or error
            raise OutcomeUnknown(f"the rest of the chain did not confirm the write: {why}") from None
        return Written(version, outcome)

    def _patience(self, otherwise: Exception) -> _Patience:
        return _Patience(self._settings.call, otherwise)

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
        late = NotServing(f"{replica.arc}: what comes before these commands did not come")
        async with self._patience(late):
            await replica.reached(lambda: replica.ordered >= question.after)
        self._following(question.arc, question.epoch, question.sender)
        new = tuple(command for command in question.commands if command.version > replica.ordered)
        if new:
            await replica.take(new)
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
        return await self.replicas.seal(question.arc, question.epoch)

    # -- counting ----------------------------------------------------------------------------------------------------

    async def count(self, arc: Arc) -> int:
        """How many keys are held here of an arc."""
        parts = [part for replica in self.replicas for part in arc.intersect(replica.arc)]
        return sum([await self.replicas.store.count(part) for part in parts])

    async def digest(self, arc: Arc) -> Digest:
        """A fingerprint of all records of an arc, which must be held here as one. Raises Moved."""
        replica = self.replicas.of(arc)
        if replica is None:
            raise Moved(f"{arc} is not held here", None)
        await replica.at_rest()
        position = replica.position
        snapshot = await self.replicas.store.snapshot()
        fingerprint, records = hashlib.blake2b(digest_size=16), 0
        try:
            after: Cursor | None = None
            while True:
                chunk, after = await snapshot.scan(arc, after, self._settings.chunk)
                for record in chunk:
                    fingerprint.update(pack((record.position, record.key, record.body)))
                records += len(chunk)
                if after is None:
                    return Digest(fingerprint.digest(), records, position)
        finally:
            await snapshot.close()


class _Patience:
    """`async with`: what takes longer than so many seconds fails with another error."""

    def __init__(self, seconds: float, otherwise: Exception) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._otherwise = otherwise

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: object) -> None:
        try:
            await self._timeout.__aexit__(*raised)  # type: ignore[arg-type]
        except TimeoutError:
            raise self._otherwise from None


def _conflict(
    edits: tuple[tuple[Name, Edit], ...], existing: dict[Name, Stored | None]
) -> tuple[bytes, Version | None] | None:
    """The first key that has not the version expected, and the one it has."""
    for name, edit in edits:
        if edit.conditional:
            stored = existing[name]
            version = stored.version if stored is not None else None
            if version != edit.expected:
                return edit.key, version
    return None
