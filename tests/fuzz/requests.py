"""Requests that a node must answer or refuse while the connection lives on. Each says by what kind of thing it may be
answered: `judge` in `oracle` holds the node to that."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache, cached_property
from itertools import accumulate
from random import Random
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rpyc.core import brine, consts

from node.chain import messages as chain
from node.chain import salvage
from node.chord import messages as chord
from node.errors import BadValue
from node.eventual import messages as eventual
from node.register import messages as register
from node.remote import plain
from node.remote.pool import CLIENT_METHODS
from node.remote.service import RingService
from node.remote.trusted import ClientService, TokenService
from node.replication import messages as replication
from node.transport import Method
from node.trust.certificates import Request
from tests.fuzz.values import MIB, broken_brine, integer, nested, question, scalar, unexposed, value
from tests.remote.ends import ROOT_PACK, framed

ROOT = (consts.LABEL_LOCAL_REF, ROOT_PACK)
VALUE, TUPLE, LOCAL, REMOTE = (
    consts.LABEL_VALUE,
    consts.LABEL_TUPLE,
    consts.LABEL_LOCAL_REF,
    consts.LABEL_REMOTE_REF,
)
CALL, CALLATTR, GETATTR = consts.HANDLE_CALL, consts.HANDLE_CALLATTR, consts.HANDLE_GETATTR
OPEN = {"PING", "CLOSE", "GETROOT", "GETATTR", "CALL", "CALLATTR", "DEL", "INSPECT"}
CLOSED = [getattr(consts, name) for name in dir(consts) if name.startswith("HANDLE_") and name[7:] not in OPEN]
METHODS = {
    method.name: method
    for module in (chain, salvage, chord, eventual, register, replication)
    for method in vars(module).values()
    if isinstance(method, Method)
}
"""What nodes ask each other."""


class May(Flag):
    """What may come of a message."""

    ANSWER = auto()
    """A plain value."""
    REFUSAL = auto()
    """An error that names what was wrong."""
    METHOD = auto()
    """A reference to an exposed method."""
    THE_ROOT = auto()
    """The reference to the root object."""
    END = auto()
    """The end of the connection."""


NOTHING = May(0)
EITHER = May.ANSWER | May.REFUSAL


@dataclass(frozen=True, slots=True)
class Message:
    """One hostile message: a whole frame, and the number under which something is to come back."""

    kind: str
    frame: bytes
    seq: int
    may: May


@dataclass(frozen=True)
class Rights:
    """What an attacker was let in with."""

    name: str
    service: type

    @cached_property
    def exposed(self) -> list[str]:
        """The exposed methods, as they are numbered."""
        return [name.removeprefix("exposed_") for name in dir(self.service) if name.startswith("exposed_")]

    @cached_property
    def methods(self) -> list[str]:
        """Those of them that are called: not the one that ends a node, as it should."""
        return [name for name in self.exposed if name != "depart"]

    def number(self, name: str) -> int:
        """In the reference to a method."""
        return self.exposed.index(name) + 1


OPEN_RING = Rights("nobody in particular, in an open ring", RingService)
CLIENT = Rights("the certificate of a client", ClientService)
BEARER = Rights("a token", TokenService)

SLOW = frozenset(["verify", "force_repair", "connect", "update_numbers", "update_finger_table", "get_node", "enroll"])
"""Methods that are much work: asked seldom, or the attack would be no more than load."""
Made = tuple[bytes, May]
"""The body of a request, that is a handler and its boxed arguments, in brine; and what may come of it."""


def boxed(handler: Any, package: Any) -> bytes:
    return brine.dump((handler, package))


def of(handler: Any, *arguments: Any) -> bytes:
    """A request for a handler with arguments that are boxed already."""
    return boxed(handler, (TUPLE, arguments))


def method_pack(random: Random, rights: Rights) -> tuple[str, int, int]:
    return ("builtins.method", 2, random.randrange(1, len(rights.exposed) + 1))


# -- kinds -----------------------------------------------------------------------------------------------------------


def control(random: Random, rights: Rights) -> Made:
    """What is not hostile, as a check of the checks."""
    name = random.choice(rights.methods)
    made = (
        (boxed(consts.HANDLE_PING, (VALUE, (random.choice(("x", b"y" * 1000)),))), May.ANSWER),
        (boxed(consts.HANDLE_GETROOT, (VALUE, ())), May.THE_ROOT),
        (of(GETATTR, ROOT, (VALUE, random.choice((name, "exposed_" + name)))), May.METHOD),
        (of(consts.HANDLE_INSPECT, (VALUE, ROOT_PACK)), May.ANSWER),
        (of(consts.HANDLE_DEL, ROOT, (VALUE, random.choice((1, 10**9, -1)))), May.ANSWER),
    )
    return random.choice(made)


def closed_handler(random: Random, rights: Rights) -> Made:
    """A handler of RPyC's that is not open, with arguments that would do harm, or none there is."""
    handler: Any = random.choice(CLOSED)
    if random.random() < 0.2:
        handler = random.choice((0, 21, -1, 255, 10**30, True, "8", b"8", None, 8.0, (8,)))
    name, target = unexposed(random), random.choice((ROOT, (LOCAL, method_pack(random, rights)), (VALUE, "x")))
    if random.random() < 0.2:
        return boxed(handler, (VALUE, value(random))), May.REFUSAL
    others = random.sample([(VALUE, name), (VALUE, value(random)), (VALUE, 2**31), (VALUE, "__import__")], 2)
    return of(handler, target, *others), May.REFUSAL


