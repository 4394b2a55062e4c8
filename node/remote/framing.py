"""RPyC's frames: `!LB` (length, compressed), payload, newline. Pure: bytes in, payloads out; no sockets, no protocol.

A frame that declares more than the limit is read over without being kept, but for its first bytes, so that the request
in it can be refused by name, and so is one that inflates beyond it; one that declares absurdly much or ends wrongly is
garbage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = struct.Struct("!LB")
TRAILER = b"\n"
KEPT = 64
"""First bytes kept of a frame that is too large."""


class Garbage(Exception):
    """What came is no frame, or one that nobody sends in good faith."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A frame over the limit was skipped: its size, at least, and its first bytes."""

    size: int
    head: bytes


def frame(payload: bytes) -> bytes:
    """The payload as a frame, never compressed."""
    return HEADER.pack(len(payload), 0) + payload + TRAILER


class Splitter:
    """Cuts a stream of bytes into payloads."""

    def __init__(self, max_frame: int, max_skip: int) -> None:
        self._max_frame = max_frame
        self._max_skip = max_skip
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: TooLarge | None = None

    @property
    def midway(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._buffer or self._skip)

    def feed(self, data: bytes) -> None:
        """More bytes arrived."""
        if self._skip:
            over = min(self._skip, len(data))
            self._skip -= over
            data = data[over:]
        self._buffer += data

    def payloads(self) -> Iterator[bytes | TooLarge]:
        """The payloads that are whole by now. Raises Garbage."""
        while True:
            if self._skipped is not None:
                if self._skip:
                    return
                skipped, self._skipped = self._skipped, None
                yield skipped
            buffer = self._buffer
            if len(buffer) < HEADER.size:
                return
            size, compressed = HEADER.unpack_from(buffer)
            end = HEADER.size + size
            if size > self._max_frame:
                if size > self._max_skip:
                    raise Garbage(f"a frame of {size} bytes")
                if len(buffer) < min(end, HEADER.size + KEPT):
                    return
                self._skipped = TooLarge(size, b"" if compressed else bytes(buffer[HEADER.size : HEADER.size + KEPT]))
                self._skip = max(0, end + 1 - len(buffer))
                del buffer[: end + 1]
                continue
            if len(buffer) <= end:
                return
            if buffer[end] != TRAILER[0]:
                raise Garbage("a frame without its end")
            payload = bytes(memoryview(buffer)[HEADER.size : end])
            del buffer[: end + 1]
            yield self._inflated(payload) if compressed else payload

    def _inflated(self, payload: bytes) -> bytes | TooLarge:
        inflater = zlib.decompressobj()
        try:
            result = inflater.decompress(payload, self._max_frame)
        except zlib.error as error:
            raise Garbage(f"a frame that does not inflate: {error}") from None
        if inflater.unconsumed_tail:
            return TooLarge(len(result) + 1, result[:KEPT])
        if not inflater.eof:
            raise Garbage("a compressed frame without its end")
        return result
