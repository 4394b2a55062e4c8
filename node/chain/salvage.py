"""What is left of a ring whose keepers, or all replicas of an arc, are lost for good; and the ring map made of it.

Pure. For each part of the ring the best that is left goes on: what was a member of the latest chain that any survivor
knows of lacks nothing that was acknowledged, for what was acknowledged is on every member. Failing that, in
this order: what a later chain left before an earlier one's; a whole replica before one whose disk forgot its last
commits; what goes further. All whole members of one epoch go on together, the longest history first, as in any change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from node.chain.ring_map import Entry, Life, Resident, RingMap, Seat
from node.codec import Message, pack
from node.data import Version
from node.identifiers import Arc, Identifier
from node.register.messages import Record
from node.transport import Method

EPOCHS = 1 << 20
"""So many epochs are left out: what was lost may have begun some that nobody here knows of."""

WHOLE = ""
STALE = "may lack writes: its replica is of an earlier chain than the map names"
FORGETFUL = "may lack the last writes before a power cut"
LOST = "lost: no node that answers holds it, it begins empty"


class Held(Message, frozen=True):
    """A replica as its node holds it: a member of its chain in `epoch`; `sound` unless its disk may have forgotten."""

    arc: Arc
    epoch: int
    position: Version
    sound: bool


class Holdings(Message, frozen=True):
    """What a survivor says of itself."""

    ring: bytes
    generation: int
    resident: Resident
    members: tuple[Identifier, ...]
    record: Record
    """The latest ring map it knows."""
    held: tuple[Held, ...]


class Generation(Message, frozen=True):
    """Take a new life in this ring, in which nobody of an earlier generation counts on you. `name`: of this repair."""

    ring: bytes
    number: int
    name: bytes


class Restore(Message, frozen=True):
    """Be a member of a chain that begins after `epoch`: with what is held of these arcs, with nothing of those."""

    life: Life
    epoch: int
    held: tuple[Arc, ...]
    empty: tuple[Arc, ...]


class Finding(Message, frozen=True):
    """What is left of an arc, and with which chain it goes on; `problem` is one of the above."""

    arc: Arc
    chain: tuple[Life, ...]
    problem: str


SURVEY: Method[None, Holdings] = Method("repair.survey", type(None), Holdings)
BEGIN_GENERATION: Method[Generation, Holdings] = Method("repair.generation", Generation, Holdings)
COUNT: Method[Arc, int] = Method("repair.count", Arc, int)
"""How many keys the store has there, whatever they count for."""
RESTORE: Method[Restore, None] = Method("repair.restore", Restore, type(None))


def latest_map(holdings: Iterable[Holdings]) -> Record:
    """The latest of the maps that survivors know."""
    return max((each.record for each in holdings), key=lambda record: record.revision)


def last_epoch(ring: RingMap, holdings: Iterable[Holdings]) -> int:
    """An epoch after all that anybody can have heard of."""
    known = [entry.epoch for entry in ring.entries] + [held.epoch for each in holdings for held in each.held]
    return max(known) + EPOCHS


def findings(ring: RingMap, holdings: Mapping[Life, Holdings]) -> tuple[Finding, ...]:
    """What is left of the whole ring."""
    left = _survivors(ring, holdings)
    return tuple(_finding(ring, left, holdings, arc) for arc in _parts(ring, holdings.values()))


def _parts(ring: RingMap, holdings: Iterable[Holdings]) -> list[Arc]:
    """The ring cut wherever an arc of the map or of a replica ends: each part is held whole or not at all."""
    arcs = [entry.arc for entry in ring.entries] + [held.arc for each in holdings for held in each.held]
    cuts = sorted({point for arc in arcs for point in (arc.start, arc.end)})
    return [Arc(start, end) for start, end in zip([cuts[-1], *cuts[:-1]], cuts, strict=True)]


def _finding(ring: RingMap, left: RingMap, holdings: Mapping[Life, Holdings], arc: Arc) -> Finding:
    holders = [
        ((held.epoch, held.sound, held.position), life)
        for life, each in holdings.items()
        for held in each.held
        if not arc.minus(held.arc)
    ]
    if not holders:
        return Finding(arc, left.wanted(arc)[:1], LOST)
    holders.sort(reverse=True)
    (epoch, sound, _), best = holders[0]
    if not sound:
        return Finding(arc, (best,), FORGETFUL)
    chain = tuple(life for rank, life in holders if rank[:2] == (epoch, True))
    return Finding(arc, chain, WHOLE if epoch >= ring.at(arc.end).epoch else STALE)


def _survivors(ring: RingMap, holdings: Mapping[Life, Holdings]) -> RingMap:
    """The survivors with their members, and no arcs yet."""
    seats = sorted((Seat(point, life) for life, each in holdings.items() for point in each.members), key=lambda s: s.id)
    return RingMap(ring.policy, tuple(each.resident for each in holdings.values()), tuple(seats))


def rebuilt(ring: RingMap, holdings: Mapping[Life, Holdings], found: tuple[Finding, ...], epoch: int) -> RingMap:
    """The map in which the survivors go on, every arc in the epoch after this one."""
    entries = tuple(Entry(each.arc, epoch + 1, each.chain) for each in found)
    left = _survivors(ring, holdings)
    return RingMap(ring.policy, left.residents, left.seats, entries)


def token(lost: Iterable[Resident], found: tuple[Finding, ...]) -> str:
    """Stands for a repair: for giving up these nodes, and going on with what was found."""
    given_up = tuple(sorted(resident.life for resident in lost))
    return hashlib.blake2b(pack((given_up, found)), digest_size=8).hexdigest()
