"""What hostile messages are made of: names, values, brine that lies, questions of nodes with a wrong part. All of it is
drawn from a `Random`, so that one seed gives one attack."""

from __future__ import annotations

import struct
import types
import typing
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from rpyc.core import brine

from node.identifiers import Arc, Identifier

KIB, MIB = 1024, 1024 * 1024

LOOKALIKES = ("gеt", "ｇｅｔ", "get\u200b", "get\0", " get", "GET", "gét", "ge\u0301t", "get()", "get.__call__", "ɡet")
UNEXPOSED = (
    "__class__", "__init__", "__dict__", "__doc__", "__module__", "__globals__", "__getattribute__", "__reduce_ex__",
    "__subclasses__", "__self__", "__func__", "__code__", "__call__", "__await__", "__builtins__", "__import__",
    "_node", "_depart", "_operations", "_commons", "_guard", "_private", "_within_operation", "_exposure",
    "node", "settings", "mro", "gi_frame", "cr_frame", "exposed_", "exposed_exposed_get", "exposed_get.__globals__",
    "exposed___class__", "exposed__node", "get.__self__", "rpyc_get", "on_connect", "on_disconnect", "", ".", "\0",
    *LOOKALIKES,
)  # fmt: skip
"""Names under which nothing may be found."""
REDUCERS = (b"cos\nsystem\n(S'touch %s'\ntR.", b"\x80\x04\x95", b"\x80\x05cbuiltins\neval\n")
"""Pickles that would touch a file."""


def text(random: Random, most: int = 40) -> str:
    """Of all planes, but without surrogates, which UTF-8 has not."""
    points = (random.choice((random.randrange(0x80), random.randrange(0xD800), random.randrange(0xE000, 0x110000)))
              for _ in range(random.randrange(most)))  # fmt: skip
    return "".join(map(chr, points))


def integer(random: Random) -> int:
    """Often at an edge, sometimes as long as one can be on the wire."""
    if random.random() < 0.05:
        return int("-9"[random.random() < 0.5 :] + "9" * random.choice((18, 30, 309, 4000, 4298)))
    edge = 1 << random.choice((0, 1, 7, 8, 15, 16, 31, 32, 53, 63, 64, 128, 160))
    return random.choice((1, -1)) * (edge + random.randrange(-2, 3))


def scalar(random: Random) -> Any:
    """A plain value without parts."""
    return random.choice(_SCALARS)(random)


def value(random: Random, depth: int = 4) -> Any:
    """Any plain value, most often a small one."""
    if depth and random.random() < 0.25:
        return tuple(value(random, depth - 1) for _ in range(random.randrange(5)))
    return scalar(random)


def nested(depth: int, inside: Any = None) -> Any:
    """A tuple in a tuple in a tuple."""
    for _ in range(depth):
        inside = (inside,)
    return inside


def unexposed(random: Random) -> Any:
    """A name, or what stands in place of one, under which nothing is exposed."""
    if random.random() < 0.8:
        return random.choice(UNEXPOSED)
    made = random.choice((b"get", b"exposed_get", 8, None, ("get",), "get" * 2000, value(random), "_" + text(random)))
    return "_get" if made == "get" else made


_SCALARS: tuple[Callable[[Random], Any], ...] = (
    integer,
    text,
    lambda random: random.randbytes(random.randrange(40)),
    lambda random: random.choice((None, True, False, (), b"", "")),
    lambda random: random.choice((float("nan"), float("inf"), -0.0, 5e-324, 1.7e308, -1.0, 0.1)),
    lambda random: random.choice(UNEXPOSED),
    lambda random: random.choice(("127.0.0.1", "localhost", "0.0.0.0", "::1", "999.1.1.1", "a\0b", "x." * 200, "-")),
    lambda random: random.choice((b"\xc1rpychord/standing", b"\xc1rpychord/enrolled/x", b"\xff" * 20, *REDUCERS)),
)


# -- brine that no honest writer makes -------------------------------------------------------------------------------

L4 = struct.Struct("!L").pack


def broken_brine(random: Random) -> bytes:
    """No value at all, or none that is plain."""
    return random.choice(_BROKEN)(random)


