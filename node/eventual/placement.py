"""Who should hold what: the k nodes that follow a point clockwise, as far as possible on different hosts.

Nodes may see the ring differently for a while; what they see comes to agree in the end, and so do the replicas.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterable

from node.chord.household import Household
from node.codec import Address, Contact
from node.errors import Unavailable
from node.identifiers import RING, Arc, Identifier

FRESH = 1.0
"""Seconds that the answer of a look-up is used again."""


class Placement:
    """The preference lists of one node."""

    def __init__(self, household: Household, replicas: int) -> None:
        self._household = household
        self.replicas = replicas
        self._ends: list[Identifier] = []
        self._known: dict[Identifier, tuple[float, Identifier, tuple[Contact, ...]]] = {}
        """By the owner: until when, from which point on, and the owner with those that follow it."""

    @property
    def here(self) -> Address:
        """This node."""
        return self._household.residence.address

    def own(self) -> list[tuple[Arc, list[Address]]]:
        """The arcs that members of this node own, and the nodes that follow each, nearest first."""
        return [
            (member.state.arc, spread(self.here, member.state.owners(member.me.id)[1:])[1:])
            for member in self._household.residence.members.values()
            if member.state.arc is not None
        ]

    def part_of(self, arc: Arc) -> Arc | None:
        """How far an arc from its start on belongs to this node; None if it does not."""
        first = arc.start.plus(1)
        return next((arc.intersect(own)[0] for own, _ in self.own() if first in own), None)

    async def at(self, point: Identifier) -> list[Address]:
        """The nodes that follow a point, the k replicas first. Raises Unavailable."""
        for arc, others in self.own():
            if point in arc:
                return [self.here, *others]
        _, owners = await self.owner(point)
        return spread(owners[0].address, owners[1:])

    async def replicas_at(self, point: Identifier) -> list[Address]:
        """Those of them that should hold it. Raises Unavailable."""
        return (await self.at(point))[: self.replicas]

    async def candidates(self, point: Identifier, patience: float) -> list[Address]:
        """The nodes that follow a point, then all others that are known here. Where a look-up does not end in time, the
        order is as this node can guess it."""
        mine = [member.me for member in self._household.residence.members.values()]
        known = {contact.id: contact for contact in (*self._household.acquaintances.known(), *mine)}
        guess = sorted(known.values(), key=lambda contact: point.distance_to(contact.id))
        try:
            async with asyncio.timeout(patience):
                nodes = await self.at(point)
        except (TimeoutError, Unavailable):
            nodes = spread(guess[0].address, guess)
        return list(dict.fromkeys([*nodes, *(contact.address for contact in guess)]))

    async def owner(self, point: Identifier) -> tuple[Identifier, tuple[Contact, ...]]:
        """How far the arc reaches that a point is in, and the owner with those that follow it. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        if self._ends:
            end = self._ends[bisect_left(self._ends, point) % len(self._ends)]
            until, start, owners = self._known[end]
            if until > now and start.distance_to(point) <= start.distance_to(end):
                return end, owners
        found = await self._household.find_successor(point)
        end = found.owner.id
        if end not in self._known:
            insort(self._ends, end)
        self._known[end] = (now + FRESH, point, found.owners)
        return end, found.owners

    def forget(self) -> None:
        """The ring has changed, or somebody did not answer: look up anew."""
        self._ends, self._known = [], {}


def spread(first: Address, others: Iterable[Contact]) -> list[Address]:
    """Nodes in the order in which they take replicas: each host's nearest node first, then their further nodes."""
    nodes = list(dict.fromkeys([first, *(contact.address for contact in others)]))
    hosts: dict[str, Address] = {}
    for node in nodes:
        hosts.setdefault(node.host, node)
    apart = list(hosts.values())
    return [*apart, *(node for node in nodes if node not in apart)]


def before(point: int) -> Identifier:
    """The point before one."""
    return Identifier((point - 1) % RING)
