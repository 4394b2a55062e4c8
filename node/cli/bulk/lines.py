"""The lines of a file of any size in any encoding: where each one is, and what it says.

A line ends with CR, LF or CR LF, in any mixture. Nothing is kept but the line being read; of one that is longer than
MAX_LINE the beginning.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from node.errors import BadUsage
from node.settings import KIB, MIB

CHUNK = 1 * MIB
MAX_LINE = 9 * MIB
"""Bytes. The largest value and the largest key fit, each of their characters escaped."""
KEPT = 1_000
"""Bytes that are kept of a longer one."""
HEAD = 64 * KIB
"""Bytes at the start of a file that say what it is."""
STANDARD_INPUT = "-"
_UNNAMED = "standard input"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ASCII = '\r\n\t ",:{}[]09azAZ'


class BadByte(BadUsage):
    """A file is not of the encoding it is read in."""


class Line(NamedTuple):
    """One line with what ends it. `offset` and `end` count bytes from the start of the stream it is in."""

    number: int
    offset: int
    end: int
    raw: bytes
    cut: bool
    """It is longer than MAX_LINE, and `raw` only its beginning."""


class Stream(io.RawIOBase):
    """A file or standard input, read unbuffered, whose beginning can be looked at before it is read."""

    def __init__(self, name: str) -> None:
        """Raises BadUsage if it cannot be read."""
        super().__init__()
        self.name = _UNNAMED if name == STANDARD_INPUT else name
        try:
            if name == STANDARD_INPUT:
                os.set_blocking(0, True)
                self._file = io.FileIO(0, closefd=False)
            else:
                self._file = io.FileIO(name)
            self._head = self._first()
        except OSError as error:
            raise BadUsage(f"cannot read {self.name}: {error.strerror}") from None

    def _first(self) -> bytes:
        head = b""
        while len(head) < HEAD and (more := self._file.read(HEAD - len(head))):
            head += more
        return head

    @property
    def head(self) -> bytes:
        """How it begins, as long as nothing has been read."""
        return self._head

    @property
    def status(self) -> os.stat_result:
        """What the system says of the file."""
        return os.fstat(self._file.fileno())

    @property
    def stays(self) -> bool:
        """Whether it is a file that can be read again, under its name."""
        return self.name != _UNNAMED and stat.S_ISREG(self.status.st_mode)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Raises BadUsage if it cannot be read any more."""
        if self._head:
            count = min(len(buffer), len(self._head))
            buffer[:count], self._head = self._head[:count], self._head[count:]
            return count
        try:
            return self._file.readinto(buffer) or 0
        except OSError as error:
            raise BadUsage(f"{self.name} cannot be read any further: {error.strerror}") from None

    def go_to(self, offset: int) -> None:
        """Go on reading at this byte."""
        self._head = b""
        self._file.seek(offset)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Recoded:
    """A stream whose encoding has no bytes of ASCII, UTF-16 say, as UTF-8. Offsets are those of the UTF-8."""

    def __init__(self, stream: Stream, codec: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._codec = codec
        self._ahead = b""
        self._failure: UnicodeDecodeError | None = None

    def read(self, size: int) -> bytes:
        """More of it, empty at the end. Raises UnicodeDecodeError once all before the bad byte has been read."""
        text, self._ahead = self._ahead, b""
        while not text:
            if self._failure is not None:
                raise self._failure
            chunk = self._stream.read(size) or b""
            try:
                text = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                text, self._failure = error.object[: error.start].decode(self._codec).encode(), error
            if not chunk:
                break
        return text

    def pass_over(self, offset: int) -> None:
        """Go on reading at this byte, from the start."""
        while offset > 0 and (text := self.read(CHUNK)):
            self._ahead = text[offset:]
            offset -= len(text)


class Source:
    """A file, and how to read it. An encoding of None is what the first bytes say, UTF-8 if they say nothing."""

    def __init__(self, stream: Stream, encoding: str | None) -> None:
        """Raises BadUsage if there is no such encoding."""
        self.stream = stream
        self.name = stream.name
        self.encoding, self._mark = _encoding_of(stream.head, encoding)
        stream.read(self._mark)
        as_ascii = _as_ascii(self.encoding)
        self._codec = self.encoding if as_ascii else "utf-8"
        self._start = self._mark if as_ascii else 0
        self._bytes = stream if as_ascii else _Recoded(stream, self.encoding)

    @property
    def head(self) -> bytes:
        """How it begins, if nothing has been read yet."""
        return self.stream.head

    @property
    def head_text(self) -> str:
        """The same as text, as far as it can be read."""
        return self.head.decode(self.encoding, "replace")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it but space."""
        return not self.head.strip()

    @property
    def size(self) -> int | None:
        """Bytes in all; None if that is not known, or offsets do not count those."""
        status = self.stream.status
        return status.st_size if stat.S_ISREG(status.st_mode) and self._bytes is self.stream else None

    def lines(self) -> Iterator[Line]:
        """The lines from the start. Raises BadByte."""
        return self._lines(self._start, 1)

    def lines_from(self, offset: int, number: int) -> Iterator[Line]:
        """The lines from there on, whatever has been read before, of a file that is no pipe."""
        if isinstance(self._bytes, _Recoded):
            self.stream.go_to(self._mark)
            self._bytes = _Recoded(self.stream, self.encoding)
            self._bytes.pass_over(offset)
        else:
            self.stream.go_to(offset)
        return self._lines(offset, number)

    def text(self, line: Line) -> str:
        """What a line says. Raises BadByte."""
        try:
            return line.raw.decode(self._codec)
        except UnicodeDecodeError as error:
            raise self._bad_byte(line.number, f"byte {error.start + 1} of it", error) from None

    def shown(self, line: Line) -> str:
        """What a line says, whatever it is."""
        return line.raw.decode(self._codec, "backslashreplace")

    def _bad_byte(self, number: int, where: str, error: UnicodeDecodeError) -> BadByte:
        byte = error.object[error.start]
        return BadByte(
            f"{self.name}, line {number}: {where}, 0x{byte:02x}, is not {self.encoding} ({error.reason}): "
            f"say how the file is encoded, with --encoding latin-1 for example"
        )

    def _lines(self, offset: int, number: int) -> Iterator[Line]:
        rest, beginning, passed = b"", b"", 0  # `passed`: bytes of a line too long that are not in `rest` any more
        while chunk := self._chunk(number):
            pieces = (rest + chunk).splitlines(keepends=True)
            rest = b"" if pieces[-1].endswith(b"\n") else pieces.pop()  # a CR may be half of CR LF
            for raw in pieces:
                end = offset + passed + len(raw)
                yield Line(number, offset, end, beginning or raw, passed > 0)
                number, offset, passed, beginning = number + 1, end, 0, b""
            if passed or len(rest) > MAX_LINE:
                beginning = beginning or rest[:KEPT]
                kept = rest[-1:] if rest.endswith(b"\r") else b""
                passed, rest = passed + len(rest) - len(kept), kept
        if rest or passed:
            yield Line(number, offset, offset + passed + len(rest), beginning or rest, passed > 0)

    def _chunk(self, number: int) -> bytes:
        try:
            return self._bytes.read(CHUNK) or b""
        except UnicodeDecodeError as error:
            raise self._bad_byte(number, "a byte of it", error) from None


def _encoding_of(head: bytes, wanted: str | None) -> tuple[str, int]:
    """The encoding of a file that begins so, and the length of its byte order mark."""
    mark, marked = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
    if wanted is None:
        return marked, len(mark)
    try:
        "".encode(wanted)  # raises LookupError for codecs that are not of text, too
        name = codecs.lookup(wanted).name
    except LookupError:
        raise BadUsage(f"there is no encoding {wanted!r}: give utf-8, latin-1, cp1252 or utf-16, for example") from None
    return (marked, len(mark)) if mark and name in (marked, marked[:6]) else (name, 0)


def _as_ascii(codec: str) -> bool:
    """Whether text of ASCII has the same bytes in this encoding."""
    return _ASCII.encode(codec) == _ASCII.encode("ascii")
