"""The exposed method `call` on the wire: what nodes and clients of a ring ask each other all the time.

Such a request, and an answer that is bytes, always look the same but for what they carry. They are written and read
here at once, not item by item; the messages are those that RPyC would write. Pure.
"""

from __future__ import annotations

from functools import lru_cache

from rpyc.core import brine, consts

from node.codec import Packed
from node.errors import BadValue
from node.remote.exposure import ROOT
from node.remote.framing import LARGE
from node.remote.plain import bytes_at, number_at

NAME = "call"
_PAIR = brine.TAG_TUP2
VALUE = _PAIR + brine.IMM_INTS[consts.LABEL_VALUE]
REQUEST, REPLY = (brine.I1.pack(kind) + _PAIR for kind in (consts.MSG_REQUEST, consts.MSG_REPLY))
_INTEGER: bytes = brine.TAG_INT_L1
_SEVERAL_DIGITS = max(brine.IMM_INTS) + 1
NO_KEYWORDS = brine.dump((consts.LABEL_VALUE, ()))
_HEAD = b"".join(
    (
        _PAIR + brine.IMM_INTS[consts.HANDLE_CALLATTR],
        _PAIR + brine.IMM_INTS[consts.LABEL_TUPLE] + brine.TAG_TUP4,
        brine.dump((consts.LABEL_LOCAL_REF, ROOT)),
        brine.dump((consts.LABEL_VALUE, NAME)),
        VALUE + _PAIR + brine.TAG_UNICODE,
    )
)
"""From the number of a request to the name of what a node is asked."""


@lru_cache(maxsize=256)
def _head(method: str) -> bytes:
    named: bytes = _HEAD + brine.dump(method.encode())
    return named


def package(method: str, payload: bytes) -> tuple[bytes, ...]:
    """What follows the number in the request that calls `call(method, payload)` of a node's root, in parts."""
    return (_head(method), *dumped(payload), NO_KEYWORDS)


def dumped(payload: bytes) -> tuple[bytes, ...]:
    """What brine makes of bytes, in parts: long ones are not copied."""
    size = len(payload)
    if size > 255:
        return brine.TAG_STR_L4 + brine.I4.pack(size), payload
    return (brine.TAG_STR_L1 + brine.I1.pack(size) + payload if size > 4 else brine.dump(payload),)


def dumped_number(seq: int) -> bytes:
    """What brine makes of the number of a request."""
    if seq >= _SEVERAL_DIGITS and len(digits := b"%d" % seq) < 256:
        return _INTEGER + bytes((len(digits),)) + digits
    number: bytes = brine.dump(seq)
    return number


def requested(message: bytes) -> tuple[int, str, bytes] | None:
    """(number, method, payload) if the message is such a request."""
    if not message.startswith(REQUEST):
        return None
    try:
        seq, at = number_at(message, len(REQUEST))
        if not message.startswith(_HEAD, at):
            return None
        method, at = bytes_at(message, at + len(_HEAD))
        payload, at = bytes_at(message, at)
        return (seq, method.decode(), payload) if message[at:] == NO_KEYWORDS else None
    except (BadValue, IndexError, ValueError):
        return None


def replied(message: bytes) -> tuple[int, Packed] | None:
    """(number, bytes) if the message is such an answer; where these are many, as a view of the message."""
    if not message.startswith(REPLY):
        return None
    try:
        seq, at = number_at(message, len(REPLY))
        if not message.startswith(VALUE, at):
            return None
        at += len(VALUE)
        payload: Packed
        payload, at = bytes_at(memoryview(message), at) if len(message) >= LARGE else bytes_at(message, at)
        return (seq, payload) if at == len(message) else None
    except (BadValue, IndexError, ValueError):
        return None
