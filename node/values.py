"""Keys and values as people hand them in, and as they are stored.

A key is bytes; text is its UTF-8, an integer its decimal digits, so `1` and `"1"` are one key. Values keep their type:
bytes, str, int, float, bool, None, and lists, tuples and dicts of these. Types are checked exactly, not by isinstance:
what arrives from the network may pretend.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from node.errors import BadValue, shown
from node.settings import Settings

SYSTEM = b"\xc1rpychord/"
"""Keys that begin so are the ring's own. No text does: the first byte occurs in no UTF-8."""
_AS_THEY_ARE = frozenset((bytes, str, float, bool, type(None)))
"""Types that msgpack has."""
_BIG_INTEGER = 1
_TUPLE = 2
DEPTH = 64
"""Lists, tuples and dicts inside one another."""


def key_of(key: Any, settings: Settings) -> bytes:
    """The bytes of a key. Raises BadValue for another type, for one longer than `settings.max_key`, for text that is
    not Unicode, for one of the ring's own."""
    kind = type(key)
    if kind is str:
        try:
            key = key.encode()
        except UnicodeEncodeError:
            raise BadValue(f"key {shown(key)} has a lone surrogate: send valid text or bytes") from None
    elif kind is int:
        if key.bit_length() > 8 * settings.max_key:
            raise BadValue(f"an integer key has at most {settings.max_key} digits")
        key = str(key).encode()
    elif kind is not bytes:
        raise BadValue(f"a key is bytes, str or int, not {kind.__name__}: send one of these")
    if len(key) > settings.max_key:
        raise BadValue(f"the key is {len(key)} bytes long: send at most {settings.max_key}")
    if key.startswith(SYSTEM):
        raise BadValue(f"keys that begin with {SYSTEM!r} are the ring's own: take another")
    result: bytes = key
    return result


def _outgoing(value: Any, depth: int) -> Any:
    """The value with what msgpack lacks put into extensions; refuses everything that is not a plain value."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is int:
        if -(1 << 63) <= value < 1 << 64:
            return value
        return msgspec.msgpack.Ext(_BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if depth >= DEPTH:
        raise BadValue(f"the value is nested more than {DEPTH} deep: flatten it")
    if kind is list:
        return [_outgoing(item, depth + 1) for item in value]
    if kind is tuple:
        items = [_outgoing(item, depth + 1) for item in value]
        return msgspec.msgpack.Ext(_TUPLE, msgspec.msgpack.encode(items))
    if kind is dict:
        return {_outgoing(name, depth + 1): _outgoing(item, depth + 1) for name, item in value.items()}
    raise BadValue(
        f"a value of type {kind.__name__} is not stored: send bytes, str, int, float, bool, None, "
        "or lists, tuples and dicts of these"
    )


def _incoming(code: int, content: memoryview) -> Any:
    if code == _BIG_INTEGER:
        return int.from_bytes(content, "big", signed=True)
    if code == _TUPLE:
        return tuple(_decoder.decode(content))
    raise ValueError(f"extension {code}")


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(ext_hook=_incoming)


def pack_value(value: Any, settings: Settings) -> bytes:
    """The stored form. Raises BadValue for a type that is not stored or more than `settings.max_value` bytes."""
    try:
        packed = _encode(value if type(value) in _AS_THEY_ARE else _outgoing(value, 0))
    except (UnicodeEncodeError, TypeError) as error:
        raise BadValue(f"the value cannot be stored: {error}: send valid text, or bytes") from None
    if len(packed) > settings.max_value:
        raise BadValue(f"the value is {len(packed)} bytes long: send at most {settings.max_value}, in parts")
    return packed


def unpack_value(packed: bytes) -> Any:
    """The value again, each part of the type it had. Raises BadValue for what `pack_value` never made: a client that
    writes packed values may have stored anything."""
    try:
        return _decoder.decode(packed)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"what is stored here is no value ({error}): put another in its place, or delete it") from None


def check_sizes(pairs: Iterable[tuple[bytes, bytes | None]], settings: Settings) -> int:
    """Bytes of all of these. Raises BadValue for a key or a packed value larger than those that are stored."""
    max_key, max_value = settings.max_key, settings.max_value
    whole = 0
    for key, value in pairs:
        key_size, value_size = len(key), len(value) if value else 0
        if key_size > max_key or value_size > max_value:
            sizes = f"a key of {key_size} bytes and a value of {value_size}"
            raise BadValue(f"{sizes}: send at most {max_key} and {max_value}")
        whole += key_size + value_size
    return whole


def readable(key: bytes) -> str | bytes:
    """A key as text where it is text."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
