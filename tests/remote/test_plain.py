"""Claims of the reader of brine: it agrees with RPyC's on plain values, refuses all others, and never takes long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpyc.core import brine

from node.errors import BadValue
from node.remote import plain

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.integers(-60, 170)
    | st.floats(allow_nan=False)
    | st.binary(max_size=300)
    | st.text(max_size=300)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6).map(tuple), max_leaves=20)


def exact(value: Any) -> Any:
    """The value with its types, so that 1, 1.0 and True differ."""
    return tuple(map(exact, value)) if type(value) is tuple else (type(value).__name__, value)


@given(values)
def test_reads_what_rpyc_writes(value: Any) -> None:
    assert exact(plain.read(b"x" + brine.dump(value), 1)) == exact(value)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 255, 256, 70_000])
def test_reads_every_size(size: int) -> None:
    for value in (b"b" * size, "t" * size, (None,) * size, ((),) * size):
        assert plain.read(brine.dump(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plain_value_or_refused(data: bytes) -> None:
    try:
        value = plain.read(data)
    except BadValue:
        return
    assert exact(brine.load(data)) == exact(value) or value != value


@given(values, st.data())
def test_a_value_cut_short_or_with_more_behind_it_is_refused(value: Any, data: st.DataObject) -> None:
    whole = brine.dump(value)
    with pytest.raises(BadValue):
        plain.read(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadValue):
        plain.read(whole + b"\x00")


@pytest.mark.parametrize("value", [slice(1, 2), frozenset([1]), 1j, ..., NotImplemented, (1, (..., 2))])
def test_what_is_not_plain_is_refused_and_what_to_send_is_said(value: Any) -> None:
    with pytest.raises(BadValue, match="send bytes, str, int"):
        plain.read(brine.dump(value))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BadValue, match="deep"):
        plain.read(brine.TAG_TUP1 * 1_000_000 + brine.TAG_NONE)


def test_millions_of_items_are_refused_before_they_are_made() -> None:
    with pytest.raises(BadValue, match="values in one message"):
        plain.read(brine.TAG_TUP_L4 + (4 << 28).to_bytes(4, "big") + bytes(100))
    inner = brine.dump((None,) * 250)
    with pytest.raises(BadValue, match="values in one message"):
        plain.read(brine.TAG_TUP_L4 + (20_000).to_bytes(4, "big") + inner * 20_000)


def test_an_integer_of_too_many_digits_is_refused() -> None:
    with pytest.raises(BadValue):
        plain.read(brine.TAG_INT_L4 + (5000).to_bytes(4, "big") + b"9" * 5000)


def test_the_number_of_a_request_is_read_from_its_first_bytes() -> None:
    for number in (0, 5, 159, 160, 10**12):
        message = brine.dump((number, (8, (1, (b"x" * 5000, ...)))))
        assert plain.first_of_pair(message[:40]) == number
    for other in (b"", b"\x11", brine.dump(5), brine.dump(((1, 2), 3)), b"\xff" * 40):
        with pytest.raises(BadValue):
            plain.first_of_pair(other)
