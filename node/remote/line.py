"""Calls that a thread waits for itself: to the node and back without any event loop between.

A `Line` is one connection with one call at a time. Whatever does not go as it should ends it, and the call with
Unreachable or OutcomeUnknown: why, the pool finds out, over which such a call is tried again.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time

from node.codec import Address, Packed
from node.errors import OutcomeUnknown, RingError, Unreachable
from node.remote import relay
from node.remote.framing import LARGE, Garbage, Splitter, TooLarge, frame
from node.remote.pool import Pool, opened
from node.remote.wire import tune, unsent
from node.settings import Settings

PIECE = 64 * 1024
"""Bytes taken from the socket, or given to it, at a time."""
FRESH = 0.01
"""Seconds after an answer in which a connection is taken for a good one."""
FULL = (BlockingIOError, ssl.SSLWantWriteError)
EMPTY = (BlockingIOError, ssl.SSLWantReadError)


class Line:
    """A connection to one node. Used by one thread at a time."""

    def __init__(self, to: Address, settings: Settings, tls: ssl.SSLContext | None, deadline: float) -> None:
        """Connect within `deadline` seconds. Raises Unreachable."""
        self._to = to
        self._splitter = Splitter(settings.max_frame, settings.max_skip)
        self._seq = 0
        self._longest = settings.operation
        self._answered = 0.0
        """When the last answer came."""
        self._readable, self._writable = select.poll(), select.poll()
        self._secure: ssl.SSLSocket | None = None
        """The socket, where there is TLS: it may have deciphered what was not taken yet."""
        try:
            self._socket = socket.create_connection((to.host, to.port), deadline)
        except OSError as error:
            raise Unreachable(f"nobody listens at {to} ({error}): is the node running?") from None
        tune(self._socket, settings)
        if tls is not None:
            try:
                self._socket = self._secure = tls.wrap_socket(self._socket, server_hostname=to.host)
            except OSError as error:
                self._socket.close()
                raise Unreachable(f"{to} and this side do not trust each other: {error}") from None
        self._socket.setblocking(False)
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)

    def call(self, method: str, payload: bytes, deadline: float) -> Packed:
        """See `node.transport.Transport`; the line is at an end unless it returns or raises what the callee raised."""
        self._seq += 1
        until = time.monotonic() + max(deadline, self._longest)
        asked = frame(relay.REQUEST, relay.dumped_number(self._seq), *relay.package(method, payload))
        try:
            self._send(asked, deadline, until)
            message: bytes | TooLarge | None = None
            while message is None:
                if not (data := self._received(len(asked), deadline, until)):
                    raise OutcomeUnknown(f"{self._to} ended the connection in the middle of a call")
                self._splitter.feed(data)
                message = self._splitter.take()
        except (OSError, Garbage) as error:
            raise OutcomeUnknown(f"no answer from {self._to} within {deadline:.3g} s ({error})") from None
        answer = relay.replied(message) if type(message) is bytes else None
        if answer is None or answer[0] != self._seq:
            raise OutcomeUnknown(f"what {self._to} answered is none to a call")
        self._answered = time.monotonic()
        return answer[1]

    def _send(self, asked: bytes, deadline: float, until: float) -> None:
        """Raises TimeoutError if none of it leaves for as long as the deadline, or all of it takes too long."""
        rest = memoryview(asked)
        while True:
            try:
                gone = self._socket.send(rest[:PIECE])
                if gone == len(rest):
                    return
                rest = rest[gone:]
            except FULL:
                if not self._writable.poll(1000 * deadline):
                    raise TimeoutError("it is not taken") from None
                _check_time(until)

    def _received(self, asked: int, deadline: float, until: float) -> bytes:
        """What comes next. Raises TimeoutError if nothing comes, and of the bytes asked with nothing leaves either."""
        waiting = asked if asked >= LARGE else 0  # what is small has left
        while True:
            _check_time(until)
            if (self._secure is not None and self._secure.pending()) or self._readable.poll(1000 * deadline):
                try:
                    return self._socket.recv(PIECE)
                except EMPTY:  # TLS has said something for itself
                    continue
            before, waiting = waiting, unsent(self._socket)
            if waiting >= before:
                raise TimeoutError("nothing comes")

    @property
    def stands(self) -> bool:
        """Whether the peer has not ended it, as far as can be seen. Never waits, and looks only if a while has gone by:
        it may end it right after a look as well."""
        if time.monotonic() - self._answered < FRESH or not self._readable.poll(0):
            return True
        try:
            self._socket.recv(1)
        except EMPTY:  # TLS has said something for itself
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """End it."""
        self._socket.close()


def _check_time(until: float) -> None:
    """Raises TimeoutError."""
    if time.monotonic() > until:
        raise TimeoutError("it is too slow")


class Lines:
    """A `Transport` that does its calls on the thread they are made on, or through the pool on the loop of the pool.

    Lines that are not in use are kept.
    """

    def __init__(self, pool: Pool, settings: Settings, tls: ssl.SSLContext | None) -> None:
        """Made on the loop of the pool."""
        self._pool = pool
        self._settings = settings
        self._tls = tls
        self._loop_thread = threading.get_ident()
        self._free: dict[Address, list[Line]] = {}
        self._not_before: dict[Address, float] = {}
        self._closed = False

    def show(self, tls: ssl.SSLContext) -> None:
        """From now on connect with another certificate. Lines that there are go on until a node ends them."""
        self._tls = tls

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> Packed:
        """See `node.transport.Transport`."""
        if threading.get_ident() == self._loop_thread:
            return await self._pool.call(to, method, payload, deadline=deadline)
        line = self._taken(to, deadline)
        try:
            reply = line.call(method, payload, deadline)
        except BaseException:
            line.close()
            raise
        self._put_back(to, line)
        return opened(reply, to)

    def _taken(self, to: Address, deadline: float) -> Line:
        free = self._free.get(to)
        while free:
            try:
                line = free.pop()
            except IndexError:  # another thread took it
                break
            if line.stands:
                return line
            line.close()
        if self._closed or time.monotonic() < self._not_before.get(to, 0.0):
            raise Unreachable(f"nothing was sent to {to}: it is not asked straight at the moment")
        self._tidy()
        try:
            return Line(to, self._settings, self._tls, min(deadline, self._settings.connect))
        except RingError:
            self._not_before[to] = time.monotonic() + self._settings.backoff_limit
            raise

    def _tidy(self) -> None:
        """Let go of lines that the nodes have ended: some of these nodes may never be asked again."""
        for lines in list(self._free.values()):
            for _ in range(len(lines)):
                with contextlib.suppress(IndexError):  # another thread took it
                    line = lines.pop(0)
                    if line.stands:
                        lines.append(line)
                    else:
                        line.close()

    def _put_back(self, to: Address, line: Line) -> None:
        if self._closed:
            line.close()
        else:
            self._free.setdefault(to, []).append(line)

    def close(self) -> None:
        """End all connections that are not in use, and those in use after their calls."""
        self._closed = True
        for lines in self._free.values():
            while lines:
                lines.pop().close()
