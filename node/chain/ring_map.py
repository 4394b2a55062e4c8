"""The ring map: for every arc its epoch and its chain. The one thing all nodes agree on, the value of one register.

Pure: no calls, no clock, no store. A node is known by its *life*, the id of one life of its data directory: a node that
lost its disk is a stranger. Every change of the map is a transition here and one compare-and-set of the register.
Chains follow van Renesse & Schneider, "Chain Replication" (2004); the master is Vertical Paxos II's (Lamport 2009).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property

from node.codec import Address, Message
from node.identifiers import Arc, Identifier, Name, behind

Life = bytes


class Resident(Message, frozen=True):
    """A node of the ring: where it is, and in which zone, so that replicas can be kept apart."""

    life: Life
    address: Address
    zone: str


class Seat(Message, frozen=True):
    """A member of the ring: its id, and the node that it lives on."""

    id: Identifier
    life: Life


class Entry(Message, frozen=True):
    """Who answers for an arc in this epoch: the chain, head first."""

    arc: Arc
    epoch: int
    chain: tuple[Life, ...]

    @property
    def head(self) -> Life:
        """Orders the writes."""
        return self.chain[0]

    @property
    def tail(self) -> Life:
        """Answers the reads."""
        return self.chain[-1]

    def after(self, life: Life) -> Life | None:
        """The next one down the chain; None after the tail."""
        at = self.chain.index(life) + 1
        return self.chain[at] if at < len(self.chain) else None

    def before(self, life: Life) -> Life | None:
        """The one that passes writes on to `life`; None before the head."""
        at = self.chain.index(life)
        return self.chain[at - 1] if at else None


class Policy(Message, frozen=True):
    """What belongs to the ring and not to a node: every joiner takes it from there."""

    replicas: int = 3
    consistency: str = "chain"
    durability: str = "fsync"
    siblings: bool = False


class RingMap(Message, frozen=True, dict=True, gc=True):
    """The map. `entries` cover the ring without a gap and ascend by the ends of their arcs, `seats` by their ids."""

    policy: Policy
    residents: tuple[Resident, ...] = ()
    seats: tuple[Seat, ...] = ()
    entries: tuple[Entry, ...] = ()

    # -- looking ---------------------------------------------------------------------------------------------------

    @cached_property
    def _behind(self) -> list[Name]:
        """The first names behind the arcs; behind an arc that ends with the ring there is none."""
        return [name for entry in self.entries if (name := behind(entry.arc.end)) is not None]

    @cached_property
    def _seat_ids(self) -> list[Identifier]:
        return [seat.id for seat in self.seats]

    @cached_property
    def _residents(self) -> dict[Life, Resident]:
        return {resident.life: resident for resident in self.residents}

    @cached_property
    def _wanted(self) -> dict[Arc, tuple[Life, ...]]:
        return {}

    def number_of(self, name: Name) -> int:
        """The number of the entry whose arc holds a name."""
        return bisect_right(self._behind, name) % len(self.entries)

    def holding(self, name: Name) -> Entry:
        """The entry whose arc holds a name."""
        return self.entries[self.number_of(name)]

    def at(self, position: Identifier) -> Entry:
        """The entry whose arc holds `position`."""
        return self.holding(position.packed)

    def entry(self, arc: Arc) -> Entry | None:
        """The entry of exactly this arc."""
        found = self.at(arc.end)
        return found if found.arc == arc else None

    def resident(self, life: Life) -> Resident | None:
        """The node of that life, None if it is not in the ring."""
        return self._residents.get(life)

    def within(self, arc: Arc) -> tuple[Entry, ...]:
        """The entries that overlap `arc`."""
        return tuple(entry for entry in self.entries if entry.arc.overlaps(arc))

    def of(self, life: Life) -> Iterator[Entry]:
        """The entries whose chains hold this node."""
        return (entry for entry in self.entries if life in entry.chain)

    def seats_of(self, life: Life) -> tuple[Identifier, ...]:
        """The members of a node."""
        return tuple(seat.id for seat in self.seats if seat.life == life)

    def _clockwise(self, arc: Arc) -> Iterator[Life]:
        """The nodes of the members from the end of `arc` on."""
        first = bisect_left(self._seat_ids, arc.end)
        for step in range(len(self.seats)):
            yield self.seats[(first + step) % len(self.seats)].life

    def wanted(self, arc: Arc) -> tuple[Life, ...]:
        """Who should hold `arc`: the first k nodes clockwise, as far as possible each in a zone of its own."""
        if arc not in self._wanted:
            self._wanted[arc] = self._chosen(arc)
        return self._wanted[arc]

    def _chosen(self, arc: Arc) -> tuple[Life, ...]:
        apart: dict[Life, None] = {}
        zones: set[str] = set()
        others: dict[Life, None] = {}
        for life in self._clockwise(arc):
            zone = self._residents[life].zone
            if life in apart or life in others:
                continue
            if zone in zones:
                others[life] = None
            else:
                apart[life] = None
                zones.add(zone)
            if len(apart) == self.policy.replicas:
                break
        chosen = {*list(apart)[: self.policy.replicas]}
        chosen |= {*list(others)[: self.policy.replicas - len(chosen)]}
        return tuple(life for life in dict.fromkeys(self._clockwise(arc)) if life in chosen)

    def cut(self, arc: Arc) -> Identifier | None:
        """A member that lies inside of an arc: there it should be split."""
        at = bisect_right(self._seat_ids, arc.start) % len(self.seats) if self.seats else 0
        inside = self.seats[at].id if self.seats else arc.end
        return inside if inside != arc.end and inside in arc else None

    def mergeable(self, entry: Entry) -> Entry | None:
        """The entry after this one, if the two should be one: no member parts them and the same nodes hold both."""
        if len(self.entries) == 1:
            return None
        following = self.at(entry.arc.end.plus(1))
        at = bisect_left(self._seat_ids, entry.arc.end)
        parted = at < len(self.seats) and self.seats[at].id == entry.arc.end
        return None if parted or set(following.chain) != set(entry.chain) else following

    # -- changing --------------------------------------------------------------------------------------------------

    @classmethod
    def founded(cls, policy: Policy, first: Resident, seats: Iterable[Identifier]) -> RingMap:
        """A ring of one node that holds everything."""
        alone = cls(policy, (first,), _seated(Seat(each, first.life) for each in seats))
        start = alone.seats[0].id
        return alone._with_entries((Entry(Arc(start, start), 1, (first.life,)),))

    def joined(self, newcomer: Resident, seats: Iterable[Identifier]) -> RingMap:
        """A node with these members, new, or moved to another address, or with other members than before. It takes the
        seat of a member of the same id: Chord has found nobody there who lives."""
        residents = (*(each for each in self.residents if each.life != newcomer.life), newcomer)
        mine = tuple(Seat(each, newcomer.life) for each in seats)
        taken = {seat.id for seat in mine}
        kept = (seat for seat in self.seats if seat.life != newcomer.life and seat.id not in taken)
        return RingMap(self.policy, residents, _seated((*kept, *mine)), self.entries)._tidied()

    def parted(self, life: Life) -> RingMap:
        """Without the members of a node: nothing is wanted of it any more. It stays known while a chain names it."""
        seats = tuple(seat for seat in self.seats if seat.life != life)
        return RingMap(self.policy, self.residents, seats, self.entries)._tidied()

    def split(self, entry: Entry, at: Identifier) -> RingMap:
        """Two arcs in place of one, each in the next epoch with the same chain."""
        first, second = entry.arc.split(at)
        parts = (Entry(first, entry.epoch + 1, entry.chain), Entry(second, entry.epoch + 1, entry.chain))
        return self._with_entries((*(each for each in self.entries if each.arc != entry.arc), *parts))

    def merged(self, entry: Entry, following: Entry) -> RingMap:
        """One arc in place of two, in an epoch after both, with the chain of the first."""
        arc = Arc(entry.arc.start, following.arc.end)
        whole = Entry(arc, max(entry.epoch, following.epoch) + 1, entry.chain)
        rest = (each for each in self.entries if each.arc not in (entry.arc, following.arc))
        return self._with_entries((*rest, whole))

    def changed(self, entry: Entry, chain: tuple[Life, ...]) -> RingMap:
        """The next epoch of an arc, with another chain."""
        following = Entry(entry.arc, entry.epoch + 1, chain)
        return self._with_entries((*(each for each in self.entries if each.arc != entry.arc), following))

    def _with_entries(self, entries: Iterable[Entry]) -> RingMap:
        ordered = tuple(sorted(entries, key=lambda entry: entry.arc.end))
        return RingMap(self.policy, self.residents, self.seats, ordered)._tidied()

    def _tidied(self) -> RingMap:
        """Without nodes that have no member and are in no chain."""
        needed = {seat.life for seat in self.seats} | {life for entry in self.entries for life in entry.chain}
        residents = tuple(each for each in self.residents if each.life in needed)
        return RingMap(self.policy, residents, self.seats, self.entries)


def _seated(seats: Iterable[Seat]) -> tuple[Seat, ...]:
    return tuple(sorted(seats, key=lambda seat: seat.id))
