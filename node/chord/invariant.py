"""What must hold of a ring at every moment, as code that runs: Zave's inductive invariant and what follows from it.

A snapshot maps the id of every live member to its successor list (ids, nearest first). A list may be shorter than r:
Zave pads it with ids of non-members, which adds nothing here. Pure; for tests and simulation, no protocol code needs
it. From Zave, "Reasoning about identifier spaces: how to make Chord correct" (2017), sections 4 and 5.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from itertools import pairwise

from node.identifiers import RING, Identifier, between

List = tuple[Identifier, ...]
Snapshot = Mapping[Identifier, List]


# -- the inductive invariant -------------------------------------------------------------------------------------


def without_live_successor(ring: Snapshot) -> set[Identifier]:
    """Members all of whose successors are dead. The invariant wants none."""
    return {member for member, successors in ring.items() if not any(s in ring for s in successors)}


def principals(ring: Snapshot) -> set[Identifier]:
    """Members that no extended list skips. The invariant wants at least r + 1."""
    members = sorted(ring)
    skipped: set[Identifier] = set()
    for member, successors in ring.items():
        for start, end in pairwise((member, *successors)):
            skipped.update(_strictly_between(members, start, end))
    return set(ring) - skipped


def holds(ring: Snapshot, r: int) -> bool:
    """Zave's invariant for lists of length `r`. It claims nothing of a ring with fewer than r + 1 members."""
    return not without_live_successor(ring) and len(principals(ring)) > r


# -- what follows from it ----------------------------------------------------------------------------------------


def best_successor(ring: Snapshot, member: Identifier) -> Identifier | None:
    """The first live entry of its list."""
    return next((s for s in ring[member] if s in ring), None)


def ring_members(ring: Snapshot) -> set[Identifier]:
    """Members that best successors lead back to."""
    done: set[Identifier] = set()
    found: set[Identifier] = set()
    for first in ring:
        path: dict[Identifier, int] = {}
        at: Identifier | None = first
        while at is not None and at not in done and at not in path:
            path[at] = len(path)
            at = best_successor(ring, at)
        if at is not None and at in path:
            found.update(list(path)[path[at] :])
        done.update(path)
    return found


def one_ordered_ring(ring: Snapshot) -> bool:
    """Best successors form exactly one cycle, and it goes around the identifiers exactly once."""
    cycle = ring_members(ring)
    if not cycle:
        return False
    first = at = min(cycle)
    seen, turned = 0, 0
    while True:
        after = best_successor(ring, at)
        assert after is not None
        turned += at.distance_to(after) or RING
        seen, at = seen + 1, after
        if at == first:
            return seen == len(cycle) and turned == RING


def connected_appendages(ring: Snapshot) -> bool:
    """From every member best successors lead to a member of the ring."""
    return bool(ring_members(ring)) and not without_live_successor(ring)


def ordered_lists(ring: Snapshot) -> bool:
    """Every extended list is ordered clockwise, holds nobody twice and does not come around to its owner."""
    return all(_ordered(member, successors) for member, successors in ring.items())


def ideal(ring: Snapshot, r: int) -> bool:
    """Every list holds the next r members (all others, if there are fewer): where stabilization leads."""
    members = sorted(ring)
    full = min(r, len(members) - 1)
    around = members + members
    return all(ring[member] == tuple(around[at + 1 : at + 1 + full]) for at, member in enumerate(members))


# -- after every step --------------------------------------------------------------------------------------------


class Watch:
    """The invariant kept up to date member by member, so that a thousand members can be watched after every step.

    An update costs about r log n as long as lists skip few members, and a scan of all lists when a member appears.
    """

    def __init__(self, r: int) -> None:
        self.r = r
        self._lists: dict[Identifier, List] = {}
        self._members: list[Identifier] = []
        self._skips: dict[Identifier, int] = {}
        self._principals = 0
        self._live_entries: dict[Identifier, int] = {}
        self._stranded: set[Identifier] = set()
        self._holders: dict[Identifier, set[Identifier]] = {}

    @property
    def ring(self) -> Snapshot:
        """The snapshot as of the last update."""
        return self._lists

    def update(self, member: Identifier, successors: List) -> None:
        """A live member has this list now. Nothing happens if it had it before."""
        old = self._lists.get(member)
        if old == successors and old is not None:
            return
        if old is None:
            self._appear(member)
        else:
            self._unlink(member, old)
        self._lists[member] = successors
        for start, end in pairwise((member, *successors)):
            self._count_skips(start, end, 1)
        for successor in set(successors):
            self._holders.setdefault(successor, set()).add(member)
        self._live_entries[member] = sum(s in self._lists for s in set(successors))
        self._judge(member)

    def remove(self, member: Identifier) -> None:
        """The member is dead or has left."""
        self._unlink(member, self._lists[member])
        del self._lists[member], self._live_entries[member]
        self._stranded.discard(member)
        self._members.pop(bisect_left(self._members, member))
        self._principals -= self._skips.pop(member) == 0
        for holder in self._holders.get(member, ()):
            self._live_entries[holder] -= 1
            self._judge(holder)

    def holds(self) -> bool:
        """See `holds` of the module; this one costs nothing."""
        return not self._stranded and self._principals > self.r

    def broken(self) -> str:
        """What does not hold, for people; empty if all does."""
        found = []
        if self._stranded:
            found.append(f"no live successor: {', '.join(map(repr, sorted(self._stranded)))}")
        if self._principals <= self.r:
            found.append(f"{self._principals} principals of {len(self._lists)} members, {self.r + 1} needed")
        return "; ".join(found)

    def _appear(self, member: Identifier) -> None:
        self._members.insert(bisect_left(self._members, member), member)
        self._skips[member] = sum(
            between(start, member, end)
            for owner, successors in self._lists.items()
            for start, end in pairwise((owner, *successors))
        )
        self._principals += self._skips[member] == 0
        for holder in self._holders.get(member, ()):
            self._live_entries[holder] += 1
            self._judge(holder)

    def _unlink(self, member: Identifier, successors: List) -> None:
        for start, end in pairwise((member, *successors)):
            self._count_skips(start, end, -1)
        for successor in set(successors):
            self._holders[successor].discard(member)

    def _count_skips(self, start: Identifier, end: Identifier, by: int) -> None:
        for skipped in _strictly_between(self._members, start, end):
            before = self._skips[skipped]
            self._skips[skipped] = before + by
            self._principals += (before + by == 0) - (before == 0)

    def _judge(self, member: Identifier) -> None:
        if self._live_entries[member]:
            self._stranded.discard(member)
        else:
            self._stranded.add(member)


# -- small things ------------------------------------------------------------------------------------------------


def _strictly_between(members: list[Identifier], start: Identifier, end: Identifier) -> Iterator[Identifier]:
    """Those of the sorted members that lie strictly inside the clockwise way from `start` to `end`."""
    if start == end:
        return (member for member in members if member != start)
    low, high = bisect_right(members, start), bisect_left(members, end)
    if int(start) < int(end):
        return iter(members[low:high])
    return iter(members[low:] + members[:high])


def _ordered(member: Identifier, successors: List) -> bool:
    last = member
    for successor in successors:
        if successor == member or not between(last, successor, member):
            return False
        last = successor
    return True
