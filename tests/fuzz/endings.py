"""How hostile peers end: with what costs them their connection, or in the middle of a word; and what strangers say who
get no further than TLS."""

from __future__ import annotations

import contextlib
import ssl
import struct
import zlib
from collections.abc import Callable
from random import Random

from rpyc.core import brine, consts

from node.trust.contexts import Credentials, client_context
from tests.fuzz.requests import boxed
from tests.fuzz.values import broken_brine, value
from tests.remote.ends import framed

HELLO = b"\x16\x03\x01"
"""A TLS record with a handshake message begins so."""


def _head(length: int, flag: int) -> bytes:
    return struct.pack("!LB", length, flag)


def _request(seq: bytes) -> bytes:
    return framed(b"\x01" + brine.TAG_TUP2 + seq + boxed(consts.HANDLE_PING, (1, ("x",))))


FATAL: dict[str, Callable[[Random], bytes]] = {
    "http": lambda random: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls hello": lambda random: HELLO + b"\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(508),
    "four gigabytes": lambda random: _head(2**32 - 1, random.randrange(2)) + random.randbytes(100),
    "too much to skip": lambda random: _head(random.randrange(256 * 2**20 + 1, 2**32), 0) + b"x" * 100,
    "flag": lambda random: _head(20, random.randrange(2, 256)) + b"x" * 21,
    "no newline": lambda random: framed(b"\x01" + brine.dump((1, (1, (1, ("x",))))))[:-1] + b"x" * 9,
    "shorter than said": lambda random: _head(4, 0) + random.randbytes(4) + b"\0" * 10,
    "compressed garbage": lambda random: framed(b"\xff" + random.randbytes(random.randrange(200)), 1),
    "compressed and cut": lambda random: framed(zlib.compress(b"\x01" + random.randbytes(500))[:-9], 1),
    "compressed and more": lambda random: framed(zlib.compress(b"\x01" + brine.dump((1, 2))) + b"more", 1),
    "bomb without a number": lambda random: framed(zlib.compress(bytes(9 << 20)), 1),
    "empty": lambda random: framed(b""),
    "bare kind": lambda random: framed(random.choice((b"\x01", b"\x02", b"\x03"))),
    "kind": lambda random: framed(bytes([random.choice((0, 4, 7, 255))]) + brine.dump((1, value(random)))),
    "number is none": lambda random: _request(brine.dump(random.choice((None, True, "1", b"1", 1.0, (1,), ())))),
    "number is broken": lambda random: framed(
        b"\x01" + brine.TAG_TUP2 + brine.TAG_INT_L4 + b"\0\0\x20\0" + b"9" * 8192
    ),
    "no pair": lambda random: framed(b"\x01" + random.choice((brine.dump(5), brine.dump((1, 2, 3)), b"\x7f\x7f"))),
    "answer that is broken": lambda random: framed(b"\x02" + broken_brine(random)) + framed(b"\x02"),
    "close": lambda random: framed(b"\x01" + brine.dump((1, (consts.HANDLE_CLOSE, (1, ()))))),
}
"""What ends the connection that it comes on, by name."""


def half(random: Random) -> bytes:
    """The beginning of a frame."""
    whole = framed(b"\x01" + brine.dump((1, (1, (1, ("x" * random.choice((10, 1000, 100_000)),))))))
    return whole[: random.randrange(1, len(whole) - 1)]


# -- instead of a handshake ------------------------------------------------------------------------------------------


def client_hello(context: ssl.SSLContext) -> bytes:
    """What a client of TLS says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(incoming, outgoing, server_hostname=None)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


def _record(kind: int, content: bytes, version: bytes = b"\x03\x03") -> bytes:
    return bytes([kind]) + version + struct.pack("!H", len(content)) + content


def handshakes(hello: bytes) -> dict[str, Callable[[Random], bytes]]:
    """What comes on a TLS port in place of a handshake, by name."""
    return {
        "plain RPyC": lambda random: framed(b"\x01" + brine.dump((1, (consts.HANDLE_GETROOT, (1, ()))))) * 5,
        "random": lambda random: random.randbytes(random.randrange(1, 300)),
        "http": lambda random: b"GET / HTTP/1.1\r\n\r\n",
        "nothing": lambda random: b"",
        "hello, cut": lambda random: hello[: random.randrange(1, len(hello))],
        "hello, twice": lambda random: hello * 2,
        "hello, flipped": lambda random: _flip(random, hello),
        "hello, then garbage": lambda random: hello + random.randbytes(50),
        "hello, then requests": lambda random: hello + framed(b"\x01" + brine.dump((1, (3, (1, ()))))),
        "hello request": lambda random: hello + _record(22, b"\0\0\0\0"),
        "change of cipher": lambda random: _record(20, b"\x01") * random.choice((1, 40)),
        "alerts": lambda random: _record(21, b"\x01\x00") * random.choice((1, 40)),
        "application data": lambda random: _record(23, random.randbytes(100)),
        "heartbeat": lambda random: _record(24, b"\x01\xff\xff" + b"x" * 20),
        "length that lies": lambda random: HELLO + b"\xff\xff" + random.randbytes(200),
        "empty records": lambda random: _record(22, b"") * 50,
        "finished at once": lambda random: hello + _record(20, b"\x01") + _record(23, random.randbytes(60)),
        "ssl 3": lambda random: _record(22, hello[5:], b"\x03\x00"),
    }


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 3, 20))):
        changed[random.randrange(5, len(changed))] = random.randrange(256)
    return bytes(changed)


def trusting(credentials: Credentials | None = None) -> ssl.SSLContext:
    """A context that takes any server, and shows these credentials."""
    context = client_context(credentials) if credentials is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
