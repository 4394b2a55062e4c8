"""Reading brine, RPyC's encoding, when the writer may be hostile: plain values only, in bounded time and memory.

RPyC's own reader recurses, builds slices and frozensets, and lets 8 MB of one-byte items become a tuple that takes seconds
to make. This one is a loop with a stack, a largest depth and a largest number of items. Pure: bytes in, a value out.
Writing is left to RPyC.
"""

from __future__ import annotations

import struct
from typing import Any

from node.errors import BadValue

DEPTH = 64
"""Tuples inside one another."""
ITEMS = 262_144
"""Values in one message: at most 80 ms of work on the loop."""

NONE, EMPTY_BYTES, EMPTY_TUPLE, TRUE, FALSE, TEXT = 0x00, 0x01, 0x02, 0x03, 0x04, 0x08
BYTES_1, BYTES_4, BYTES_L1, BYTES_L4 = 0x0A, 0x0D, 0x0E, 0x0F
TUPLE_1, TUPLE_4, TUPLE_L1, TUPLE_L4 = 0x10, 0x13, 0x14, 0x15
INT_L1, INT_L4, FLOAT = 0x16, 0x17, 0x18
SMALLEST, LARGEST, ZERO = 0x20, 0xEF, 0x50
"""Tags that are small integers themselves: the tag less `ZERO`."""

_length = struct.Struct("!L").unpack_from
_float = struct.Struct("!d").unpack_from


def read(data: bytes, at: int = 0) -> Any:
    """The one value that `data` holds from `at` to its end. Raises BadValue for anything else."""
    try:
        value, end = _read(data, at)
    except (IndexError, struct.error, ValueError) as error:
        raise error if isinstance(error, BadValue) else BadValue(f"not a plain value: {error}") from None
    if end != len(data):
        raise BadValue("not a plain value: it ends too early or too late")
    return value


def first_of_pair(data: bytes, at: int = 0) -> Any:
    """The first item, no tuple, of a two-tuple of which the end may be missing or not plain. Raises BadValue."""
    try:
        if data[at] == TUPLE_1 + 1 and not TUPLE_1 <= data[at + 1] <= TUPLE_L4:
            return _read(data, at + 1)[0]
    except (IndexError, struct.error, ValueError):
        pass
    raise BadValue("no number of a request")


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends; a text or bytes cut short makes the end lie outside."""
    enclosing: list[tuple[list[Any], int]] = []
    items: list[Any] = []
    wanted = 1
    room = ITEMS
    while True:
        tag = data[at]
        at += 1
        if SMALLEST <= tag <= LARGEST:
            items.append(tag - ZERO)
        elif TUPLE_1 <= tag <= TUPLE_L4:
            if tag <= TUPLE_4:
                size = tag - TUPLE_1 + 1
            elif tag == TUPLE_L1:
                size = data[at]
                at += 1
            else:
                (size,) = _length(data, at)
                at += 4
            room -= size
            if room < 0:
                raise BadValue(f"more than {ITEMS} values in one message: send it in several")
            if len(enclosing) >= DEPTH:
                raise BadValue(f"nested more than {DEPTH} deep: flatten it")
            enclosing.append((items, wanted))
            items, wanted = [], size
        else:
            value, at = _scalar(data, at, tag)
            items.append(value)
        while len(items) == wanted:
            if not enclosing:
                return items[0], at
            whole = tuple(items)
            items, wanted = enclosing.pop()
            items.append(whole)


def _scalar(data: bytes, at: int, tag: int) -> tuple[Any, int]:
    """The value of a tag other than a tuple's or a small integer's."""
    text = tag == TEXT
    if text:
        tag = data[at]
        at += 1
    if BYTES_1 <= tag <= BYTES_L4 or tag in (INT_L1, INT_L4):
        if tag <= BYTES_4:
            size = tag - BYTES_1 + 1
        elif tag in (BYTES_L1, INT_L1):
            size = data[at]
            at += 1
        else:
            (size,) = _length(data, at)
            at += 4
        end = at + size
        found = data[at:end]
        if tag >= INT_L1:
            if text:
                raise BadValue("not a plain value: an integer as text")
            return int(found), end
        return (found.decode() if text else found), end
    if tag == EMPTY_BYTES:
        return ("" if text else b""), at
    if not text:
        if tag in CONSTANTS:
            return CONSTANTS[tag], at
        if tag == FLOAT:
            return _float(data, at)[0], at + 8
    raise BadValue(f"not a plain value (brine tag {tag:#04x}): send bytes, str, int, float, bool, None or a tuple of these")


CONSTANTS: dict[int, Any] = {NONE: None, EMPTY_TUPLE: (), TRUE: True, FALSE: False}