def attribute(random: Random, rights: Rights) -> Made:
    """A name that is not exposed, of the root or of a method."""
    target = ROOT if random.random() < 0.7 else (LOCAL, method_pack(random, rights))
    if random.random() < 0.5:
        return of(GETATTR, target, (VALUE, unexposed(random))), May.REFUSAL
    arguments = ((VALUE, (value(random),)), (VALUE, ()))
    return of(CALLATTR, target, (VALUE, unexposed(random)), *arguments), May.REFUSAL


def nowhere(random: Random, rights: Rights) -> Made:
    """A reference to what was never given, or of the attacker's own, as what is to be called."""
    names = ("rpychord.Node", "builtins.method", "builtins.type", "node.remote.service.RingService", "os.system")
    packs: tuple[Any, ...] = (
        (random.choice(names), random.choice((1, 2, id(names))), random.choice((0, -1, 10**6, 2**64, id(names)))),
        (random.choice(names), 1),
        (*ROOT_PACK, 1),
        ("rpychord.Node", 1.5, True),
        nested(20, ROOT_PACK),
        value(random),
    )
    target = (random.choice((LOCAL, LOCAL, REMOTE)), random.choice(packs))
    if target == ROOT:
        target = (LOCAL, None)
    handler = random.choice((CALL, CALLATTR, GETATTR))
    rest: list[Any] = [(VALUE, "get")] if handler != CALL else []
    if handler != GETATTR:
        rest += [(VALUE, ("k",)), (VALUE, ())]
    return of(handler, target, *rest), May.REFUSAL


def by_reference(random: Random, rights: Rights) -> Made:
    """A good call with an argument that is a reference."""
    label = random.choice((LOCAL, REMOTE))
    pack = random.choice((ROOT_PACK, method_pack(random, rights), ("builtins.list", 1, 2), ("x", 2**64, -1)))
    inside = (TUPLE, ((VALUE, "k"), (label, pack)))
    return of(CALLATTR, ROOT, (VALUE, random.choice(rights.methods)), inside, (VALUE, ())), May.REFUSAL


