"""The socket side of a connection: frames in and out of an asyncio transport, with everything bounded.

Knows nothing of RPyC's messages but which frames are requests: these wait while their sender does not take its answers
or has too many requests in work; answers to our own calls never wait, or two ends could stop reading each other for
ever. All that is written in one turn of the loop goes out in one write.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import ssl
import sys
import termios
import time
from dataclasses import dataclass
from typing import Any, Protocol, cast

from node.errors import NotTrusted, Unreachable
from node.remote.calls import due
from node.remote.framing import Garbage, Splitter, TooLarge, frame
from node.settings import Settings

log = logging.getLogger(__name__)

TURN = 256
"""Frames taken in one turn of the loop: one busy connection may not keep all others waiting."""
SLICE = 0.005
"""Seconds of such a turn, after the end of the frame in which they run out: a frame can be milliseconds of work."""
COALESCED = 16 * 1024
"""Bytes gathered at most before they go out."""
ENCIPHERED = 32 * 1024
"""Bytes given to TLS at a time: it copies them three times over, which the processor's cache should hold."""
LARGE = 64 * 1024
"""Bytes that may take a slow line longer than a deadline."""


class Owner(Protocol):
    """What a wire carries frames for. `take` and `refuse` may raise Garbage, `begun` NotTrusted, which ends the
    connection."""

    @property
    def full(self) -> bool: ...

    def begun(self, certificate: Any) -> None: ...

    def is_request(self, payload: bytes) -> bool: ...

    def take(self, payload: bytes) -> None: ...

    def refuse(self, skipped: TooLarge) -> None: ...

    def swelled(self, size: int) -> None: ...

    def lost(self, reason: str) -> None: ...


@dataclass(slots=True)
class Mark:
    """How far a peer had come when we last saw it get on."""

    time: float
    frames: int = 0
    received: int = 0


