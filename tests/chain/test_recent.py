"""The latest part of a history, over splits and merges of its arc."""

from __future__ import annotations

from node.chain.messages import Change, Command, Outcome
from node.chain.recent import AT_LEAST, KEPT, Recent
from node.identifiers import Arc, Identifier, name_at, position_of

WHOLE = Arc(Identifier(0), Identifier(100))
HERE, THERE = WHOLE.split(Identifier(50))


def command(sequence: int, *positions: int) -> Command:
    changes = tuple(Change(name_at(Identifier(position), b"%d" % position), b"") for position in positions)
    return Command((1, sequence), None, changes, Outcome())


def told(recent: Recent, arc: Arc, after: int, upto: int = 99) -> list[tuple[int, int]]:
    events = recent.after(arc, (1, after), (1, upto))
    return sorted((version[1], int(position_of(change.name))) for version, change in events)


def test_what_came_after_is_told_by_arc() -> None:
    recent = Recent([(WHOLE, (1, 0))])
    for sequence, position in ((1, 10), (2, 60), (3, 20), (4, 70)):
        recent.add(command(sequence, position), 10)
    assert told(recent, WHOLE, 1) == [(2, 60), (3, 20), (4, 70)]
    assert told(recent, HERE, 1) == [(3, 20)]
    assert told(recent, THERE, 1, upto=3) == [(2, 60)]


def test_parts_that_are_joined_again_tell_everything_once() -> None:
    recent = Recent([(WHOLE, (1, 0))])
    recent.add(command(1, 10, 60), 10)
    recent.add(command(2, 20), 10)
    here, there = recent.part(HERE), recent.part(THERE)
    here.add(command(3, 30), 10)
    there.add(command(3, 80), 10)
    joined = Recent.joined([here, there])
    assert told(joined, WHOLE, 0) == [(1, 10), (1, 60), (2, 20), (3, 30), (3, 80)]


def test_what_was_dropped_is_known_to_be_lacking() -> None:
    recent = Recent([(WHOLE, (1, 0))])
    for sequence in range(1, AT_LEAST + 3):
        recent.add(command(sequence, 10), KEPT)
    assert not recent.knows(WHOLE, (1, 1))
    assert recent.knows(WHOLE, (1, 2))
    assert told(recent, WHOLE, 2) == [(sequence, 10) for sequence in range(3, AT_LEAST + 3)]