def labels(random: Random, rights: Rights) -> Made:
    """Boxes that are none."""
    label = random.choice((0, 5, -1, 10**20, None, "1", b"\x01", 1.5, (1,)))
    call = (ROOT, (VALUE, "get"), (VALUE, ("k",)), (VALUE, ()))
    packages: tuple[Any, ...] = (
        (label, call),
        (TUPLE, (*call[:2], (label, ("k",)), (VALUE, ()))),
        (TUPLE, random.choice(((), ((),), 5, "ab", b"ab" * 1000, None, (1, 2, 3), nested(60)))),
        random.choice(((), 7, "x", (1, 2, 3), None)),
        (TUPLE, (ROOT, (VALUE, "get"), (VALUE, random.choice((5, None, 1.5))), (VALUE, ()))),
        (TUPLE, (*call[:3], (VALUE, random.choice((5, "x", ((1, 2),), (("a", 1, 2),), ((b"key", 1),), (((), 1),)))))),
        (TUPLE, (ROOT, *call)),
        (VALUE, value(random)),
    )
    return boxed(CALLATTR, random.choice(packages)), May.REFUSAL


def large_in_place(random: Random, rights: Rights) -> Made:
    """Text or bytes where a tuple should be: unpacked carelessly they become a value for each byte."""
    filling = random.choice((b"x" * MIB, "x" * MIB, b"x" * 50_000))
    name = (VALUE, random.choice(rights.methods))
    made = (
        boxed(CALLATTR, (VALUE, filling)),
        boxed(CALLATTR, (TUPLE, filling)),
        of(CALLATTR, ROOT, name, (VALUE, filling), (VALUE, ())),
        of(CALLATTR, ROOT, name, (TUPLE, filling), (VALUE, ())),
        of(CALLATTR, ROOT, name, (VALUE, ("k",)), (VALUE, filling)),
        of(GETATTR, ROOT, (VALUE, filling)),
        of(GETATTR, (LOCAL, filling), (VALUE, "get")),
    )
    return random.choice(made), May.REFUSAL


def arguments(random: Random, rights: Rights) -> Made:
    """An exposed method with what it did not expect: kinds, numbers and names of arguments."""
    name = random.choice(rights.methods)
    if name in SLOW and random.random() < 0.95:
        return control(random, rights)
    if name == "call":
        return among_nodes(random, rights)
    given = tuple(_argument(random) for _ in range(random.choice((0, 1, 1, 2, 2, 2, 3, 3, 4, 9))))
    names = ("key", "value", "version", "self", "number", "confirm", "ip", "k w", "", "__class__")
    words = tuple((random.choice(names), scalar(random)) for _ in range(random.choice((0, 0, 0, 1, 2))))
    packed = (VALUE, given) if random.random() < 0.9 else (TUPLE, tuple((VALUE, each) for each in given))
    if random.random() < 0.2:
        return of(CALL, (LOCAL, ("builtins.method", 2, rights.number(name))), packed, (VALUE, words)), EITHER
    return of(CALLATTR, ROOT, (VALUE, name), packed, (VALUE, words)), EITHER


def _argument(random: Random) -> Any:
    if random.random() < 0.5:
        return value(random)
    return random.choice(
        (
            f"hostile {random.randrange(200)}",
            random.randrange(200),
            (random.randrange(5), random.randrange(100)),
            random.choice(("node_id", "finger_table", "keys", "max", "password", "node_ip.__class__")),
            nested(random.randrange(58)),
            random.choice((b"k" * 4096, b"k" * 4097, "k" * 5000, "é" * 2049, 10**4000)),
            pem(CSR if random.random() < 0.3 else flipped(random, CSR)),
        )
    )


_SIGNED = Request.sign(Ed25519PrivateKey.from_private_bytes(bytes(32)), "hostile")
CSR = base64.b64decode(b"".join(_SIGNED.split(b"\n")[1:-2]))


def pem(der: bytes) -> bytes:
    """A certificate request as it is sent."""
    name = b"CERTIFICATE REQUEST-----\n"
    return b"-----BEGIN " + name + base64.encodebytes(der) + b"-----END " + name