class Wire(asyncio.Protocol):
    """Bytes to frames and back, for one connection."""

    def __init__(self, owner: Owner, settings: Settings) -> None:
        self._owner = owner
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter(settings.max_frame, settings.max_skip)
        self._transport: asyncio.Transport | None = None
        self._held: bytes | None = None
        self._reading = True
        self._outgoing: list[bytes] = []
        self._outgoing_size = 0
        self._flushing = False
        self._in_records = False
        """Whether each frame goes in a record of its own, under TLS: the stock client waits for the next one with
        `poll`, which knows nothing of what came with the one before and is deciphered already."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._reason = ""
        self._last = Mark(self._loop.time())
        self._begun: Mark | None = None
        self.began = self._loop.time()
        self.closed = False
        self.garbage = ""
        """What was wrong with what the peer sent, if that ended the connection."""
        self.tls_error = ""
        """What TLS said when it ended the connection."""
        self.peer = "peer"
        self.frames = 0
        self.received = 0
        self.queued = 0
        self.sent = 0
        self._handed = 0
        self._handed_large = False
        """Whether something large was handed over that may still be on its way."""
        self._gone = 0
        self._moved = 0.0

    # -- in ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._in_records = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=self._settings.write_high)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if type(name) is tuple else "peer"
        tune(transport.get_extra_info("socket"), self._settings)
        if self.closed:
            transport.abort()
            return
        try:
            self._owner.begun(transport.get_extra_info("peercert"))
        except NotTrusted as error:
            self.fail(str(error))

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._splitter.feed(data)
        self.go_on()
        if self._splitter.midway:
            self._moved = self._loop.time()

    def go_on(self) -> None:
        """Take in what is whole, as far as the limits let us; then read on, or not."""
        was_flushing, self._flushing = self._flushing, True
        try:
            self._read_on(self._take_in())
        except Garbage as error:
            self.garbage = f"garbage: {error}"
            self.fail(self.garbage)
        finally:
            self._owner.swelled(self._kept())
            self._flushing = was_flushing
            if not was_flushing:
                self.flush()

    def _take_in(self) -> bool:
        """Take what is whole. False if a request has to wait."""
        owner = self._owner
        until = time.perf_counter() + SLICE
        for _ in range(TURN):
            if self.closed:
                return False
            if time.perf_counter() > until:
                break
            payload = self._held or self._splitter.take()
            if payload is None:
                return True
            if isinstance(payload, TooLarge):
                self.frames += 1
                owner.refuse(payload)
                continue
            if owner.is_request(payload) and (owner.full or not self._writable.is_set()):
                self._held = payload
                return False
            self._held = None
            self.frames += 1
            owner.take(payload)
            if not self._splitter.midway:
                return True
        self._loop.call_soon(self.go_on)
        return False

    def _read_on(self, may: bool) -> None:
        if may != self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = may
            if may:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def release(self) -> None:
        """The owner is done with a request: take in more if that was waited for."""
        if self._held is not None and not self.closed:
            self.go_on()

    def overdue(self, now: float) -> str:
        """Why the patience with this peer ends, or nothing: no frame yet, stuck in the middle of one, or idle."""
        settings = self._settings
        if not self.frames:
            return "no request came" if now - self.began > settings.handshake else ""
        if self.frames != self._last.frames or not self._reading:
            self._last, self._begun = Mark(now, self.frames, self.received), None
        if not self._splitter.midway:
            self._begun = None
            return "idle" if settings.idle and now - self._last.time > settings.idle else ""
        if self._begun is None or self.received - self._begun.received >= settings.half_frame_bytes:
            self._begun = Mark(now, self.frames, self.received)
        return "it stopped in the middle of a frame" if now - self._begun.time > settings.half_frame else ""

    # -- out -----------------------------------------------------------------------------------------------------

    def send(self, *payload: bytes) -> int:
        """Send a payload, one or more parts, soon. Its number; it is on its way once `sent` has reached that."""
        if self.closed:
            return self.queued + 1
        framed = frame(*payload)
        self._outgoing.append(framed)
        self._outgoing_size += len(framed)
        self.queued += 1
        if self._outgoing_size >= COALESCED:
            self.flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_turn)
        return self.queued

    def _flush_turn(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Hand over what is waiting, unless the peer does not take what it was sent before."""
        if not self._outgoing or self.closed or self._transport is None:
            return
        if self._writable.is_set():
            frames, size = self._outgoing, self._outgoing_size
            self._outgoing, self._outgoing_size = [], 0
            self.sent = self.queued
            if self._in_records:
                _encipher(frames, self._transport)
            else:
                self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
            self._handed += size
            if size >= LARGE:
                self._handed_large = True
                self.moved()
        if self._outgoing_size + self._transport.get_write_buffer_size() > self._settings.write_limit:
            self.fail("it does not read what it is sent")
        elif not self._writable.is_set():
            self._owner.swelled(self._kept())

    def _kept(self) -> int:
        """Bytes that are kept for this peer: of frames that are not whole, and those it does not take."""
        kept = self._splitter.size
        if not self._writable.is_set() and self._transport is not None:
            kept += self._outgoing_size + self._transport.get_write_buffer_size()
        return kept

    def moved(self) -> float:
        """When a part of something large was last seen to come, or to be taken by the peer: the loop's time."""
        if self._handed_large:
            waiting = self._unsent()
            gone, self._gone = self._gone, self._handed - waiting
            if self._gone > gone:  # the last of it too: this is looked at seldom
                self._moved = self._loop.time()
            self._handed_large = waiting >= LARGE
        return self._moved

    def _unsent(self) -> int:
        """Bytes handed over that the peer's machine has not confirmed yet, as far as the kernel tells."""
        if self.closed or self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + unsent(self._transport.get_extra_info("socket"))

    @property
    def writable(self) -> bool:
        """Whether the peer takes what it is sent."""
        return self._writable.is_set()

    async def until_writable(self, deadline: float) -> float:
        """Wait until the peer takes what it was sent before, or the connection ends; what is left of the deadline then.
        Raises Unreachable."""
        loop = self._loop
        began = loop.time()
        until = began + deadline
        while not self._writable.is_set():
            try:
                async with asyncio.timeout_at(until):
                    await self._writable.wait()
            except TimeoutError:
                until = due(began, deadline, self.moved(), self._settings)
                if until <= loop.time():
                    text = f"{self.peer} does not take what was sent to it before: nothing more was sent"
                    raise Unreachable(text) from None
        return until - loop.time()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self._owner.swelled(self._kept())
        self.flush()
        self.release()

    # -- ending --------------------------------------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """End the connection at once, for a reason."""
        if not self._reason and reason:
            self._reason = reason
            log.debug("connection with %s ended: %s", self.peer, reason)
        self.closed = True
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        """What is here is for nobody any more: it must not wait for the garbage collector."""
        self._splitter.forget()
        self._owner.swelled(0)

    def close(self) -> None:
        """Send what is waiting, then end the connection. Never blocks."""
        self.flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        self._held = None
        self._forget()
        self._outgoing.clear()
        if isinstance(exc, ssl.SSLError):
            self.tls_error = exc.reason or str(exc)
        self._transport = None  # and with it what TLS holds: it knows us, and would wait for the garbage collector
        self._owner.lost(self._reason or (str(exc) if exc else "it was closed"))


def _encipher(frames: list[bytes], transport: asyncio.Transport) -> None:
    """Hand them over, each in records of its own."""
    for framed in frames:
        whole = memoryview(framed)
        for at in range(0, len(whole), ENCIPHERED):
            transport.write(whole[at : at + ENCIPHERED])


def unsent(sock: Any) -> int:
    """Bytes that the kernel keeps until the peer's machine has confirmed them; 0 where it does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # ValueError: the socket is closed
        return 0


def tune(sock: Any, settings: Settings) -> None:
    """No delay for small frames; a peer that vanished is noticed, with data on the way and without."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), max(1, round(settings.user_timeout))),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), 1),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 3),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", None), round(settings.user_timeout * 1000)),
    ]
    for level, option, value in options:
        if option is not None:
            try:
                sock.setsockopt(level, option, value)
            except OSError as error:  # the peer is gone already, which the loop will tell
                log.debug("socket option %s: %s", option, error)
