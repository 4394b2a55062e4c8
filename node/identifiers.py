"""Arithmetic on the ring: identifiers, clockwise distances, arcs, names. The only place that does it.

Identifiers are 160 bits on a circle (Stoica et al., "Chord", 2001, section 4.1). Pure values: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha1 as any_sha1

sha1 = partial(any_sha1, usedforsecurity=False)
BITS = 160
BYTES = BITS // 8
RING = 1 << BITS


class Identifier(int):
    """A point on the ring, 0 <= point < 2**160. On the wire and on disk it is 20 bytes, for people 40 hex digits."""

    __slots__ = ()

    @classmethod
    def of_key(cls, key: bytes) -> Identifier:
        """The position of a key: its SHA-1 (Chord, section 4.2)."""
        return position_of(name_of(key))

    @classmethod
    def from_hex(cls, text: str) -> Identifier:
        """Read 40 hex digits. Raises ValueError naming the text."""
        if len(text) != 2 * BYTES or any(digit not in "0123456789abcdefABCDEF" for digit in text):
            raise ValueError(f"an id is {2 * BYTES} hex digits, not {text!r}")
        return cls(int(text, 16))

    @property
    def hex(self) -> str:
        """The 40 hex digits people see."""
        return f"{int(self):0{2 * BYTES}x}"

    @property
    def packed(self) -> bytes:
        """The 20 bytes of the wire and the disk; they sort as the identifiers do."""
        return self.to_bytes(BYTES, "big")

    def plus(self, steps: int) -> Identifier:
        """The point `steps` further clockwise (negative: counter-clockwise)."""
        return Identifier((int(self) + steps) % RING)

    def distance_to(self, other: Identifier) -> int:
        """Clockwise steps from here to `other`, 0 <= steps < 2**160."""
        return (int(other) - int(self)) % RING

    def finger_start(self, i: int) -> Identifier:
        """Where finger `i` (0-based) begins: self + 2**i (Chord, table 1)."""
        return self.plus(1 << i)

    def __repr__(self) -> str:
        return f"<{self.hex[:8]}>"


Name = bytes
"""A key behind its position. Names sort as (position, key) do; they are what the store and a chain call a key by."""


def name_of(key: bytes) -> Name:
    """The name of a key: its SHA-1 (Chord, section 4.2), and itself."""
    return any_sha1(key, usedforsecurity=False).digest() + key


def name_at(position: Identifier, key: bytes) -> Name:
    """The name of a key that stands at this position."""
    return position.packed + key


def position_of(name: Name) -> Identifier:
    """Where a key stands."""
    return Identifier.from_bytes(name[:BYTES], "big")


def key_in(name: Name) -> bytes:
    """The key of a name."""
    return name[BYTES:]


def successor_index(ordered: Sequence[Identifier], point: Identifier) -> int:
    """Where in the ascending, non-empty `ordered` the first id at or clockwise after `point` stands."""
    return bisect_left(ordered, point) % len(ordered)


def between(start: Identifier, point: Identifier, end: Identifier) -> bool:
    """True if `point` lies strictly inside the clockwise way from `start` to `end`.

    With start == end the way goes once around, so every other point is inside (Zave 2017, section 2).
    """
    if start == end:
        return point != start
    return 0 < start.distance_to(point) < start.distance_to(end)


@dataclass(frozen=True, slots=True)
class Arc:
    """The half-open clockwise arc (start, end]; start == end is the whole ring."""

    start: Identifier
    end: Identifier

    @property
    def width(self) -> int:
        """How many points it holds, 1..2**160."""
        return self.start.distance_to(self.end) or RING

    def __contains__(self, point: Identifier) -> bool:
        return (self.start.distance_to(point) or RING) <= self.width

    def holds(self, names: Collection[Name]) -> bool:
        """Whether all of these, one at least, lie in it."""
        if self.start == self.end:
            return True
        spans = self.spans()
        first, behind = spans[0]
        if len(spans) == 1:
            return first <= min(names) and (behind is None or max(names) < behind)
        above = spans[1][0]
        return all(name < behind or name >= above for name in names)  # type: ignore[operator]

    def middle(self) -> Identifier:
        """The point that bisects it."""
        return self.start.plus(self.width // 2)

    def split(self, at: Identifier) -> tuple[Arc, Arc]:
        """(start, at] and (at, end]. Raises ValueError unless `at` lies inside and is not the end."""
        if at not in self or at == self.end:
            raise ValueError(f"{at!r} does not split {self}")
        return Arc(self.start, at), Arc(at, self.end)

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The arc as one or two inclusive, ascending ranges (low, high) of integers, for scans of an ordered store."""
        low = (int(self.start) + 1) % RING
        high = int(self.end)
        if low <= high:
            return ((low, high),)
        return ((0, high), (low, RING - 1))

    def spans(self) -> tuple[tuple[Name, Name | None], ...]:
        """Where the names in it stand: one or two half-open, ascending ranges (first, behind); None: up to the last."""
        return _spans(self)

    def overlaps(self, other: Arc) -> bool:
        """Whether any point lies in both."""
        ahead = (other.start - self.start) % RING
        return ahead < self.width or (RING - ahead) % RING < other.width

    def intersect(self, other: Arc) -> tuple[Arc, ...]:
        """What both cover: up to two arcs, clockwise from the start of this one."""
        return tuple(self._offset(low, high) for low, high in self._overlaps(other))

    def minus(self, other: Arc) -> tuple[Arc, ...]:
        """What this covers and `other` does not: up to two arcs, clockwise from the start of this one."""
        edges = [0, *(edge for overlap in self._overlaps(other) for edge in overlap), self.width]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return tuple(self._offset(low, high) for low, high in gaps if low < high)

    def _offset(self, low: int, high: int) -> Arc:
        return Arc(self.start.plus(low), self.start.plus(high))

    def _overlaps(self, other: Arc) -> Iterator[tuple[int, int]]:
        """Where `other` covers this arc, as ascending half-open offsets (low, high] from the start of this one."""
        low = self.start.distance_to(other.start)
        high = low + other.width
        for first, last in ((0, high - RING), (low, high)):
            last = min(last, self.width)
            if first < last:
                yield first, last

    def __str__(self) -> str:
        return f"({self.start.hex[:8]}..{self.end.hex[:8]}]"


def behind(point: int) -> Name | None:
    """The first name behind all at this point and before; None where that is the last of the ring."""
    return Identifier(point + 1).packed if point + 1 < RING else None


@lru_cache(maxsize=1024)
def _spans(arc: Arc) -> tuple[tuple[Name, Name | None], ...]:
    return tuple((Identifier(low).packed, behind(high)) for low, high in arc.ranges())


EVERYTHING = Arc(Identifier(0), Identifier(0))
"""The whole ring."""
