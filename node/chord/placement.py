"""Where a newcomer goes: it bisects the widest arc of the ring, so that arcs stay within a factor of two of each other.

The owner of an arc grants halves of it and remembers what it granted until the newcomer shows up, so that newcomers
that come at the same time never get the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from node.errors import NotGranted, Unavailable
from node.identifiers import Arc, Identifier


@dataclass(slots=True)
class Grants:
    """Ids that the owner of an arc gave away and that have not joined yet."""

    valid_for: float
    granted: dict[Identifier, float] = field(default_factory=dict)

    def widest(self, arc: Arc, now: float) -> Arc:
        """The widest part of `arc` between its ends and the ids granted in it."""
        self.granted = {point: until for point, until in self.granted.items() if until > now}
        cuts = sorted((p for p in self.granted if p in arc and p != arc.end), key=arc.start.distance_to)
        parts: list[Arc] = []
        for cut in cuts:
            first, arc = arc.split(cut)
            parts.append(first)
        return max((*parts, arc), key=lambda part: part.width)

    def pending(self, now: float) -> tuple[Identifier, ...]:
        """The ids granted that may still show up."""
        return tuple(point for point, until in self.granted.items() if until > now)

    def inherit(self, points: Iterable[Identifier], now: float) -> None:
        """What the owner before me granted in what is my arc now."""
        self.granted.update(dict.fromkeys(points, now + self.valid_for))

    def grant(self, arc: Arc, width: int, now: float) -> Identifier:
        """The middle of the widest part of `arc`. Raises NotGranted with its width if that is below `width`."""
        part = self.widest(arc, now)
        if part.width < width or part.width < 2:
            raise NotGranted("another newcomer was faster: ask for less or elsewhere", part.width.to_bytes(21, "big"))
        point = part.middle()
        self.granted[point] = now + self.valid_for
        return point


ATTEMPTS = 256
"""How many owners are asked before a newcomer gives up; each refusal means that another newcomer was faster."""


async def bisect_widest(
    survey: Callable[[], Awaitable[dict[Identifier, int]]],
    admit: Callable[[Identifier, int], Awaitable[Identifier]],
    random: Random,
    pause: float,
) -> Identifier:
    """Ask the owner of a widest arc for a half of it, any of them, so that newcomers do not all ask the same; the id.

    `survey()` gives the owners and their arcs' widths. It may be late: arcs only get narrower, so an arc that is still
    as wide as the widest was is a widest one. `admit(owner, width)` raises NotGranted with what the owner really has;
    when none of that width is left, the ring is surveyed anew after `pause` s. Raises Unavailable if nobody grants.
    """
    left: dict[Identifier, int] = {}
    widths: dict[Identifier, int] = {}
    widest = 0
    for _ in range(ATTEMPTS):
        if max(widths.values(), default=0) < widest or not widths:
            await asyncio.sleep(pause if widths else 0)
            widths = {owner: min(width, left.get(owner, width)) for owner, width in (await survey()).items()}
            widest = max(widths.values())
        owner = random.choice([each for each, width in widths.items() if width == widest])
        try:
            return await admit(owner, widest)
        except NotGranted as refusal:
            widths[owner] = int.from_bytes(refusal.args[1], "big")
            left[owner] = widths[owner] or widest  # nothing at all: it may have more to give in a moment
    raise Unavailable("no member of the ring admits a newcomer: try again in a moment, or give an id with --id")
