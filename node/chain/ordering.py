"""What a write comes to when it is ordered: the command made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from node.chain.messages import MARK, Change, Command, Edit, Logged, Operation, Outcome, cover, marks
from node.codec import pack
from node.data import Stored, Version
from node.errors import BadValue, shown
from node.identifiers import Name, name_of, position_of
from node.settings import Settings
from node.values import pack_value, readable, unpack_value

Edits = tuple[tuple[Name, Edit], ...]
"""Each with the name of its key."""


def named(keys: Iterable[bytes]) -> tuple[Name, ...]:
    """The names of keys. Raises BadValue if there are none."""
    names = tuple([name_of(key) for key in keys])
    if not names:
        raise BadValue("a question about no key: name one at least")
    return names


def left(known: Logged, edits: Edits) -> Edits:
    """What of an operation that is tried again was not ordered yet: its arc may have been split meanwhile."""
    ordered = marks(known.covers)
    return tuple(each for each in edits if each[0][:MARK] not in ordered) if ordered else ()


def ordered(
    version: Version,
    operation: Operation,
    edits: Edits,
    existing: dict[Name, Stored | None],
    known: Logged | None,
    settings: Settings,
) -> Command:
    """A write as it is ordered; `known` if a part of it was ordered before. One that comes to nothing is ordered
    too: if an attempt of it that was late came to something later on, its client would have been told wrong."""
    covers = (known.covers if known is not None else b"") + cover([name for name, _ in edits])
    conflict = _conflict(edits, existing)
    if conflict is not None:
        return Command(version, operation, (), Outcome(conflict=conflict), covers)
    try:
        values = [
            edit.value if edit.amount is None else _sum(edit, edit.amount, existing.get(name), settings)
            for name, edit in edits
        ]
    except BadValue as error:
        return Command(version, operation, (), Outcome(unfit=str(error)), covers)
    changes = tuple(
        [
            Change(name, pack(Stored(version, value, edit.expires and edit.expires | 1)) if value is not None else None)
            for (name, edit), value in zip(edits, values, strict=True)
            if value is not None or existing[name] is not None
        ]
    )
    gone = known.outcome.gone if known is not None else ()
    if existing:
        gone += tuple([position_of(change.name) for change in changes if change.body is None])
    total = values[0] if edits[0][1].amount is not None else None
    return Command(version, operation, changes, Outcome(gone, total=total), covers)


def _sum(edit: Edit, amount: int | float, stored: Stored | None, settings: Settings) -> bytes:
    """What an edit makes of a number, packed. Raises BadValue if it adds to what is none."""
    number = 0 if stored is None else unpack_value(stored.value)
    if type(number) not in (int, float):
        raise BadValue(f"{readable(edit.key[:40])!r} holds a {type(number).__name__}: only numbers can be added to")
    try:
        return pack_value(number + amount, settings)
    except OverflowError:
        key = readable(edit.key[:40])
        raise BadValue(f"{key!r} holds {shown(number)}: too large to add {shown(amount)} to") from None


def _conflict(edits: Edits, existing: dict[Name, Stored | None]) -> tuple[bytes, Version | None] | None:
    """The first key that has not the version expected, and the one it has."""
    for name, edit in edits:
        if edit.conditional:
            stored = existing[name]
            version = stored.version if stored is not None else None
            if version != edit.expected:
                return edit.key, version
    return None
