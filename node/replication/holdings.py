"""Which arcs a node answers for, and how current its content of them is. Pure values.

The history of a piece of the ring is a sequence of *epochs*: a new one begins whenever an arc is taken over from a node
that cannot be asked. A piece knows its epoch and which earlier epochs it `lacks`: while it lacks any, only what was
written since is known to be current. When the missing node comes back, the two are merged and nothing is lacking.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.codec import Address, Message
from node.identifiers import Arc, Identifier

REMEMBERED_RELEASES = 64
"""How many hand-overs a source remembers to have completed, for destinations that did not hear it."""


class Piece(Message, frozen=True):
    """An arc, the epoch in which it is written now, and the epochs whose writes are not here."""

    arc: Arc
    epoch: int
    lacks: tuple[int, ...] = ()

    def clipped(self, arc: Arc) -> Piece:
        """The same history for a part of the arc."""
        return Piece(arc, self.epoch, self.lacks)

    def same_history(self, other: Piece) -> bool:
        """Whether the two can be one piece."""
        return self.epoch == other.epoch and self.lacks == other.lacks

    def is_current(self, epoch: int | None) -> bool:
        """Whether a record of `epoch` (None: no record) found in this piece is the last word on its key."""
        return not self.lacks or (epoch is not None and epoch > max(self.lacks))

    def taken_over(self, arc: Arc) -> Piece:
        """The piece that follows when `arc` of it is taken over from a node that does not answer."""
        return Piece(arc, self.epoch + 1, tuple(sorted({*self.lacks, self.epoch})))

    def merged(self, other: Piece, arc: Arc) -> Piece:
        """What the two know together, in an epoch newer than both."""
        newer, older = (self, other) if self.epoch >= other.epoch else (other, self)
        lacks = tuple(epoch for epoch in newer.lacks if epoch > older.epoch or epoch in older.lacks)
        return Piece(arc, newer.epoch + 1, lacks)


class Prepared(Message, frozen=True):
    """Content fetched and durable, while it is not known yet whether the source let go of the arc."""

    pieces: tuple[Piece, ...]
    source: Address
    transfer: bytes


class Holdings(Message, frozen=True):
    """All pieces of a node, none overlapping another."""

    pieces: tuple[Piece, ...] = ()
    prepared: tuple[Prepared, ...] = ()
    released: tuple[bytes, ...] = ()

    def at(self, point: Identifier) -> Piece | None:
        """The piece that holds `point`."""
        for piece in self.pieces:
            if point in piece.arc:
                return piece
        return None

    def within(self, arc: Arc) -> tuple[Piece, ...]:
        """What is held of `arc`, clipped to it."""
        return tuple(piece.clipped(part) for piece in self.pieces for part in arc.intersect(piece.arc))

    def missing(self, arc: Arc) -> tuple[Arc, ...]:
        """The parts of `arc` that are not held."""
        return subtract((arc,), (piece.arc for piece in self.pieces))

    def excess(self, arcs: Iterable[Arc]) -> tuple[Piece, ...]:
        """What is held outside `arcs`."""
        wanted = tuple(arcs)
        return tuple(piece.clipped(part) for piece in self.pieces for part in subtract((piece.arc,), wanted))

    def without(self, arc: Arc) -> Holdings:
        """Without what is held of `arc`."""
        return self._with_pieces(self.excess((arc,)))

    def adding(self, pieces: Iterable[Piece]) -> Holdings:
        """With these pieces in place of whatever was held there."""
        result = self
        for piece in pieces:
            result = result._with_pieces((*result.excess((piece.arc,)), piece))
        return result

    def preparing(self, prepared: Prepared) -> Holdings:
        """One more hand-over whose end is not known yet."""
        return Holdings(self.pieces, (*self.prepared, prepared), self.released)

    def resolved(self, transfer: bytes) -> Holdings:
        """The end of a hand-over is known."""
        left = tuple(each for each in self.prepared if each.transfer != transfer)
        return Holdings(self.pieces, left, self.released)

    def releasing(self, arc: Arc, transfer: bytes) -> Holdings:
        """The arc went to another node by this transfer."""
        left = self.without(arc)
        return Holdings(left.pieces, left.prepared, (*self.released, transfer)[-REMEMBERED_RELEASES:])

    def _with_pieces(self, pieces: Iterable[Piece]) -> Holdings:
        return Holdings(_joined(pieces), self.prepared, self.released)


def subtract(arcs: Iterable[Arc], others: Iterable[Arc]) -> tuple[Arc, ...]:
    """The parts of `arcs` that none of `others` covers."""
    left = tuple(arcs)
    for other in others:
        left = tuple(part for arc in left for part in arc.minus(other))
    return left


def _joined(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Pieces in order, neighbours with the same history made one."""
    result = sorted(pieces, key=lambda piece: piece.arc.end)
    at = 0
    while len(result) > 1 and at < len(result):
        here, following = result[at], result[(at + 1) % len(result)]
        if here.arc.end == following.arc.start and here.same_history(following):
            result[(at + 1) % len(result)] = here.clipped(Arc(here.arc.start, following.arc.end))
            del result[at]
            at = max(0, at - 1)
        else:
            at += 1
    return tuple(result)
