"""Zave's invariant is inductive: in every small ring that has it, every event of the protocol keeps it.

Exhaustive over all rings of few identifiers with ordered lists of one to r entries, dead ones among them. The events
are the very transitions of node.chord.state; the transitions of a broken protocol are shown to be caught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, pairwise
from random import Random

import pytest

from node.chord import invariant
from node.chord.invariant import Watch
from node.chord.messages import View
from node.chord.state import MemberState
from node.codec import Address, Contact
from node.identifiers import RING, Identifier, between

Ids = tuple[Identifier, ...]


@cache
def contact(member: Identifier) -> Contact:
    return Contact(member, Address("host", int(member)))


def view_of(member: Identifier, successors: Ids) -> View:
    return View(b"ring", contact(member), None, tuple(map(contact, successors)))


def state_of(member: Identifier, successors: Ids, r: int) -> MemberState:
    return MemberState(contact(member), r, None, tuple(map(contact, successors)))


def ids_of(state: MemberState) -> Ids:
    return tuple(s.id for s in state.successors)


@dataclass(frozen=True, eq=False)
class Space:
    """All rings of at most `n` identifiers with lists of at most `r`. Sets of identifiers are bit masks, for speed."""

    n: int
    r: int
    mutants: bool = False

    @cached_property
    def ids(self) -> Ids:
        return tuple(map(Identifier, range(self.n)))

    @cached_property
    def lists(self) -> dict[Identifier, list[Ids]]:
        """Every ordered list each member could have."""
        return {
            me: [
                chosen
                for length in range(1, self.r + 1)
                for chosen in combinations([self.ids[(me + step) % self.n] for step in range(1, self.n)], length)
            ]
            for me in self.ids
        }

    @cache  # noqa: B019
    def mask(self, members: Ids) -> int:
        return sum(1 << member for member in set(members))

    @cache  # noqa: B019
    def skips(self, me: Identifier, successors: Ids) -> int:
        """Whom the extended list of `me` skips."""
        steps = list(pairwise((me, *successors)))
        return self.mask(tuple(p for p in self.ids if any(between(start, p, end) for start, end in steps)))

    def skipped(self, ring: dict[Identifier, Ids]) -> int:
        """Whom any list skips."""
        skipped = 0
        for me, successors in ring.items():
            skipped |= self.skips(me, successors)
        return skipped

    def holds(self, live: int, ring: dict[Identifier, Ids]) -> bool:
        """The invariant on masks; compared with node.chord.invariant below."""
        for successors in ring.values():
            if not live & self.mask(successors):
                return False
        return (live & ~self.skipped(ring)).bit_count() > self.r

    def rings(self) -> Iterator[tuple[int, dict[Identifier, Ids]]]:
        """Every ring that has the invariant, with its live members as a mask; of those that are turns of each other by
        a few identifiers, one."""
        for live in range(1, 1 << self.n):
            if live > min(self.turned(live, by) for by in range(self.n)):
                continue
            members = [me for me in self.ids if live >> me & 1]
            if len(members) > self.r:
                yield from self._extend(live, members, 0, {})

    def turned(self, live: int, by: int) -> int:
        return (live << by | live >> (self.n - by)) & ((1 << self.n) - 1)

    def _extend(
        self, live: int, members: list[Identifier], skipped: int, ring: dict[Identifier, Ids]
    ) -> Iterator[tuple[int, dict[Identifier, Ids]]]:
        if (live & ~skipped).bit_count() <= self.r:
            return
        if len(ring) == len(members):
            yield live, ring
            return
        me = members[len(ring)]
        for successors in self.lists[me]:
            if live & self.mask(successors):
                yield from self._extend(live, members, skipped | self.skips(me, successors), ring | {me: successors})

    # -- transitions, each the one of node.chord.state ----------------------------------------------------------

    @cache  # noqa: B019
    def joined(self, me: Identifier, before: Identifier, its: Ids) -> Ids:
        return ids_of(MemberState.alone(contact(me), self.r).joined(view_of(before, its)))

    @cache  # noqa: B019
    def stabilized(self, me: Identifier, mine: Ids, its: Ids) -> Ids:
        return ids_of(state_of(me, mine, self.r).stabilized(view_of(mine[0], its)))

    @cache  # noqa: B019
    def dropped(self, me: Identifier, mine: Ids) -> Ids:
        return ids_of(state_of(me, mine, self.r).dropped(contact(mine[0])))

    @cache  # noqa: B019
    def adopted(self, me: Identifier, mine: Ids, other: Identifier, its: Ids) -> Ids:
        return ids_of(state_of(me, mine, self.r).adopted(view_of(other, its)))


Outcome = tuple[str, int, dict[Identifier, Ids]]


def failures(space: Space, live: int, ring: dict[Identifier, Ids]) -> Iterator[Outcome]:
    """A member dies. Zave assumes that no member loses its last live successor thereby, nor the ring its r + 1
    principals: a guard on the world, not on the code."""
    skipped = space.skipped(ring)
    spare = (live & ~skipped).bit_count() > space.r + 1
    for dead in ring:
        rest = {me: successors for me, successors in ring.items() if me != dead}
        left = live & ~(1 << dead)
        bereft = any(not left & space.mask(successors) for successors in rest.values())
        if not bereft and (spare or skipped >> dead & 1):
            yield "fail", left, rest
        elif space.mutants:
            yield "MUTANT fail beyond the assumption", left, rest


def joins(space: Space, live: int, ring: dict[Identifier, Ids]) -> Iterator[Outcome]:
    """A newcomer joins after any member whose successor lies beyond it."""
    for new in space.ids:
        for before, its in ring.items():
            if not live >> new & 1 and between(before, new, its[0]):
                yield "join", live | 1 << new, ring | {new: space.joined(new, before, its)}
                if space.mutants:
                    yield "MUTANT join knowing the successor only", live | 1 << new, ring | {new: its[:1]}


def stabilizations(space: Space, live: int, ring: dict[Identifier, Ids]) -> Iterator[Outcome]:
    """Every member asks its successor, and then whomever that may hold for its predecessor, alive or dead."""
    for me, mine in ring.items():
        head = mine[0]
        if not live >> head & 1:
            yield "stabilize from a dead successor", live, ring | {me: space.dropped(me, mine)}
            continue
        fresh = space.stabilized(me, mine, ring[head])
        yield "stabilize from successor", live, ring | {me: fresh}
        for other in space.ids:
            if not between(me, other, head):
                continue
            if other in ring:
                yield "stabilize from predecessor", live, ring | {me: space.adopted(me, fresh, other, ring[other])}
            elif space.mutants:
                for last_known in space.lists[other]:
                    adopted = space.adopted(me, fresh, other, last_known)
                    yield "MUTANT adopt a dead predecessor", live, ring | {me: adopted}


def explore(space: Space) -> tuple[Counter[str], Counter[str]]:
    """How often each event was tried, and how often it broke the invariant."""
    tried: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for live, ring in space.rings():
        for events in (failures, joins, stabilizations):
            for name, live_then, ring_then in events(space, live, ring):
                tried[name] += 1
                broken[name] += not space.holds(live_then, ring_then)
    return tried, broken


EVENTS = {
    "fail",
    "join",
    "stabilize from successor",
    "stabilize from a dead successor",
    "stabilize from predecessor",
}


@pytest.mark.parametrize(("n", "r"), [(4, 1), (5, 2), (5, 3), (6, 2)])
def test_the_invariant_is_kept_by_every_event(n: int, r: int) -> None:
    tried, broken = explore(Space(n, r))
    assert +broken == Counter()
    assert set(tried) == (EVENTS if r > 1 else EVENTS - {"stabilize from a dead successor"})


def test_the_invariant_is_broken_by_every_mutant() -> None:
    _, broken = explore(Space(5, 2, mutants=True))
    assert set(+broken) == {
        "MUTANT fail beyond the assumption",
        "MUTANT join knowing the successor only",
        "MUTANT adopt a dead predecessor",
    }


def test_the_invariant_implies_one_ordered_ring_connected_appendages_and_ordered_lists() -> None:
    for live, ring in Space(5, 2).rings():
        assert invariant.holds(ring, 2), ring
        assert invariant.one_ordered_ring(ring), ring
        assert invariant.connected_appendages(ring), ring
        assert invariant.ordered_lists(ring), ring
        assert live.bit_count() == len(ring)


# -- the executable invariant itself -----------------------------------------------------------------------------


def random_ring(random: Random, n: int, r: int) -> dict[Identifier, Ids]:
    points = [Identifier(random.randrange(RING)) for _ in range(n)]
    return {me: tuple(random.choices(points, k=random.randint(0, r))) for me in random.sample(points, n // 2)}


def perfect_ring(n: int, r: int) -> dict[Identifier, Ids]:
    ids = [Identifier(i * (RING // n)) for i in range(n)]
    around = ids + ids
    return {me: tuple(around[at + 1 : at + 1 + r]) for at, me in enumerate(ids)}


def test_principals_are_the_members_that_no_extended_list_skips() -> None:
    random = Random(1)
    for _ in range(300):
        ring = random_ring(random, 12, 3)
        skipped = {p for p in ring for me, its in ring.items() for a, b in pairwise((me, *its)) if between(a, p, b)}
        assert invariant.principals(ring) == set(ring) - skipped


def test_masks_and_snapshots_agree() -> None:
    space, random = Space(5, 2), Random(2)
    verdicts = Counter[bool]()
    for _ in range(3000):
        members = random.sample(space.ids, random.randint(3, 5))
        ring = {me: random.choice(space.lists[me]) for me in members}
        verdict = invariant.holds(ring, 2)
        assert space.holds(space.mask(tuple(members)), ring) == verdict
        verdicts[verdict] += 1
    assert len(verdicts) == 2


def test_two_rings_a_loop_of_two_turns_and_a_lost_appendage_are_found() -> None:
    a, b, c, d, e = map(Identifier, (10, 20, 30, 40, 50))
    assert not invariant.one_ordered_ring({a: (b,), b: (a,), c: (d,), d: (c,)})
    assert not invariant.one_ordered_ring({a: (c,), c: (b,), b: (d,), d: (a,)})
    assert not invariant.connected_appendages({a: (b,), b: (a,), c: (e,)})
    appendage = {a: (b,), b: (a,), c: (e, a)}
    assert invariant.one_ordered_ring(appendage) and invariant.connected_appendages(appendage)
    assert invariant.ring_members(appendage) == {a, b}


@pytest.mark.parametrize("successors", [(20, 20), (30, 20), (20, 10), (20, 30, 15)])
def test_lists_out_of_order_are_found(successors: tuple[int, ...]) -> None:
    assert not invariant.ordered_lists({Identifier(10): tuple(map(Identifier, successors))})


def test_a_perfect_ring_is_ideal_and_one_late_list_is_not() -> None:
    ring = perfect_ring(9, 3)
    assert invariant.ideal(ring, 3) and invariant.holds(ring, 3) and len(invariant.principals(ring)) == 9
    first = min(ring)
    assert not invariant.ideal(ring | {first: ring[first][:2]}, 3)
    assert invariant.ideal({Identifier(1): ()}, 3)


def test_the_watch_agrees_with_the_snapshot_after_every_update() -> None:
    random = Random(3)
    points = [Identifier(random.randrange(RING)) for _ in range(10)]
    watch, ring = Watch(2), dict[Identifier, Ids]()
    verdicts = Counter[bool]()
    for step in range(5000):
        member = random.choice(points)
        if member in ring and random.random() < 0.1:
            watch.remove(member)
            del ring[member]
        else:
            ordered = sorted(points, key=member.distance_to)[1:]
            tidy = tuple(ordered[at] for at in sorted(random.sample(range(4), 2)))
            ring[member] = tidy if step % 500 < 450 else tuple(random.choices(points, k=3))
            watch.update(member, ring[member])
        assert watch.ring == ring
        assert watch.holds() == invariant.holds(ring, 2) == (not watch.broken())
        verdicts[watch.holds()] += 1
    assert min(verdicts[True], verdicts[False]) > 100


def test_a_thousand_members_are_watched_step_by_step() -> None:
    ring, watch = perfect_ring(1000, 8), Watch(8)
    for me, successors in list(ring.items())[:500]:
        watch.update(me, successors)
    for me, successors in list(ring.items())[500:]:
        watch.update(me, successors)
    for me, successors in ring.items():
        watch.update(me, successors[:-1])
        assert watch.holds()
        watch.update(me, successors)
    assert watch.holds() and invariant.holds(ring, 8)
