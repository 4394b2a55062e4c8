"""Claims of the splitter: whatever the cuts, what was framed comes out; what nobody sends in good faith does not."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.remote.framing import LARGE, SMALL, Garbage, Splitter, TooLarge, frame
from tests.remote.ends import framed

MIB = 1024 * 1024


def taken(splitter: Splitter) -> list[bytes | TooLarge]:
    result = []
    while (payload := splitter.take()) is not None:
        result.append(payload)
    return result


def fed(splitter: Splitter, stream: bytes, step: int) -> list[bytes | TooLarge]:
    result = []
    for start in range(0, len(stream), step):
        splitter.feed(stream[start : start + step])
        result += taken(splitter)
    return result


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=12), st.integers(1, 400))
def test_what_was_framed_comes_out_however_it_is_cut(sent: list[tuple[bytes, bool]], step: int) -> None:
    stream = b"".join(framed(zlib.compress(payload), 1) if squeeze else frame(payload) for payload, squeeze in sent)
    splitter = Splitter(1000, 2000)
    assert fed(splitter, stream, step) == [payload for payload, _ in sent]
    assert not splitter.midway


@given(st.lists(st.binary(min_size=0, max_size=300), max_size=12), st.integers(1, 400))
def test_frames_over_the_limit_are_skipped_and_their_first_bytes_kept(sent: list[bytes], step: int) -> None:
    results = fed(Splitter(100, 1000), b"".join(map(frame, sent)), step)
    assert len(results) == len(sent)
    for payload, result in zip(sent, results, strict=True):
        assert result == (payload if len(payload) <= 100 else TooLarge(len(payload), payload[:64]))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_are_payloads_or_garbage(chunks: list[bytes]) -> None:
    splitter = Splitter(1000, 2000)
    try:
        for chunk in chunks:
            splitter.feed(chunk)
            taken(splitter)
    except Garbage:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff\x00",
        b"\x00\x00\x00\x01\x00xx",
        b"\x00\x00\x00\x01\x02x\n",
        framed(b"not zlib", 1),
        framed(zlib.compress(b"cut short" * 100)[:-8], 1),
        framed(zlib.compress(b"and more") + b"more", 1),
        b"\x00\x00\x07\x00\x00" + bytes(0x700) + b"x",
    ],
)
def test_garbage_is_told(stream: bytes) -> None:
    splitter = Splitter(1000, 2000)
    with pytest.raises(Garbage):
        for start in range(0, len(stream), 7):
            splitter.feed(stream[start : start + 7])
            taken(splitter)


def test_a_frame_beyond_the_largest_skip_is_garbage_at_its_header() -> None:
    splitter = Splitter(1000, 2000)
    splitter.feed(b"\x00\x00\x07\xd1\x00")
    with pytest.raises(Garbage):
        splitter.take()


def test_a_compressed_frame_that_inflates_beyond_the_limit_is_refused_in_flat_memory() -> None:
    bomb = framed(zlib.compress(b"\x01\x11\x57" + bytes(300 * MIB), 9), 1)
    splitter = Splitter(MIB, 2 * MIB)
    tracemalloc.start()
    splitter.feed(bomb)
    result = splitter.take()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(result, TooLarge)
    assert result.head.startswith(b"\x01\x11\x57")
    assert peak < 4 * MIB


def test_of_a_compressed_frame_over_the_limit_the_inflated_first_bytes_are_kept() -> None:
    payload = b"\x01\x11\x57" + b"".join(i.to_bytes(4, "big") for i in range(5000))
    stream = framed(zlib.compress(payload), 1) + frame(b"next")
    skipped, following = fed(Splitter(100, 100_000), stream, 999)
    assert isinstance(skipped, TooLarge)
    assert skipped.head == payload[:64]
    assert following == b"next"


def test_skipping_keeps_memory_flat() -> None:
    splitter = Splitter(MIB, 300 * MIB)
    chunk = bytes(MIB)
    tracemalloc.start()
    splitter.feed((200 * MIB).to_bytes(4, "big") + b"\x00")
    for _ in range(200):
        splitter.feed(chunk)
        assert splitter.take() is None
    splitter.feed(b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert splitter.take() == TooLarge(200 * MIB, bytes(64))
    assert peak < 4 * MIB
    assert not splitter.midway


def test_midway_is_between_the_first_and_the_last_byte_of_a_frame() -> None:
    splitter = Splitter(1000, 2000)
    stream = frame(b"abc")
    assert not splitter.midway
    for byte in stream[:-1]:
        splitter.feed(bytes([byte]))
        assert splitter.take() is None
        assert splitter.midway
    splitter.feed(stream[-1:])
    assert splitter.take() == b"abc"
    assert not splitter.midway


@pytest.mark.parametrize("piece", [1000, SMALL, LARGE - 1, LARGE + 6, 3 * LARGE])
@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 5 * LARGE + 3])
def test_large_frames_are_put_together_of_pieces_of_any_size(size: int, piece: int) -> None:
    payloads = [bytes([n]) * size for n in range(3)] + [b"small"]
    stream = b"".join(map(frame, payloads))
    splitter = Splitter(10 * LARGE, 10 * LARGE)
    found: list[bytes | TooLarge] = []
    for at in range(0, len(stream), piece):
        splitter.feed(stream[at : at + piece])
        found += iter(splitter.take, None)
        assert splitter.size == min(at + piece, len(stream)) - sum(len(frame(each)) for each in payloads[: len(found)])
    assert found == payloads
    assert not splitter.midway


def test_a_large_frame_without_its_end_is_garbage_and_a_forgotten_one_is_gone() -> None:
    splitter = Splitter(10 * LARGE, 10 * LARGE)
    torn = frame(bytes(2 * LARGE))[:-1] + b"x"
    splitter.feed(torn[:LARGE])
    assert splitter.take() is None
    splitter.feed(torn[LARGE:])
    with pytest.raises(Garbage):
        splitter.take()
    splitter.feed(frame(bytes(2 * LARGE))[:LARGE])
    assert splitter.take() is None
    assert splitter.midway
    splitter.forget()
    assert not splitter.midway
    assert not splitter.size


def test_a_large_frame_in_single_bytes_takes_no_more_memory_than_it_is_long() -> None:
    splitter = Splitter(10 * LARGE, 10 * LARGE)
    whole = frame(bytes(2 * LARGE))
    splitter.feed(whole[:10])
    assert splitter.take() is None
    tracemalloc.start()
    try:
        for n in range(10, len(whole) - 1):
            splitter.feed(whole[n : n + 1])
        assert tracemalloc.get_traced_memory()[1] < 4 * LARGE
    finally:
        tracemalloc.stop()
    splitter.feed(whole[-1:])
    assert splitter.take() == bytes(2 * LARGE)


def test_what_comes_before_a_large_frame_was_taken_stands_behind_it() -> None:
    splitter = Splitter(10 * LARGE, 10 * LARGE)
    first, second = bytes(2 * LARGE), b"x" * LARGE
    stream = frame(first)
    splitter.feed(stream[:100])
    assert splitter.take() is None
    splitter.feed(stream[100:])
    splitter.feed(frame(second)[:10])
    splitter.feed(frame(second)[10:])
    assert taken(splitter) == [first, second]


def test_what_was_taken_is_not_kept() -> None:
    splitter = Splitter(10 * LARGE, 10 * LARGE)
    splitter.feed(frame(bytes(1000)) * 50)
    assert len(taken(splitter)) == 50
    assert not splitter._buffer
