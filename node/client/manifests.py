"""How files stand in a ring: under which keys, and what is written there. Values only.

A file is a *manifest* under its name and *blocks* under the SHA-256 of their content, shared by all files that have
such a block. Beside each block stands a *claim*: whether it is there, and when a file last wanted it. All of it is kept
under keys that begin with `RESERVED`, which listings of keys pass over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from node.codec import Message, pack, unpack
from node.data import Stored
from node.errors import BadUsage, BadValue
from node.settings import MIB, Settings
from node.values import key_of, unpack_value

T = TypeVar("T")

RESERVED = b"\x00ring/"
"""Begins the keys that are the ring's own business."""
BLOCK_KEY, CLAIM_KEY, FILE_KEY = RESERVED + b"block/", RESERVED + b"claim/", RESERVED + b"file/"
DIGEST = 32
"""Bytes of a SHA-256."""
BLOCK = 1 * MIB
"""Bytes of a block, unless said otherwise: 512 KiB were no faster, and cost twice the calls."""
LARGEST_BLOCK = 2 * MIB
MOST_BLOCKS = 100_000
"""Blocks of one file: their digests must fit into one value."""


class Manifest(Message, frozen=True):
    """What a file is made of. Times are seconds since 1970."""

    size: int
    block: int
    """Bytes of each block but the last."""
    digests: bytes
    """The SHA-256 of all blocks, one after the other."""
    sha256: bytes
    """That of the whole."""
    stored: float
    modified: float | None = None
    """When the file that was put here was last changed, where that is known."""

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self.digests) // DIGEST

    def digest(self, number: int) -> bytes:
        """That of one block, counted from 0."""
        return self.digests[number * DIGEST : (number + 1) * DIGEST]


class Claim(Message, frozen=True):
    """Whether a block is there, and when this was last said. Seconds since 1970."""

    there: bool
    at: float


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is told of a file."""

    name: str
    size: int
    blocks: int
    sha256: str
    stored: float
    """When it was put, in seconds since 1970."""
    modified: float | None
    """When the file it was made from was last changed, where that is known."""

    @classmethod
    def of(cls, name: str, manifest: Manifest) -> FileInfo:
        """What a manifest says."""
        digest = manifest.sha256.hex()
        return cls(name, manifest.size, len(manifest), digest, manifest.stored, manifest.modified)


def file_key(name: str, settings: Settings) -> bytes:
    """Where the manifest of a file stands. Raises BadUsage for what is no name."""
    if type(name) is not str or not name:
        raise BadUsage(f"the name of a file is a text of at least one character, not {name!r}")
    try:
        return key_of(FILE_KEY + key_of(name, settings), settings)
    except BadValue as error:
        raise BadUsage(f"{name[:60]!r} cannot name a file: {error}") from None


def packed(message: Message) -> bytes:
    """A message as the packed value of a key."""
    return msgspec.msgpack.encode(pack(message))


def unpacked(kind: type[T], stored: Stored) -> T:
    """The message in a record. Raises BadValue if it is none."""
    value = unpack_value(stored.value)
    if type(value) is not bytes:
        raise BadValue(f"a {kind.__name__} is bytes, not {type(value).__name__}")
    return unpack(kind, value)
