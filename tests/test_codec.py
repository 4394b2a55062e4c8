"""What travels between nodes arrives as it was, and hostile bytes raise BadValue and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import errors
from node.chain.messages import Change, Pull
from node.chain.ring_map import Entry
from node.chord.messages import View
from node.codec import Address, Contact, Failure, error_of, failure_of, pack, unpack
from node.data import Stored
from node.errors import BadValue, Moved, RingError
from node.identifiers import Arc, Identifier, name_of

HERE = Contact(Identifier(2**159 + 7), Address("127.0.0.1", 18861))


@pytest.mark.parametrize(
    "message",
    [
        HERE,
        View(b"ring", HERE, None, (HERE, HERE)),
        Entry(Arc(Identifier(1), Identifier(2**160 - 1)), 3, (b"one", b"two")),
        Stored((1, 2), b"value"),
    ],
)
def test_a_message_comes_back_equal(message: Any) -> None:
    assert unpack(type(message), pack(message)) == message


@given(st.binary())
def test_hostile_bytes_are_a_bad_value(payload: bytes) -> None:
    for kind in (View, Contact, Entry, Stored):
        try:
            unpack(kind, payload)
        except BadValue:
            continue


@pytest.mark.parametrize("payload", [pack([b"short", ["h", 1]]), pack([5, ["h", 1]]), pack([b"x" * 21, ["h", 1]]), b""])
def test_an_id_is_twenty_bytes(payload: bytes) -> None:
    with pytest.raises(BadValue):
        unpack(Contact, payload)


@pytest.mark.parametrize(
    "name", [n for n, k in vars(errors).items() if isinstance(k, type) and issubclass(k, RingError)]
)
def test_every_error_travels_as_its_class(name: str) -> None:
    kind = getattr(errors, name)
    back = error_of(unpack(Failure, pack(failure_of(kind("what to do", 7)))))
    assert type(back) is kind and back.args == ("what to do", 7)


def test_a_moved_keeps_its_hint() -> None:
    back = error_of(unpack(Failure, pack(failure_of(Moved("elsewhere", ("h", 1))))))
    assert Address(*back.args[1]) == Address("h", 1)


def test_an_error_nobody_knows_is_still_a_ring_error() -> None:
    assert type(error_of(Failure("SystemExit", (3,)))) is RingError


def test_what_does_not_travel_is_refused() -> None:
    with pytest.raises(BadValue, match="does not travel"):
        pack(object())


def test_a_name_that_is_not_whole_is_no_name() -> None:
    whole = name_of(b"")
    assert unpack(Change, pack(Change(whole, b"body"))).name == whole
    with pytest.raises(BadValue):
        unpack(Change, pack((whole[:-1], b"body")))
    with pytest.raises(BadValue):
        unpack(Pull, pack((b"mirror", b"")))
