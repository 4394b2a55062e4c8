"""Finger tables as runs, and places that bisect the widest arc."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chord.fingers import FingerTable, first_finger_beyond
from node.chord.placement import Grants, bisect_widest
from node.codec import Address, Contact
from node.errors import NotGranted, Unavailable
from node.identifiers import BITS, RING, Arc, Identifier, successor_index

points = st.integers(0, RING - 1).map(Identifier)


def contact(point: Identifier) -> Contact:
    return Contact(point, Address("host", 1))


def table_of(me: Identifier, ids: list[Identifier]) -> tuple[FingerTable, int]:
    """The table of `me` built as a member does it, and how many look-ups it took."""
    runs, i = [], 0
    while i < BITS:
        found = ids[successor_index(ids, me.finger_start(i))]
        runs.append((i, contact(found)))
        i = first_finger_beyond(me, found, i)
    return FingerTable(contact(me), tuple(runs)), len(runs)


@given(st.sets(points, min_size=1, max_size=60))
def test_every_finger_is_the_successor_of_its_start(ids: set[Identifier]) -> None:
    ordered = sorted(ids)
    me = ordered[0]
    table, _ = table_of(me, ordered)
    for i in range(BITS):
        assert table.finger(i).id == ordered[successor_index(ordered, me.finger_start(i))]


def test_a_table_takes_about_log_n_lookups() -> None:
    random = Random(3)
    ids = sorted(Identifier(random.getrandbits(BITS)) for _ in range(1000))
    assert max(table_of(me, ids)[1] for me in ids[:50]) <= 2 * 10


@given(st.sets(points, min_size=3, max_size=40), st.data())
def test_without_a_dead_member_its_fingers_fall_to_the_next_known(ids: set[Identifier], data: st.DataObject) -> None:
    ordered = sorted(ids)
    me = ordered[0]
    table, _ = table_of(me, ordered)
    dead = data.draw(st.sampled_from(table.contacts()))
    left = table.without(dead)
    assert dead.id == me or dead not in left.contacts()
    for i in range(BITS):
        if table.finger(i) != dead:
            assert left.finger(i) == table.finger(i)


def test_an_empty_table_points_at_the_member_itself() -> None:
    me = contact(Identifier(7))
    assert FingerTable(me).finger(0) == FingerTable(me).finger(159) == me


def test_two_newcomers_at_once_get_different_places() -> None:
    grants, arc = Grants(valid_for=10), Arc(Identifier(0), Identifier(0))
    first = grants.grant(arc, RING, now=0)
    with pytest.raises(NotGranted) as refusal:
        grants.grant(arc, RING, now=1)
    assert int.from_bytes(refusal.value.args[1], "big") == RING // 2
    second, third = (grants.grant(arc, RING // 2, now=1) for _ in range(2))
    assert {first, second, third} == {Identifier(RING // 4 * n) for n in (1, 2, 3)}


def test_a_grant_nobody_used_runs_out() -> None:
    grants, arc = Grants(valid_for=10), Arc(Identifier(0), Identifier(0))
    assert grants.grant(arc, RING, now=0) == grants.grant(arc, RING, now=11)


@pytest.mark.parametrize("newcomers", [1, 7, 8, 63, 100])
def test_arcs_stay_within_a_factor_of_two(newcomers: int) -> None:
    """Newcomers that see the ring as it was a while ago still bisect a widest arc."""
    random = Random(newcomers)
    start = Identifier(random.getrandbits(BITS))
    members = [start]
    grants: dict[Identifier, Grants] = {}

    def arc_of(owner: Identifier) -> Arc:
        ordered = sorted(members)
        return Arc(ordered[ordered.index(owner) - 1], owner)

    async def admit(owner: Identifier, width: int) -> Identifier:
        return grants.setdefault(owner, Grants(valid_for=1e9)).grant(arc_of(owner), width, now=0)

    async def join_all() -> None:
        stale = {start: RING}
        for n in range(newcomers):
            surveys = iter([stale])

            async def survey(surveys: Iterator[dict[Identifier, int]] = surveys) -> dict[Identifier, int]:
                return next(surveys, None) or {m: arc_of(m).width for m in members}

            members.append(await bisect_widest(survey, admit, Random(1), 0.0))
            if n % 5 == 0:
                stale = {m: arc_of(m).width for m in members}

    asyncio.run(join_all())
    widths = [arc_of(m).width for m in members]
    assert len(set(members)) == newcomers + 1
    assert max(widths) <= 2 * min(widths)


def test_when_nobody_admits_it_says_so() -> None:
    async def admit(owner: Identifier, width: int) -> Identifier:
        raise NotGranted("no", (1).to_bytes(21, "big"))

    async def survey() -> dict[Identifier, int]:
        return {Identifier(1): 8}

    with pytest.raises(Unavailable, match="--id"):
        asyncio.run(bisect_widest(survey, admit, Random(1), 0.0))
