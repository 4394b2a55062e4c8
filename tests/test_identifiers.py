"""Arithmetic on the ring, against a plain model: the set of points of a small circle."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import identifiers
from node.identifiers import BITS, RING, Arc, Identifier, between, successor_index

points = st.integers(0, RING - 1).map(Identifier)
near_zero = st.integers(-40, 40).map(lambda n: Identifier(n % RING))
anywhere = st.one_of(points, near_zero)
arcs = st.builds(Arc, anywhere, anywhere)


def walk(arc: Arc) -> list[int]:
    """The points of a narrow arc, one by one."""
    return [int(arc.start.plus(step)) for step in range(1, arc.width + 1)]


def test_a_key_stands_where_its_sha1_says() -> None:
    assert Identifier.of_key(b"key").packed == hashlib.sha1(b"key").digest()


@given(anywhere)
def test_hex_and_bytes_come_back(point: Identifier) -> None:
    assert Identifier.from_hex(point.hex) == point
    assert Identifier.from_bytes(point.packed, "big") == point
    assert len(point.hex) == 40 and len(point.packed) == 20


@pytest.mark.parametrize(
    "text", ["", "12", "g" * 40, "0" * 39, "0" * 41, " " + "0" * 39, "+" + "1" * 39, "0x" + "0" * 38]
)
def test_what_is_no_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="40 hex digits"):
        Identifier.from_hex(text)


@given(anywhere, anywhere)
def test_distances_there_and_back_make_a_whole_ring(a: Identifier, b: Identifier) -> None:
    assert a.plus(a.distance_to(b)) == b
    assert (a.distance_to(b) + b.distance_to(a)) % RING == 0


@given(anywhere, anywhere, anywhere)
def test_between_is_strict_and_goes_around_once(a: Identifier, x: Identifier, b: Identifier) -> None:
    assert not between(a, a, b)
    assert not between(a, b, b)
    if len({a, x, b}) == 3:
        assert between(a, x, b) != between(b, x, a)
    if x != a:
        assert between(a, x, a)


@given(anywhere, st.integers(0, BITS - 1))
def test_finger_starts_are_powers_of_two_away(me: Identifier, i: int) -> None:
    assert me.distance_to(me.finger_start(i)) == 2**i


@given(arcs, anywhere)
def test_an_arc_is_what_lies_up_to_and_with_its_end(arc: Arc, point: Identifier) -> None:
    inside = arc.start == arc.end or point == arc.end or between(arc.start, point, arc.end)
    assert (point in arc) == inside


@given(near_zero, st.integers(1, 30))
def test_the_points_of_a_narrow_arc(start: Identifier, width: int) -> None:
    arc = Arc(start, start.plus(width))
    assert arc.width == width
    assert all(Identifier(point) in arc for point in walk(arc))
    assert start not in arc and arc.end.plus(1) not in arc
    covered = [point for low, high in arc.ranges() for point in range(low, high + 1)]
    assert sorted(covered) == covered and sorted(walk(arc)) == covered


def test_the_whole_ring_has_every_point_in_one_range() -> None:
    whole = Arc(Identifier(0), Identifier(0))
    assert whole.width == RING and Identifier(0) in whole and Identifier(RING - 1) in whole
    assert sum(high - low + 1 for low, high in whole.ranges()) == RING


@given(arcs, anywhere)
def test_splitting_keeps_every_point_once(arc: Arc, at: Identifier) -> None:
    if at not in arc or at == arc.end:
        with pytest.raises(ValueError):
            arc.split(at)
        return
    first, second = arc.split(at)
    assert first.width + second.width == arc.width
    assert at in first and at not in second and arc.end in second


@given(arcs, arcs, anywhere)
def test_minus_and_intersect_part_an_arc(arc: Arc, other: Arc, point: Identifier) -> None:
    inside = [part for part in arc.intersect(other) if point in part]
    outside = [part for part in arc.minus(other) if point in part]
    assert len(inside) == (point in arc and point in other)
    assert len(outside) == (point in arc and point not in other)
    assert sum(p.width for p in (*arc.intersect(other), *arc.minus(other))) == arc.width
    assert arc.overlaps(other) is bool(arc.intersect(other))


@given(st.sets(anywhere, min_size=1), anywhere)
def test_the_successor_among_known_ids(ids: set[Identifier], point: Identifier) -> None:
    ordered = sorted(ids)
    chosen = ordered[successor_index(ordered, point)]
    assert all(point.distance_to(chosen) <= point.distance_to(each) for each in ids)


def test_nobody_else_does_arithmetic_modulo_the_ring() -> None:
    assert identifiers.RING == 2**160
