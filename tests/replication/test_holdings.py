"""Pieces and their histories: what is held, what is current, and what two nodes know together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.identifiers import RING, Arc, Identifier
from node.replication.holdings import Holdings, Piece, subtract

points = st.integers(-50, 50).map(lambda n: Identifier(n % RING))
arcs = st.builds(Arc, points, points)
pieces = st.builds(Piece, arcs, st.integers(1, 3))


def arc(start: int, end: int) -> Arc:
    return Arc(Identifier(start), Identifier(end))


@given(st.lists(pieces, max_size=6), points)
def test_the_latest_piece_put_over_a_point_holds_it(added: list[Piece], point: Identifier) -> None:
    holdings = Holdings().adding(added)
    held = [piece for piece in holdings.pieces if point in piece.arc]
    latest = [piece for piece in added if point in piece.arc][-1:]
    assert [p.epoch for p in held] == [p.epoch for p in latest]
    assert holdings.at(point) == (held[0] if held else None)


@given(st.lists(pieces, max_size=6), arcs, points)
def test_within_missing_and_without_part_an_arc(added: list[Piece], asked: Arc, point: Identifier) -> None:
    holdings = Holdings().adding(added)
    inside = any(point in piece.arc for piece in holdings.within(asked))
    missing = any(point in part for part in holdings.missing(asked))
    assert inside == (point in asked and holdings.at(point) is not None)
    assert missing == (point in asked and holdings.at(point) is None)
    left = holdings.without(asked).at(point)
    assert (left is not None) == (holdings.at(point) is not None and point not in asked)


def test_neighbours_with_one_history_are_one_piece() -> None:
    holdings = Holdings().adding([Piece(arc(0, 10), 1), Piece(arc(20, 30), 1), Piece(arc(10, 20), 1)])
    assert holdings.pieces == (Piece(arc(0, 30), 1),)
    assert len(holdings.adding([Piece(arc(30, 0), 1)]).pieces) == 1
    assert holdings.adding([Piece(arc(30, 0), 1)]).at(Identifier(RING - 1)) is not None


def test_neighbours_with_different_histories_stay_apart() -> None:
    assert len(Holdings().adding([Piece(arc(0, 10), 1), Piece(arc(10, 20), 2)]).pieces) == 2


def test_nothing_is_missing_from_the_whole_ring() -> None:
    whole = Holdings((Piece(arc(5, 5), 1),))
    assert whole.missing(arc(9, 3)) == () and whole.excess([arc(0, 0)]) == ()


def test_after_a_take_over_only_what_was_written_since_is_current() -> None:
    piece = Piece(arc(0, 10), 1).taken_over(arc(0, 10))
    assert piece == Piece(arc(0, 10), 2, (1,))
    assert piece.is_current(2) and not piece.is_current(1) and not piece.is_current(None)
    assert Piece(arc(0, 10), 1).is_current(None)


def test_with_the_missing_node_back_nothing_is_lacking() -> None:
    old = Piece(arc(0, 10), 1)
    assert old.taken_over(old.arc).merged(old, old.arc) == Piece(old.arc, 3)
    assert old.merged(old.taken_over(old.arc), old.arc) == Piece(old.arc, 3)


def test_what_was_written_by_a_second_missing_node_stays_lacking() -> None:
    first = Piece(arc(0, 10), 1)
    second = first.taken_over(first.arc)
    third = second.taken_over(first.arc)
    assert third.lacks == (1, 2)
    with_first = third.merged(first, first.arc)
    assert with_first.lacks == (2,), "the first knows nothing of what the second wrote"
    assert third.merged(second, first.arc).lacks == (1,)
    assert third.merged(second.merged(first, first.arc), first.arc).lacks == (), "all three together lack nothing"


@given(st.lists(arcs, max_size=4), st.lists(arcs, max_size=4), points)
def test_subtract_leaves_what_is_only_in_the_first(minuend: list[Arc], others: list[Arc], point: Identifier) -> None:
    left = any(point in part for part in subtract(minuend, others))
    assert left == (any(point in a for a in minuend) and not any(point in b for b in others))
