"""The short way of reading and writing what nodes ask each other comes to what the long way does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpyc.core import brine, consts

from node.errors import BadValue
from node.remote import relay
from node.remote.exposure import ROOT
from node.remote.plain import read

numbers = st.integers(-1000, 1000) | st.integers(0, 2**70)


def request(seq: Any, method: Any, payload: Any, named: Any = ()) -> bytes:
    """As RPyC writes it."""
    boxed = ((consts.LABEL_LOCAL_REF, ROOT), (1, "call"), (1, (method, payload)), (1, named))
    written: bytes = b"\x01" + brine.dump((seq, (consts.HANDLE_CALLATTR, (consts.LABEL_TUPLE, boxed))))
    return written


@given(numbers, st.text(max_size=300), st.binary(max_size=300))
def test_a_request_is_written_and_read_as_rpyc_does(seq: int, method: str, payload: bytes) -> None:
    message = request(seq, method, payload)
    assert b"".join((relay.REQUEST, brine.dump(seq), *relay.package(method, payload))) == message
    assert relay.requested(message) == (seq, method, payload)
    assert relay.replied(message) is None


@given(numbers, st.binary(max_size=300))
def test_bytes_are_written_as_brine_writes_them(seq: int, payload: bytes) -> None:
    for each in (payload, payload * seq if 0 < seq < 1000 else b""):
        assert b"".join(relay.dumped(each)) == brine.dump(each)


@given(numbers, st.binary(max_size=300))
def test_an_answer_is_read_as_rpyc_does(seq: int, payload: bytes) -> None:
    message = b"\x02" + brine.dump((seq, (consts.LABEL_VALUE, payload)))
    assert relay.replied(message) == (seq, payload)
    assert relay.requested(message) is None


@pytest.mark.parametrize(
    "message",
    [
        request(1, b"m", b""),
        request(1, "m", "text"),
        request(1, "m", b"", (("x", 1),)),
        request("1", "m", b""),
        request(True, "m", b""),
        request(1, "m", b"x") + b"\x00",
        request(1, "m", b"x")[:-1],
        b"\x02" + brine.dump((1, (1, "text"))),
        b"\x02" + brine.dump((1, (4, ROOT))),
        b"\x03" + brine.dump((1, (1, b""))),
        b"",
        b"\x01",
        b"\x02\x11",
    ],
    ids=repr,
)
def test_everything_else_is_left_to_the_long_way(message: bytes) -> None:
    assert relay.requested(message) is None
    assert relay.replied(message) is None


@given(st.binary(max_size=40), st.integers(0, 120), st.integers(0, 255))
def test_what_is_damaged_is_never_read_as_something_else(tail: bytes, at: int, byte: int) -> None:
    whole = bytearray(request(7, "chain.read", b"payload") + tail)
    whole[at % len(whole)] = byte
    for message in (bytes(whole), bytes(whole[: at % len(whole)])):
        found = relay.requested(message)
        if found is None:
            continue
        seq, (_, (_, (_, _, (_, arguments), _))) = read(message, 1)
        assert (seq, *arguments) == found


@given(st.binary(min_size=1, max_size=40))
def test_noise_is_read_as_the_long_way_reads_it(noise: bytes) -> None:
    for message in (relay.REPLY + noise, relay.REPLY + b"\x50\x11\x51" + noise):
        if (found := relay.replied(message)) is not None:
            assert read(message, 1) == (found[0], (1, found[1]))
        try:
            seq, (label, value) = read(message, 1)
        except (BadValue, TypeError, ValueError):
            continue
        if type(seq) is int and label == 1 and type(value) is bytes:
            assert found == (seq, value)


@pytest.mark.parametrize("number", [0, 7, 159, 160, 161, 12345, 10**20, 10**254, 10**255, 10**300, -1, -200])
def test_numbers_are_written_as_rpyc_would(number: int) -> None:
    assert relay.dumped_number(number) == brine.dump(number)