_BROKEN: tuple[Callable[[Random], bytes], ...] = (
    lambda random: brine.TAG_TUP1 * random.choice((65, 100, 1000, 20_000)) + brine.TAG_NONE,
    lambda random: (brine.TAG_TUP_L1 + b"\x01") * random.choice((65, 3000)) + brine.TAG_NONE,
    lambda random: brine.TAG_TUP_L4 + L4(random.choice((2**32 - 1, 2**31, 262_145, 5))) + brine.TAG_NONE,
    lambda random: brine.TAG_STR_L4 + L4(random.choice((2**32 - 1, 2**31, 9))) + b"12345",
    lambda random: brine.TAG_INT_L4 + L4(5000) + b"9" * 5000,
    lambda random: brine.TAG_INT_L4 + L4(2**32 - 1) + b"9",
    lambda random: brine.TAG_INT_L1 + b"\x04" + random.choice((b"0x1f", b"1e99", b"--12", b"nan ", b"\xff\xfe\0\0")),
    lambda random: brine.TAG_FLOAT + b"\0" * 7,
    lambda random: brine.TAG_UNICODE + brine.TAG_STR2 + random.choice((b"\xff\xfe", b"\xc0\x80", b"\xed\xa0")),
    lambda random: brine.TAG_UNICODE * random.choice((2, 3, 1000)) + brine.TAG_STR1 + b"a",
    lambda random: brine.TAG_UNICODE + random.choice((brine.TAG_TUP1, brine.TAG_NONE, brine.TAG_INT_L1)) + b"\x01a",
    lambda random: random.choice((brine.dump(slice(1, 2, 3)), brine.dump(frozenset([1])), brine.dump(1j))),
    lambda random: brine.dump(random.choice((Ellipsis, NotImplemented, (1, (Ellipsis,))))),
    lambda random: bytes([random.choice(_UNUSED_TAGS)]) + random.randbytes(4),
    lambda random: b"",
    lambda random: brine.dump(value(random)) + random.randbytes(random.randrange(1, 9)),
    lambda random: brine.TAG_TUP4 + brine.dump(random.randrange(1000)),
    lambda random: brine.TAG_TUP_L4 + L4(262_145) + brine.TAG_EMPTY_TUPLE * 262_145,
)
_UNUSED_TAGS = [tag for tag in range(256) if bytes([tag]) not in (*brine.IMM_INTS.values(), *(
    getattr(brine, name) for name in vars(brine) if name.startswith("TAG_")))]  # fmt: skip


# -- what nodes ask each other ---------------------------------------------------------------------------------------


def question(random: Random, kind: Any, wrong: float) -> Any:
    """Something of the shape of a message of this kind, as msgpack has it; each part of it is something else with the
    probability `wrong`."""
    if random.random() < wrong:
        return _listed(value(random, 2))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [question(random, field.type, wrong) for field in msgspec.structs.fields(kind)]
    if kind is Arc:
        return [question(random, Identifier, wrong), question(random, Identifier, wrong)]
    if origin is tuple:
        parts = arguments[:1] * random.randrange(4) if arguments[-1:] == (Ellipsis,) else arguments
        return [question(random, part, wrong) for part in parts]
    if origin in (types.UnionType, typing.Union):
        return question(random, random.choice(arguments), wrong)
    return _ATOMS.get(kind, lambda random: None)(random)


def _listed(made: Any) -> Any:
    """As msgpack takes it."""
    if type(made) is tuple:
        return [_listed(item) for item in made]
    return made if type(made) is not int or -(1 << 63) <= made < 1 << 64 else -1


_ATOMS: dict[Any, Callable[[Random], Any]] = {
    Identifier: lambda random: random.choice((random.randbytes(20), bytes(20), b"\xff" * 20)),
    bytes: lambda random: random.choice((b"", b"hostile %d" % random.randrange(50), random.randbytes(8), b"k" * 5000)),
    int: lambda random: random.choice((0, 1, -1, 2**31, 2**63, 2**64 - 1, -(2**63), random.randrange(100))),
    float: lambda random: random.choice((0.0, -1.0, 0.001, float("nan"), float("inf"), -float("inf"), 1e308)),
    str: text,
    bool: lambda random: random.random() < 0.5,
}