def flipped(random: Random, content: bytes) -> bytes:
    """Some of its bytes are others."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def giant(random: Random, rights: Rights) -> Made:
    """Keys and values at the limits and beyond them."""
    size = random.choice((4 * MIB - 100, 4 * MIB - 5, 4 * MIB, 4 * MIB + 1, 6 * MIB))
    key = random.choice((f"giant {random.randrange(3)}", "k" * 4096, "k" * 4097, b"k" * MIB))
    filling = random.choice((bytes, lambda n: "v" * n))(size)
    name = random.choice(("put", "get", "put_if", "lookup", "replicas", "connect"))
    given = {"put": (key, filling), "put_if": (key, filling, None), "connect": (filling, 1)}.get(name, (filling,))
    return of(CALLATTR, ROOT, (VALUE, name), (VALUE, given), (VALUE, ())), EITHER


def among_nodes(random: Random, rights: Rights) -> Made:
    """What nodes ask each other, with something wrong in it; or, from who is no node, as it should be."""
    method = random.choice(_ASKED)
    if method == "chain.watch" and random.random() < 0.9:  # it may wait for seconds
        method = "chain.read"
    for_us = rights is OPEN_RING or method in CLIENT_METHODS
    kind = METHODS[method].question
    if random.random() < 0.7:
        wrong = random.choice((0.0, 0.05, 0.3)) if method in CLIENT_METHODS or not for_us else 0.3
        payload = msgspec.msgpack.encode(question(random, kind, wrong))
        if for_us and method not in CLIENT_METHODS:
            payload = random.choice((payload[:-1], payload + b"\xc0", b"\x91" + payload, b"\xc1" + payload))
    else:
        payload = random.choice(_PAYLOADS)(random)
        if for_us and method not in CLIENT_METHODS:
            payload += b"\xc1"
    named: Any = method if random.random() < 0.9 else random.choice((value(random), method.upper(), method + "\0"))
    given = (named, payload) if random.random() < 0.95 else (named, value(random))
    may = EITHER if rights is OPEN_RING or named in CLIENT_METHODS else May.REFUSAL
    return of(CALLATTR, ROOT, (VALUE, "call"), (VALUE, given), (VALUE, ())), may


_ASKED = [*METHODS, *sorted(CLIENT_METHODS) * 3]
_PAYLOADS: tuple[Callable[[Random], bytes], ...] = (
    lambda random: random.randbytes(random.randrange(60)),
    lambda random: b"\x91" * random.choice((100, 2000, 100_000)),
    lambda random: b"\x81" * 5000,
    lambda random: b"\xdd\xff\xff\xff\xff",
    lambda random: b"\xc6\xff\xff\xff\xff",
    lambda random: b"\xc7\x01\x02\x91" * 500,
    lambda random: b"\xdc\xff\xff" + b"\xc0" * 65535,
    lambda random: msgspec.msgpack.encode([[b"k"] * 3000]),
    lambda random: b"",
)


def broken(random: Random, rights: Rights) -> Made:
    """A request of which the number can be read, and nothing more."""
    if random.random() < 0.5:
        return broken_brine(random), May.REFUSAL
    return brine.TAG_TUP2 + brine.dump(CALLATTR) + broken_brine(random), May.REFUSAL


def mutated(random: Random, rights: Rights) -> Made:
    """A good request in which some bytes are others."""
    good = random.choice((arguments, attribute, control, by_reference))(random, rights)[0]
    while True:
        body = flipped(random, good)
        try:
            content = plain.read(body)
            if type(content) is tuple and content and content[0] == consts.HANDLE_CLOSE:
                continue
        except BadValue:
            pass
        return body, EITHER | May.METHOD | May.THE_ROOT


KINDS: dict[Callable[[Random, Rights], Made], int] = {
    control: 40,
    closed_handler: 120,
    attribute: 160,
    nowhere: 100,
    by_reference: 60,
    labels: 80,
    large_in_place: 1,
    arguments: 200,
    giant: 1,
    among_nodes: 140,
    broken: 60,
    mutated: 120,
}
"""How often each is sent."""
FOR_BEARERS = {kind: weight for kind, weight in KINDS.items() if kind not in (giant, among_nodes)}
"""A token is for one method."""
_DRAWN = {kinds: (list(each), [*accumulate(each.values())]) for kinds, each in ((False, KINDS), (True, FOR_BEARERS))}


# -- whole messages --------------------------------------------------------------------------------------------------


def hostile(random: Random, rights: Rights, seq: int) -> Message:
    """One message of a kind that is drawn; its number is `seq`, or a stranger one."""
    special = random.random()
    if special < 0.06:
        return unasked(random)
    if special < 0.0605:
        return bomb(random)
    kinds, weights = _DRAWN[rights is BEARER]
    kind = random.choices(kinds, cum_weights=weights)[0]
    body, may = kind(random, rights)
    if special > 0.97:
        seq = random.choice((0, -1, seq - 1, 2**31, 2**64, -(10**30), integer(random), 10**4000))
    payload = b"\x01" + brine.TAG_TUP2 + brine.dump(seq) + body
    if special > 0.95 and len(payload) < MIB:
        return Message(f"{kind.__name__}, compressed", framed(zlib.compress(payload, 1), 1), seq, may)
    return Message(kind.__name__, framed(payload), seq, may)


def unasked(random: Random) -> Message:
    """An answer, or an error, to what was never asked."""
    seq = random.choice((0, 1, 2, 10**30, -1, random.randrange(10**6)))
    content: Any = random.choice((None, (VALUE, b"x"), (REMOTE, ROOT_PACK), value(random), nested(50), 10**4000))
    if random.random() < 0.5:
        error = (("builtins", random.choice(("SystemExit", "KeyError", "MemoryError"))), (1, 2), (), "traceback")
        payload = b"\x03" + brine.dump((seq, random.choice((error, content, (error[0], b"x" * 10_000, (), "")))))
    else:
        payload = b"\x02" + brine.dump((seq, content))
    if random.random() < 0.1:
        payload = payload[:1] + brine.TAG_TUP2 + brine.dump(seq) + broken_brine(random)
    return Message("unasked", framed(payload), seq, NOTHING)


BOMBS = ("a gigabyte", "just too large", "many empty tuples", "in a compressed one", "declared too large")
BOMB = 7
"""The number of all of them, so that each is made once."""


def bomb(random: Random) -> Message:
    """A frame of little that would become very much."""
    name = random.choice(BOMBS)
    return Message(f"bomb, {name}", _bomb(name), BOMB, May.REFUSAL)


@cache
def _bomb(name: str) -> bytes:
    head = b"\x01" + brine.TAG_TUP2 + brine.dump(BOMB)
    if name == "a gigabyte":
        return framed(_deflated(head, 1024), 1)
    if name == "just too large":
        return framed(_deflated(head, 9), 1)
    if name == "in a compressed one":
        return framed(zlib.compress(head + brine.dump((CALLATTR, zlib.compress(bytes(64 * MIB))))), 1)
    if name == "declared too large":
        content = head + bytes(9 * MIB)
        return framed(content)
    many = brine.TAG_TUP_L4 + struct.pack("!L", 8_000_000) + brine.TAG_EMPTY_TUPLE * 8_000_000
    return framed(zlib.compress(head + many), 1)


def _deflated(head: bytes, megabytes: int) -> bytes:
    """The head and so many zeros."""
    deflater = zlib.compressobj(9)
    first = deflater.compress(head) + deflater.flush(zlib.Z_FULL_FLUSH)
    return first + (deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_FULL_FLUSH)) * megabytes
