"""Keys and values keep what they are, and what is not stored is refused with what to send instead."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import BadValue
from node.settings import Settings
from node.values import key_of, pack_value, unpack_value

SETTINGS = Settings()
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
names = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63), st.binary())
values = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(names, inner)),
    max_leaves=20,
)


class Pair(NamedTuple):
    a: int


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


def same(a: Any, b: Any) -> bool:
    """Equal and of the same types all the way down (1 == True == 1.0 otherwise)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(type, a)) == list(map(type, b)) and a == b and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@given(values)
def test_a_value_comes_back_as_what_it_was(value: Any) -> None:
    assert same(unpack_value(pack_value(value, SETTINGS)), value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**4000, -(10**5000)], ids=["64", "-63", "4000", "5000"])
def test_integers_of_any_size(value: int) -> None:
    assert unpack_value(pack_value(value, SETTINGS)) == value


@pytest.mark.parametrize(
    "value", [Pair(1), Colour.RED, Text("x"), {1, 2}, object(), bytearray(b"x"), 1j, [Pair(1)], {"a": {1}}]
)
def test_a_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(BadValue, match="send"):
        pack_value(value, SETTINGS)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(BadValue):
        pack_value("\ud800", SETTINGS)
    with pytest.raises(BadValue):
        key_of("\ud800", SETTINGS)


def test_nesting_has_an_end() -> None:
    value: list[Any] = []
    for _ in range(1000):
        value = [value]
    with pytest.raises(BadValue, match="nested"):
        pack_value(value, SETTINGS)


def test_a_value_over_the_limit_is_refused_with_the_limit() -> None:
    assert len(pack_value(b"x" * (SETTINGS.max_value - 100), SETTINGS)) <= SETTINGS.max_value
    with pytest.raises(BadValue, match=str(SETTINGS.max_value)):
        pack_value(b"x" * SETTINGS.max_value, SETTINGS)


def test_one_key_in_three_spellings() -> None:
    assert key_of(1, SETTINGS) == key_of("1", SETTINGS) == key_of(b"1", SETTINGS) == b"1"
    assert key_of("grün", SETTINGS) == "grün".encode()


@pytest.mark.parametrize("key", [None, 1.0, True, ("a",), ["a"], Text("x"), Colour.RED, bytearray(b"k")])
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    with pytest.raises(BadValue, match="bytes, str or int"):
        key_of(key, SETTINGS)


def test_a_key_over_the_limit_is_refused() -> None:
    assert key_of("k" * SETTINGS.max_key, SETTINGS)
    for key in ("k" * (SETTINGS.max_key + 1), 10**SETTINGS.max_key, 1 << 200_000):
        with pytest.raises(BadValue):
            key_of(key, SETTINGS)


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", b"\xa2\xff\xfe", b"\x92\x01", b"\x01\x01", b"\xd4\x07x", b"\x91" * 5000]
)
def test_what_was_never_packed_is_refused_when_it_is_read(packed: bytes) -> None:
    with pytest.raises(BadValue, match="no value"):
        unpack_value(packed)
