"""Iterative look-up: the asker walks, asking one member after another for its route to the point (Chord, section 4.4).

Several candidates are kept at each step, so that a dead member on the way costs one time-out and not the look-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from node.chord.messages import ROUTE, Route, RouteQuestion, View
from node.chord.neighbours import Neighbours
from node.codec import Contact
from node.errors import Definite, OutcomeUnknown, Unavailable
from node.identifiers import BITS, Identifier, between


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a look-up."""

    owners: tuple[Contact, ...]
    """The successor of the point, then the members after it."""
    told_by: Contact
    """Who knew."""
    path: tuple[Contact, ...]
    """The members asked on the way, the asker left out."""

    @property
    def owner(self) -> Contact:
        """The successor of the point."""
        return self.owners[0]

    def hops(self, origin: Contact) -> int:
        """Messages a request makes from `origin` to the owner along this path."""
        if self.owner.id == origin.id:
            return 0
        asked = [contact for contact in self.path if contact.id != self.owner.id]
        return len(asked) + 1


async def find_successor(
    neighbours: Neighbours,
    point: Identifier,
    origin: Contact | None,
    first: Route,
    doubt: Callable[[Contact], None] | None = None,
) -> Found:
    """Walk to the successor of `point`, beginning with the route that `origin` itself gave.

    A newcomer, which is no member yet, has no origin and begins with a contact.

    Raises Unavailable when every candidate was tried or `settings.lookup` seconds are over.
    """
    asked: set[Identifier] = {origin.id} if origin else set()
    candidates: dict[Identifier, Contact] = {}
    path: list[Contact] = []
    route, told_by = first, origin or first.closer[0]
    try:
        async with asyncio.timeout(neighbours.settings.lookup):
            while not route.owners:
                candidates |= {c.id: c for c in route.closer if c.id not in asked}
                if not candidates:
                    raise Unavailable(f"no way to {point.hex[:8]}..: tried {len(asked)} members; is the ring healing?")
                closest = min(candidates.values(), key=lambda contact: contact.id.distance_to(point))
                del candidates[closest.id]
                asked.add(closest.id)
                try:
                    route = await neighbours.ask(ROUTE, closest, RouteQuestion(closest.id, point))
                except (Definite, OutcomeUnknown):
                    if doubt is not None:
                        doubt(closest)
                    route = Route((), ())
                    continue
                told_by = closest
                path.append(closest)
    except TimeoutError:
        raise Unavailable(
            f"no way to {point.hex[:8]}.. within {neighbours.settings.lookup} s: try again when the ring has healed"
        ) from None
    return Found(route.owners, told_by, tuple(path))


async def predecessor_of(neighbours: Neighbours, point: Identifier, through: Contact) -> View:
    """The view of the live member right before `point`, walking from `through`.

    Raises Unavailable if it does not answer or the ring changes faster than we walk.
    """
    found = await find_successor(neighbours, point, None, Route((), (through,)))
    view = await neighbours.view(found.told_by)
    for _ in range(BITS):
        closer = [s for s in view.successors if s.id != point and between(view.me.id, s.id, point)]
        further = await _first_alive(neighbours, reversed(closer))
        if further is None and closer:
            break  # one of them may live: only the member before it, which drops it once it is dead, can tell
        if view.me.id == point and view.predecessor and view.predecessor.id != point:
            further = further or await neighbours.view_if_alive(view.predecessor)
        if further is None:
            return view
        view = further
    raise Unavailable(f"no place found for {point.hex[:8]}..: the ring is changing too fast, try again")


async def _first_alive(neighbours: Neighbours, contacts: Iterable[Contact]) -> View | None:
    """The view of the first of them that answers."""
    for contact in contacts:
        view = await neighbours.view_if_alive(contact)
        if view is not None:
            return view
    return None
