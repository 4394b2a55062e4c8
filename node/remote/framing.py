"""RPyC's frames: `!LB` (length, compressed), payload, newline. Pure: bytes in, payloads out; no sockets, no protocol.

A frame that declares more than the limit is read over without being kept, but for its first bytes, so that the request
in it can be refused by name, and so is one that inflates beyond it; one that declares absurdly much or ends wrongly is
garbage.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

HEADER = struct.Struct("!LB")
TRAILER = b"\n"
LARGE = 64 * 1024
"""Payloads from this size on are kept in the pieces they come in until all are there, and put together once."""
SMALL = 4 * 1024
"""Pieces smaller than this are put together as they come: each of them costs more than its bytes."""
KEPT = 64
"""First bytes kept of a payload that is too large."""
KEPT_COMPRESSED = 1024
"""First bytes looked at of a compressed one, so that `KEPT` come out."""


class Garbage(Exception):
    """What came is no frame, or one that nobody sends in good faith."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A frame over the limit was skipped: its size, at least, and its first bytes."""

    size: int
    head: bytes


def frame(*payload: bytes) -> bytes:
    """The payload, one or more parts, as a frame, never compressed."""
    return b"".join((HEADER.pack(sum(map(len, payload)), 0), *payload, TRAILER))


class Splitter:
    """Cuts a stream of bytes into payloads, one at a time. What has not been taken stays as it came, but for a large
    frame in the making, which is kept in pieces."""

    def __init__(self, max_frame: int, max_skip: int) -> None:
        self._max_frame = max_frame
        self._max_skip = max_skip
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._pieces: list[bytes | bytearray] = []
        """Of a large frame that is not whole, from its header on."""
        self._gathered = 0
        """Bytes of them."""
        self._wanted = 0
        """Bytes of the whole frame."""
        self._skip = 0
        self._skipped: TooLarge | None = None
        self._torn = False

    @property
    def size(self) -> int:
        """Bytes that are here and have not been taken."""
        return len(self._buffer) - self._at + self._gathered

    def forget(self) -> None:
        """Drop what is here: nobody will take it."""
        self._buffer, self._at, self._pieces, self._gathered = b"", 0, [], 0

    @property
    def midway(self) -> bool:
        """Whether bytes are here that have not been taken: while all that is whole gets taken, a frame has begun."""
        return self._at < len(self._buffer) or bool(self._pieces) or self._skipped is not None

    def feed(self, data: bytes) -> None:
        """More bytes arrived. Most often they are whole frames: they are kept as they are, without a copy."""
        if self._skip:
            data = self._skip_over(data)
        elif self._pieces and data:
            self._gather(data)
            return
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0
            return
        if type(self._buffer) is bytearray:
            del self._buffer[: self._at]
        else:
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
        self._at = 0
        self._buffer += data

    def _gather(self, data: bytes) -> None:
        last = self._pieces[-1]
        if self._gathered >= self._wanted:  # it is for what comes behind the frame
            self._pieces[-1] = bytearray(last) + data
        elif len(data) >= SMALL:
            self._pieces.append(data)
        elif type(last) is bytearray and len(last) < LARGE:
            last += data
        else:
            self._pieces.append(bytearray(data))
        self._gathered += len(data)

    def _skip_over(self, data: bytes) -> bytes:
        over = min(self._skip, len(data))
        self._skip -= over
        if not self._skip:
            self._torn = data[over - 1] != TRAILER[0]
        return data[over:]

    def take(self) -> bytes | TooLarge | None:
        """The next payload that is whole by now, or None. Raises Garbage."""
        if self._skipped is not None:
            return self._take_skipped()
        if self._pieces:
            return self._put_together() if self._gathered >= self._wanted else None
        buffer, start = self._buffer, self._at + HEADER.size
        if len(buffer) < start:
            return None
        size, compressed = HEADER.unpack_from(buffer, self._at)
        end = start + size
        if size > self._max_frame:
            return self._begin_to_skip(size, compressed)
        if compressed > 1:
            raise Garbage("a frame that is neither compressed nor not")
        if len(buffer) <= end:
            if size >= LARGE:
                self._pieces = [bytes(memoryview(buffer)[self._at :])]
                self._gathered, self._wanted = len(buffer) - self._at, end + 1 - self._at
                self._buffer, self._at = b"", 0
            return None
        if buffer[end] != TRAILER[0]:
            raise Garbage("a frame without its end")
        payload = buffer[start:end] if type(buffer) is bytes else bytes(memoryview(buffer)[start:end])
        self._at = end + 1
        if self._at == len(buffer):
            self._buffer, self._at = b"", 0
        return self._inflated(payload) if compressed else payload

    def _put_together(self) -> bytes | TooLarge:
        """The payload of a large frame, all of which is here, with what came behind it."""
        first, *others, last = self._pieces
        end = len(last) - (self._gathered - self._wanted)  # of the frame, in the last piece
        self._buffer, self._at, self._pieces, self._gathered = last, end, [], 0
        if last[end - 1] != TRAILER[0]:
            raise Garbage("a frame without its end")
        payload = b"".join((memoryview(first)[HEADER.size :], *others, memoryview(last)[: end - 1]))
        return self._inflated(payload) if first[HEADER.size - 1] else payload

    def _begin_to_skip(self, size: int, compressed: int) -> TooLarge | None:
        if size > self._max_skip or compressed > 1:
            raise Garbage(f"a frame of {size} bytes: at most {self._max_frame} are taken")
        start = self._at + HEADER.size
        kept = min(size, KEPT_COMPRESSED if compressed else KEPT)
        here = len(self._buffer) - start
        if here < kept:
            return None
        head = bytes(memoryview(self._buffer)[start : start + kept])
        self._skipped = TooLarge(size, _start_of_inflated(head) if compressed else head)
        rest = bytes(memoryview(self._buffer)[start:])
        self._buffer, self._at, self._skip = b"", 0, size + 1
        self._buffer = self._skip_over(rest)
        return self._take_skipped()

    def _take_skipped(self) -> TooLarge | None:
        if self._skip:
            return None
        if self._torn:
            raise Garbage("a frame without its end")
        skipped, self._skipped = self._skipped, None
        return skipped

    def _inflated(self, payload: bytes) -> bytes | TooLarge:
        inflater = zlib.decompressobj()
        try:
            result = inflater.decompress(payload, self._max_frame + 1)
        except zlib.error as error:
            raise Garbage(f"a frame that does not inflate: {error}") from None
        if len(result) > self._max_frame:
            return TooLarge(len(result), result[:KEPT])
        if not inflater.eof or inflater.unused_data:
            raise Garbage("a compressed frame without its end")
        return result


def _start_of_inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(head, KEPT)
    except zlib.error as error:
        raise Garbage(f"a frame that does not inflate: {error}") from None
