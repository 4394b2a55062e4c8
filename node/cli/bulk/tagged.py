"""Keys and values as JSON that loses nothing, the format of `ring dump`.

What JSON has is written as JSON: null, true, text, lists, objects with names of text, floats with a point or an
exponent, integers of up to 53 bits. Everything else is an object of one member, whose name is its tag:

    {"base64": "AP8="}                  bytes
    {"int": "9007199254740993"}         an integer of more than 53 bits; one of thousands of digits in hexadecimal, 0x..
    {"float": "nan"}                    nan, inf or -inf
    {"tuple": [1, 2]}                   a tuple
    {"dict": [[1, "a"], [2, "b"]]}      a dict with other names than text, or that looks like one of these five
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

EXACT = 1 << 53
"""Integers up to here are the same number in every program that reads JSON."""
LONG = 4096
"""Bits from which on an integer is written in hexadecimal: Python refuses to read very long decimals."""


def tagged(value: Any) -> Any:
    """A value as what JSON has."""
    kind = type(value)
    if value is None or kind in (str, bool):
        return value
    if kind is int:
        if -EXACT <= value <= EXACT:
            return value
        return {"int": str(value) if value.bit_length() < LONG else hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is bytes:
        return {"base64": base64.b64encode(value).decode()}
    if kind is list:
        return [tagged(item) for item in value]
    if kind is tuple:
        return {"tuple": [tagged(item) for item in value]}
    if all(type(name) is str for name in value) and not _is_tag(value):
        return {name: tagged(item) for name, item in value.items()}
    return {"dict": [[tagged(name), tagged(item)] for name, item in value.items()]}


def untagged(value: Any) -> Any:
    """The value again. Raises ValueError for a tag with something else in it."""
    if type(value) is list:
        return [untagged(item) for item in value]
    if type(value) is not dict:
        return value
    if not _is_tag(value):
        return {name: untagged(item) for name, item in value.items()}
    ((tag, content),) = value.items()
    try:
        return _READ[tag](content)
    except (TypeError, ValueError):
        raise ValueError(f"{json.dumps(value)[:80]} is no {tag} as `ring dump` writes it") from None


def _is_tag(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in _READ


def _of_kind(kind: type, content: Any) -> Any:
    if type(content) is not kind:
        raise TypeError
    return content


def _read_float(content: Any) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError
    return float(content)


_READ: dict[Any, Callable[[Any], Any]] = {
    "base64": lambda content: base64.b64decode(_of_kind(str, content), validate=True),
    "int": lambda content: int(_of_kind(str, content), 0),
    "float": _read_float,
    "tuple": lambda content: tuple(untagged(item) for item in _of_kind(list, content)),
    "dict": lambda content: {untagged(name): untagged(item) for name, item in _of_kind(list, content)},
}


def to_line(key: str | bytes, value: Any) -> str:
    """One line of a dump, without its end."""
    return json.dumps({"key": tagged(key), "value": tagged(value)}, ensure_ascii=False, allow_nan=False)


def read_json(text: str) -> Any:
    """What a line of JSON says. Raises ValueError if it is none, or names a number that cannot be kept as it is."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error.msg} at column {error.colno}") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number
