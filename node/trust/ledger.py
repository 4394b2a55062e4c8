"""What a ring remembers of trust, in records of its own among the keys: who was let in, and who no longer is.

Everything in them only grows, so two versions can always be joined. Each node joins what it reads of the standing with
what it knew, and writes back what is missing: nothing of it is lost when two sides of an eventual ring meet again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from node.codec import Message, pack, unpack
from node.data import Stored
from node.errors import BadUsage, BadValue, VersionConflict
from node.settings import Settings
from node.values import SYSTEM, pack_value, unpack_value

STANDING, ENROLLED = SYSTEM + b"standing", SYSTEM + b"enrolled/"
FOUNDER = "founder"
"""In place of a token, for who was let in by nobody."""


class Records(Protocol):
    """The records of a ring, as far as they are needed here."""

    async def read(self, key: bytes) -> tuple[Stored, ...]:
        """What stands under a key: nothing, one thing, or several that were written side by side."""
        ...

    async def write(self, key: bytes, value: bytes, over: tuple[Stored, ...]) -> None:
        """Write in place of what was read. Raises VersionConflict if something else stands there by now."""
        ...


class Standing(Message, frozen=True):
    """Read by every node every moment, so it is small."""

    generation: int = 0
    """Of tokens: those of an earlier one are void."""
    revoked: tuple[str, ...] = ()
    """Ids of certificates."""
    tokens: tuple[str, ...] = ()
    """Ids of those that let somebody in."""

    def joined(self, other: Standing) -> Standing:
        """With all that either knows."""
        revoked, tokens = {*self.revoked, *other.revoked}, {*self.tokens, *other.tokens}
        return Standing(max(self.generation, other.generation), tuple(sorted(revoked)), tuple(sorted(tokens)))


class Entry(Message, frozen=True):
    """Somebody who was let in. With the same key they may ask again, if the answer was lost."""

    id: str
    kind: str
    name: str
    token: str
    key: bytes

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.id})"

    def is_called(self, name: str) -> bool:
        """By its id, by its name, or by its name without the port."""
        return name in (self.id, self.name, self.name.rpartition(":")[0].strip("[]"))


class Enrolled(Message, frozen=True):
    """Everybody who was let in with one token."""

    entries: tuple[Entry, ...] = ()

    def joined(self, other: Enrolled) -> Enrolled:
        return Enrolled(tuple(dict.fromkeys((*self.entries, *other.entries))))


R = TypeVar("R", Standing, Enrolled)


class Ledger:
    """The records, read and changed from one node. All methods raise what operations on keys raise."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records = records
        self._settings = settings

    async def standing(self, known: Standing) -> Standing:
        """What counts now, together with what is known here; the ring is told what it lacks of that."""
        found, _ = await self._read(STANDING, Standing())
        if found.joined(known) == found:
            return found
        return await self._change(STANDING, Standing(), known.joined)

    async def rotate(self) -> Standing:
        """Make all tokens void that there are."""
        return await self._change(STANDING, Standing(), lambda s: Standing(s.generation + 1, s.revoked, s.tokens))

    async def enrol(self, entry: Entry, uses: int) -> Entry:
        """Let somebody in with a token that is good for so many; the entry that counts. Raises BadUsage if it is used
        up."""

        def let_in(enrolled: Enrolled) -> Enrolled:
            if any(each.key == entry.key for each in enrolled.entries):
                return enrolled
            if len(enrolled.entries) >= uses:
                raise BadUsage(f"this token is used up ({uses} of {uses}): make a new one with `ring token`")
            return Enrolled((*enrolled.entries, entry))

        after = await self._change(_key(entry.token), Enrolled(), let_in)
        return next(each for each in after.entries if each.key == entry.key)

    async def entries(self, tokens: tuple[str, ...]) -> tuple[Entry, ...]:
        """Everybody who was let in with these tokens."""
        found = [await self._read(_key(token), Enrolled()) for token in tokens]
        return tuple(entry for enrolled, _ in found for entry in enrolled.entries)

    async def _read(self, key: bytes, nothing: R) -> tuple[R, tuple[Stored, ...]]:
        """What stands there, joined, and what it was made of."""
        stored = await self._records.read(key)
        state = nothing
        for each in stored:
            state = state.joined(_unpacked(type(nothing), each.value))
        return state, stored

    async def _change(self, key: bytes, nothing: R, change: Callable[[R], R]) -> R:
        """Read, change, write, until nobody else was quicker; what stands there then."""
        while True:
            before, stored = await self._read(key, nothing)
            after = change(before)
            if after == before and len(stored) == 1:
                return after
            try:
                await self._records.write(key, pack_value(pack(after), self._settings), stored)
            except VersionConflict:
                continue
            return after


def _key(token: str) -> bytes:
    return ENROLLED + token.encode()


def _unpacked(kind: type[R], value: bytes) -> R:
    content = unpack_value(value)
    if type(content) is not bytes:
        raise BadValue(f"the ring's own record of trust holds a {type(content).__name__}")
    return unpack(kind, content)
