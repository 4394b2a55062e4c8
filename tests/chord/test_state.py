"""The transitions of a member's state, by the names they have in Zave's protocol."""

from __future__ import annotations

from node.chord.messages import View
from node.chord.state import MemberState
from node.codec import Address, Contact
from node.identifiers import Identifier


def member(n: int) -> Contact:
    return Contact(Identifier(n), Address("host", 1000 + n))


def view(me: int, predecessor: int | None, *successors: int) -> View:
    before = member(predecessor) if predecessor is not None else None
    return View(b"ring", member(me), before, tuple(map(member, successors)))


def state(me: int, predecessor: int | None, *successors: int, limit: int = 3) -> MemberState:
    before = member(predecessor) if predecessor is not None else None
    return MemberState(member(me), limit, before, tuple(map(member, successors)))


def ids(contacts: tuple[Contact, ...]) -> list[int]:
    return [int(contact.id) for contact in contacts]


def test_a_ring_of_one_follows_itself_and_owns_everything() -> None:
    alone = MemberState.alone(member(5), 3)
    assert alone.successor == member(5) and alone.arc is not None
    assert all(Identifier(point) in alone.arc for point in (0, 5, 6, 2**160 - 1))


def test_join_copies_the_whole_list_and_takes_m_as_predecessor() -> None:
    joined = MemberState.alone(member(15), 3).joined(view(10, 5, 20, 30, 40))
    assert ids(joined.successors) == [20, 30, 40] and joined.predecessor == member(10)


def test_joining_a_ring_of_one_makes_it_the_successor() -> None:
    joined = MemberState.alone(member(15), 3).joined(view(10, 10))
    assert ids(joined.successors) == [10] and joined.predecessor == member(10)


def test_a_rejoining_member_does_not_follow_its_former_self() -> None:
    assert ids(MemberState.alone(member(20), 3).joined(view(10, 5, 20, 30, 40)).successors) == [30, 40]


def test_stabilize_from_successor_takes_its_list_less_the_last() -> None:
    assert ids(state(10, 5, 20, 30, 35).stabilized(view(20, 10, 30, 40, 50)).successors) == [20, 30, 40]


def test_a_list_ends_before_it_comes_around() -> None:
    assert ids(state(10, 30, 20, limit=8).stabilized(view(20, 10, 30, 10)).successors) == [20, 30]


def test_the_view_of_a_former_successor_changes_nothing() -> None:
    before = state(10, 5, 15, 20, 30)
    assert before.stabilized(view(20, 10, 30, 40, 50)) is before


def test_stabilize_from_predecessor_adopts_only_between_me_and_my_successor() -> None:
    before = state(10, 5, 20, 30, 40)
    assert ids(before.adopted(view(15, 10, 20, 30, 40)).successors) == [15, 20, 30]
    assert before.adopted(view(25, 20, 30, 40, 50)) is before
    assert before.adopted(view(20, 10, 30, 40, 50)) is before


def test_anyone_is_between_a_lonely_member_and_itself() -> None:
    assert ids(MemberState.alone(member(10), 3).adopted(view(99, 10, 10)).successors) == [99]


def test_dropping_the_dead_head_moves_to_the_next() -> None:
    assert ids(state(10, 5, 20, 30, 40).dropped(member(20)).successors) == [30, 40]


def test_rectify_adopts_a_closer_predecessor() -> None:
    assert state(10, 5, 20).rectified(member(7)).predecessor == member(7)


def test_rectify_keeps_a_closer_predecessor_that_lives() -> None:
    assert state(10, 7, 20).rectified(member(5)).predecessor == member(7)


def test_rectify_takes_any_candidate_when_the_predecessor_is_dead() -> None:
    assert state(10, 7, 20).rectified(member(5), dead=member(7)).predecessor == member(5)


def test_a_verdict_on_a_former_predecessor_does_not_count() -> None:
    assert state(10, 8, 20).rectified(member(5), dead=member(7)).predecessor == member(8)


def test_the_last_survivor_becomes_its_own_predecessor() -> None:
    assert state(10, 7).rectified(member(10), dead=member(7)).predecessor == member(10)
    assert state(10, 7).rectified(member(10)).predecessor == member(7)


def test_a_restarted_predecessor_is_known_by_its_new_address() -> None:
    moved = Contact(Identifier(7), Address("elsewhere", 1))
    assert state(10, 7, 20).rectified(moved).predecessor == moved


def test_owners_are_told_of_the_own_arc_and_the_next_not_from_the_rest_of_the_list() -> None:
    here = state(10, 5, 20, 30, 40)
    assert ids(here.owners(Identifier(7))) == [10, 20, 30]
    assert ids(here.owners(Identifier(20))) == [20, 30, 40]
    assert here.owners(Identifier(21)) == here.owners(Identifier(41)) == ()


def test_who_precedes_the_owner_of_a_small_ring_is_the_last_to_follow_it() -> None:
    assert ids(state(10, 20, 20).owners(Identifier(20))) == [20, 10]
    assert ids(state(20, 10, 10).owners(Identifier(20))) == [20, 10]


def test_preceding_names_the_closest_first() -> None:
    here = state(10, 5, 20, 30)
    known = [member(100), member(200), member(300)]
    assert ids(tuple(here.preceding(Identifier(250), known))) == [200, 100, 30, 20]
