"""How things look on the wire and on disk: one codec, msgpack by way of msgspec, for messages and for stored values.

Messages are frozen `Message` structs. `pack` and `unpack` are used by the real transport and by the simulated one, so a
type that does not travel fails in simulation too. `unpack` checks types; hostile bytes raise BadValue, nothing else.
Errors of our tree travel as (name, args) and come out as the same class.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from node import errors
from node.errors import BadUsage, BadValue, RingError
from node.identifiers import BYTES, Identifier, Name

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all that nodes say to each other."""


class Address(Message, frozen=True):
    """Where a node listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Packed = bytes | memoryview
"""What `pack` made, or where it is in something larger."""
NameOnWire = Annotated[Name, msgspec.Meta(min_length=BYTES)]
"""A name in a message: whole, whoever sent it."""
PORT = 18861
"""Where a node listens unless told otherwise."""


def parse_address(text: str) -> Address:
    """HOST, HOST:PORT or [IPV6]:PORT. Raises BadUsage for anything else."""
    if type(text) is not str:
        raise BadUsage(f"{text!r} is no address: give one text for each node, HOST:PORT")
    parts = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]+))?", text)
    if parts is None or not 0 < int(parts[3] or PORT) < 65536:
        raise BadUsage(f"{text!r} is no address: give HOST:PORT, as 127.0.0.1:{PORT} or [::1]:{PORT}")
    return Address(parts[1] or parts[2], int(parts[3] or PORT))


class Contact(Message, frozen=True):
    """A member of a ring and where it lives."""

    id: Identifier
    address: Address

    def __repr__(self) -> str:
        return f"{self.id.hex[:8]}@{self.address}"


class Failure(Message, frozen=True):
    """An error of our tree in transit."""

    name: str
    args: tuple[Any, ...]


def _encode_hook(value: Any) -> Any:
    if type(value) is Identifier:
        return value.packed
    raise BadValue(f"a {type(value).__name__} does not travel between nodes")


def _decode_hook(kind: type, value: Any) -> Any:
    if kind is Identifier and type(value) is bytes and len(value) == BYTES:
        return Identifier.from_bytes(value, "big")
    raise ValueError(f"not a {kind.__name__}: {type(value).__name__}")


UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode_hook)


def pack(value: Any) -> bytes:
    """Bytes of a message. Raises BadValue for a type that does not travel."""
    return _encoder.encode(value)


def unpack(kind: type[T], payload: Packed) -> T:
    """The message of type `kind` in `payload`. Raises BadValue if it is anything else."""
    try:
        result: T = _decoder(kind).decode(payload)  # type: ignore[arg-type]
    except UNREADABLE as error:
        raise _not_a(kind, error) from None
    return result


def unpack_each(kind: type[T], payloads: Iterable[bytes | None]) -> list[T | None]:
    """The messages of type `kind` in some payloads, None for None. Raises BadValue if one is anything else."""
    decode = _decoder(kind).decode  # type: ignore[arg-type]
    try:
        return [decode(payload) if payload is not None else None for payload in payloads]
    except UNREADABLE as error:
        raise _not_a(kind, error) from None


def _not_a(kind: object, error: Exception) -> BadValue:
    return BadValue(f"not a {getattr(kind, '__name__', kind)}: {error}")


_ERRORS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, RingError)}


def failure_of(error: RingError) -> Failure:
    """The error as it travels."""
    return Failure(type(error).__name__, error.args)


def error_of(failure: Failure) -> RingError:
    """The error that travelled; one we do not know becomes a RingError that names it."""
    kind = _ERRORS.get(failure.name)
    return kind(*failure.args) if kind else RingError(f"{failure.name}: {failure.args}")
