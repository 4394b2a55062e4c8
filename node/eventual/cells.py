"""What is stored under a key: the values written to it that nothing newer is known to replace, and how two such merge.

Pure. Last writer wins: the highest stamp stays. With siblings a write replaces what its writer had read and nothing
else, known by dotted version vectors: each value has its dot (its stamp) and its context (the highest stamp of each
writer that it replaces). Preguica et al., "Dotted Version Vectors" (2010); a stamp serves as the counter of the dot,
since the stamps that one writer gives to a key grow and who holds one holds those before or what replaced them: a node
that may lack what it wrote goes on as another writer.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from itertools import groupby

from node.codec import Message, pack
from node.eventual.stamps import Stamp
from node.identifiers import Name

Context = tuple[Stamp, ...]
"""The highest stamp of each writer, in ascending order."""

MASK = (1 << 128) - 1


class Written(Message, frozen=True):
    """One write: its packed value, None for a delete, and what it replaces."""

    stamp: Stamp
    value: bytes | None
    context: Context = ()


Cell = tuple[Written, ...]
"""All that is known of a key, newest first; empty if nothing is."""


class Body(Message, frozen=True):
    """A cell on disk, and when it arrived there in its present form (microseconds, by the time of this node)."""

    arrived: int
    cell: Cell


def merge(cells: Iterable[Cell], *, siblings: bool) -> Cell:
    """What holds when all of this was written. Commutative and idempotent; associative, but for a write that two
    replicas took and that somebody wrote over before they met: whether it stays then is a matter of order."""
    writes = {(written.stamp, written.context): written for cell in cells for written in cell}
    newest_first = sorted(writes.values(), key=lambda written: written.stamp, reverse=True)
    if not siblings:
        return tuple(newest_first[:1])
    apart = _once_each(newest_first)
    return tuple(
        written
        for written in apart
        if not any(covers(other.context, written.stamp) for other in apart if other is not written)
    )


def _once_each(newest_first: list[Written]) -> list[Written]:
    """Attempts of one write as one. They say the same time and value, have the stamps of the replicas that took them,
    and replace what their writer had read, each as far as its replica knew."""
    found: list[Written] = []
    for _, group in groupby(newest_first, lambda written: written.stamp.time):
        one: dict[bytes | None, Written] = {}
        for written in group:
            known = one.setdefault(written.value, written)
            if known is not written:
                one[written.value] = Written(known.stamp, known.value, joined((*known.context, *written.context)))
        found += one.values()
    return found


def covers(context: Context, stamp: Stamp) -> bool:
    """Was this write seen by whoever wrote with that context?"""
    return any(seen.writer == stamp.writer and seen >= stamp for seen in context)


def joined(stamps: Iterable[Stamp]) -> Context:
    """The context of all these."""
    return tuple(sorted({stamp.writer: stamp for stamp in sorted(stamps)}.values()))


def context_of(cell: Cell) -> Context:
    """What somebody has seen who read this cell."""
    return joined(stamp for written in cell for stamp in (written.stamp, *written.context))


def living(cell: Cell) -> Cell:
    """The values in it that are not deletes."""
    return tuple(written for written in cell if written.value is not None)


def is_buried(cell: Cell, horizon: int) -> bool:
    """A tombstone, or nothing, from before the horizon (microseconds): it is in no digest and goes to nobody."""
    return all(written.value is None and written.stamp.time < horizon for written in cell)


def fingerprint(name: Name, cell: Cell) -> int:
    """128 bits that tell this cell under this name from every other."""
    return int.from_bytes(blake2b(pack((name, cell)), digest_size=16).digest(), "big")
