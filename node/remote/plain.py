"""Reading brine, RPyC's encoding, when the writer may be hostile: plain values only, in bounded time and memory.

RPyC's own reader recurses, builds slices and frozensets, and lets 8 MB of one-byte items become a tuple that takes
seconds to make. This one is a loop with a stack, a largest depth and a largest number of items. Pure: bytes in, a value
out. Writing is left to RPyC.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

from rpyc.core import brine

from node.errors import BadValue

B = TypeVar("B", bytes, memoryview)

DEPTH = 64
"""Tuples inside one another."""
ITEMS = 262_144
"""Values in one message: at most 80 ms of work on the loop."""
WHAT_TO_SEND = "send bytes, str, int, float, bool, None or a tuple of these"

_VALUE, _BYTES, _TUPLE, _TEXT, _INT, _FLOAT, _REFUSED = range(7)
_ONE_BYTE, _FOUR_BYTES = -1, -4
"""In place of a size: it follows in one byte, or in four."""

_length = struct.Struct("!L").unpack_from
_float = struct.Struct("!d").unpack_from


def _tags() -> tuple[tuple[int, Any], ...]:
    """For each of the 256 tags what it begins, and its value or size."""
    tags: list[tuple[int, Any]] = [(_REFUSED, tag) for tag in range(256)]
    for value in (None, (), b"", True, False, *range(-0x30, 0xA0)):
        (tag,) = brine.dump(value)
        tags[tag] = (_VALUE, value)
    for size, bytes_tag, tuple_tag in (
        (1, brine.TAG_STR1, brine.TAG_TUP1),
        (2, brine.TAG_STR2, brine.TAG_TUP2),
        (3, brine.TAG_STR3, brine.TAG_TUP3),
        (4, brine.TAG_STR4, brine.TAG_TUP4),
        (_ONE_BYTE, brine.TAG_STR_L1, brine.TAG_TUP_L1),
        (_FOUR_BYTES, brine.TAG_STR_L4, brine.TAG_TUP_L4),
    ):
        tags[bytes_tag[0]] = (_BYTES, size)
        tags[tuple_tag[0]] = (_TUPLE, size)
    tags[brine.TAG_INT_L1[0]] = (_INT, _ONE_BYTE)
    tags[brine.TAG_INT_L4[0]] = (_INT, _FOUR_BYTES)
    tags[brine.TAG_FLOAT[0]] = (_FLOAT, 8)
    tags[brine.TAG_UNICODE[0]] = (_TEXT, None)
    return tuple(tags)


_TAGS = _tags()
_PAIR = brine.TAG_TUP2[0]


def read(data: bytes, at: int = 0) -> Any:
    """The one value that `data` holds from `at` to its end. Raises BadValue for anything else."""
    try:
        value, end = _read(data, at)
    except BadValue:
        raise
    except (IndexError, struct.error, ValueError) as error:
        raise BadValue(f"not a plain value: {error}") from None
    if end != len(data):
        raise BadValue("not a plain value: it ends too early or too late")
    return value


def first_of_pair(data: bytes, at: int = 0) -> Any:
    """The first item, no tuple, of a two-tuple of which the rest may be missing or not plain. Raises BadValue."""
    try:
        if data[at] == _PAIR and _TAGS[data[at + 1]][0] != _TUPLE:
            return _read(data, at + 1)[0]
    except (IndexError, struct.error, ValueError):
        pass
    raise BadValue("no number of a request")


def number_at(data: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at `at`, and where it ends. Raises BadValue, IndexError, ValueError if there is none."""
    kind, value = _TAGS[data[at]]
    if kind == _VALUE and type(value) is int:
        return value, at + 1
    if kind == _INT and value == _ONE_BYTE:
        end = at + 2 + data[at + 1]
        return int(data[at + 2 : end]), end
    raise BadValue("no number")


def bytes_at(data: B, at: int) -> tuple[B, int]:
    """The bytes that begin at `at`, and where they end; cut short, the end lies outside. Raises as `number_at` does."""
    kind, size = _TAGS[data[at]]
    at += 1
    if kind == _BYTES:
        if size == _FOUR_BYTES:
            size = int.from_bytes(data[at : at + 4], "big")
            at += 4
        elif size == _ONE_BYTE:
            size = data[at]
            at += 1
        return data[at : at + size], at + size
    if kind == _VALUE and size == b"":
        return data[:0], at
    raise BadValue("no bytes")


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends; a text or bytes cut short makes the end lie outside."""
    enclosing: list[tuple[list[Any], int]] = []
    items: list[Any] = []
    wanted = 1
    room = ITEMS
    while True:
        kind, value = _TAGS[data[at]]
        at += 1
        if kind != _VALUE:
            text = kind == _TEXT
            if text:
                kind, value = _TAGS[data[at]]
                at += 1
            if value == _ONE_BYTE:
                value = data[at]
                at += 1
            elif value == _FOUR_BYTES:
                (value,) = _length(data, at)
                at += 4
            if kind == _TUPLE and not text:
                room -= value
                if room < 0:
                    raise BadValue(f"more than {ITEMS} values in one message: send it in several")
                if len(enclosing) >= DEPTH:
                    raise BadValue(f"nested more than {DEPTH} deep: flatten it")
                if value:
                    enclosing.append((items, wanted))
                    items, wanted = [], value
                    continue
                value = ()
            elif kind == _BYTES:
                end = at + value
                value = data[at:end].decode() if text else data[at:end]
                at = end
            elif text:
                if value != b"" or kind != _VALUE:
                    raise BadValue("not a plain value: text of something else")
                value = ""
            elif kind == _INT:
                value, at = int(data[at : at + value]), at + value
            elif kind == _FLOAT:
                (value,) = _float(data, at)
                at += 8
            else:
                raise BadValue(f"not a plain value (brine tag {value:#04x}): {WHAT_TO_SEND}")
        items.append(value)
        while len(items) == wanted:
            if not enclosing:
                return items[0], at
            value = tuple(items)
            items, wanted = enclosing.pop()
            items.append(value)
