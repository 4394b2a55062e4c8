"""Taking connections in: limits on their number and our patience, and an accept that outlives a lack of descriptors.

Knows nothing of what is said on a connection. The loop never blocks in here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from node.errors import BadUsage
from node.remote.connection import Connection, Gate
from node.remote.exposure import Exposure
from node.remote.refusals import Refusals
from node.settings import Settings
from node.trust.party import Party

log = logging.getLogger(__name__)

SWEEP = 1.0
"""Longest time between two looks for connections that outstayed a deadline, in seconds."""
BURST = 64
"""Connections accepted in one turn of the loop."""
BREATH = 0.1
"""Seconds without accepting after the descriptors ran out."""
A_TURN = 0.001
"""Seconds until the descriptor of a connection that was ended is free."""
FLUSH = 0.5
"""Seconds that answers already written get to leave, at the end."""
KEPT = 256
"""Descriptors that connections leave to the store, a quarter of all at most: a store that cannot open a file ends its
node."""
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SHORT = "out of file descriptors: raise the limit (ulimit -n)"


class Listener:
    """Listens on one address and serves one root object, its `exposed_*` methods, to everyone who connects.

    Either `bind()`, `serve(root)` and in the end `await close(drain)`, or
    `async with Listener(settings, host, port, root)`.
    """

    def __init__(
        self, settings: Settings, host: str, port: int, root: object = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._host = host
        self.port = port
        self._root = root
        self._tls = tls
        self._gate: Gate | None = None
        self._exposure = Exposure(None)
        self._connections: dict[Connection, None] = {}
        """In the order in which they came: the clock cannot tell apart what came in one turn of the loop."""
        self._opening: dict[Connection, asyncio.Task[None]] = {}
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._spare = -1
        self._room = math.inf
        """Connections for which there are descriptors."""
        self._refusals = Refusals()
        self._unfinished = 0
        """Bytes of frames that are not whole yet, of all connections."""

    async def __aenter__(self) -> Listener:
        self.bind()
        self.serve(self._root)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connections(self) -> int:
        """How many connections there are, or were and have requests in work."""
        return len(self._connections)

    def secure(self, tls: ssl.SSLContext, gate: Gate) -> None:
        """From now on take in only whom the gate lets through, under TLS, and show each what the gate says."""
        self._tls = tls
        self._gate = gate

    def end_those(self, whom: Callable[[Party], str]) -> None:
        """End all connections with peers of whom there is a reason to say so."""
        for connection in list(self._connections):
            connection.end_if(whom)

    # -- beginning -----------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the address. Raises BadUsage naming it if it cannot be had; port 0 becomes a free one."""
        self._socket = self._bound()
        self.port = self._socket.getsockname()[1]

    def serve(self, root: object) -> None:
        """Begin to take connections in."""
        if self._socket is None:
            raise BadUsage("a listener serves after it has taken its address")
        self._exposure = Exposure(root)
        self._loop = asyncio.get_running_loop()
        self._reserve()
        self._accept_on()
        self._sweep()

    def _bound(self) -> socket.socket:
        where = f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        sock: socket.socket | None = None
        try:
            if not 0 <= self.port < 65536:  # getaddrinfo would take it modulo 65536
                raise OverflowError("a port is a number from 0 to 65535")
            found = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # restart at once; two listeners still conflict
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(1024)
        except (OSError, OverflowError) as error:
            if sock is not None:
                sock.close()
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                text = f"{where} is taken: stop what listens there or choose another port"
            else:
                text = f"cannot listen on {where} ({error}): give an address of this machine and a port you may use"
            raise BadUsage(text) from None
        return sock

    # -- accepting -----------------------------------------------------------------------------------------------

    def _accept_on(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept, self._socket)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody is waiting."""
        for _ in range(BURST):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    self._turn_one_away(listening)
                    return
                log.debug("a connection ended before it was accepted: %s", error)
                continue
            most = self._settings.max_connections
            if len(self._connections) >= min(most, self._room) and not self._evict():
                limit = f"there are {len(self._connections)} connections, which is the limit"
                self._refuse(peer, SHORT if self._room < most else limit)
                sock.close()
                continue
            sock.setblocking(False)
            connection = Connection(self._settings, self._exposure, self._ended, self._gate, self._swelled)
            self._connections[connection] = None
            task = self._loop.create_task(self._open(connection, sock, peer))
            self._opening[connection] = task
            task.add_done_callback(partial(self._opened, connection))

    def _opened(self, connection: Connection, _: asyncio.Task[None]) -> None:
        self._opening.pop(connection, None)

    async def _open(self, connection: Connection, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        patience = self._settings.handshake if self._tls else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection.wire, sock, ssl=self._tls, ssl_handshake_timeout=patience
            )
        except OSError as error:
            if isinstance(error, ssl.SSLError):
                self._refuse(peer, f"no TLS with a certificate of this ring ({error.reason or error})")
            else:
                log.debug("a connection ended before it began: %s", error)
            sock.close()
            connection.abort()
            self._connections.pop(connection, None)

    def _ended(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if connection.refused:
            self._refusals.tell(connection.peer, connection.refused, self._loop.time())

    def _refuse(self, peer: tuple[Any, ...], reason: str) -> None:
        self._refusals.tell(f"{peer[0]}:{peer[1]}" if len(peer) > 1 else "peer", reason, self._loop.time())

    def _evict(self) -> bool:
        """Make room by ending the oldest connection that has never said anything; False if there is none."""
        oldest = next((connection for connection in self._connections if not connection.wire.frames), None)
        if oldest is None:
            return False
        del self._connections[oldest]
        oldest.abort()
        if (opening := self._opening.get(oldest)) is not None:  # it would sit in its handshake until that times out
            opening.cancel()
        return True

    def _swelled(self, change: int) -> None:
        """More, or less, is kept for those that send half a frame or do not read: not for ever more."""
        self._unfinished += change
        if change > 0 and self._unfinished > self._settings.max_unfinished:
            largest = max(self._connections, key=lambda connection: connection.unfinished)
            log.info("%d bytes are kept for peers that send or read too little: ending the largest", self._unfinished)
            largest.wire.fail("too much is waited for")

    def _look_for_room(self) -> float:
        """For how many connections there are descriptors, if they are limited to fewer than the settings allow for."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY or limit >= self._settings.max_connections + 2 * KEPT:
            return math.inf
        try:
            used = len(os.listdir("/dev/fd"))
        except OSError as error:
            log.debug("descriptors cannot be counted: %s", error)
            return math.inf
        return len(self._connections) + limit - min(KEPT, limit // 4) - used

    def _reserve(self) -> None:
        """Keep a descriptor for the day there are no others."""
        if self._spare < 0:
            try:
                self._spare = os.open(os.devnull, os.O_RDONLY)
            except OSError as error:
                log.debug("no spare descriptor: %s", error)

    def _turn_one_away(self, listening: socket.socket) -> None:
        """Out of descriptors: with the spare one close a connection that waits, so that it need not hang; breathe."""
        made_room = self._evict()
        if not made_room and self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
            try:
                sock, peer = listening.accept()
                sock.close()
                self._refuse(peer, SHORT)
            except OSError as error:
                log.debug("nobody to turn away: %s", error)
            self._reserve()
        self._loop.remove_reader(listening.fileno())
        self._timers["accept"] = self._loop.call_later(A_TURN if made_room else BREATH, self._accept_again)

    def _accept_again(self) -> None:
        self._reserve()
        self._accept_on()

    def _sweep(self) -> None:
        """End connections that never said anything, stopped in the middle of a frame, or were idle for too long; and
        see how many there may be."""
        self._room = self._look_for_room()
        while len(self._connections) > self._room and self._evict():
            pass
        now = self._loop.time()
        for connection in list(self._connections):
            if not connection.closed and not connection.busy and (reason := connection.wire.overdue(now)):
                connection.wire.fail(reason)
        settings = self._settings
        limits = [limit for limit in (settings.handshake, settings.half_frame, settings.idle) if limit]
        self._timers["sweep"] = self._loop.call_later(min(SWEEP, *(limit / 4 for limit in limits)), self._sweep)

    # -- ending --------------------------------------------------------------------------------------------------

    async def close(self, drain: float = 0.0) -> None:
        """Take no more connections and requests, give requests in work `drain` seconds, break off the rest, end all."""
        for timer in self._timers.values():
            timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        for task in self._opening.values():
            task.cancel()
        for connection in self._connections:
            connection.leave()
        await asyncio.sleep(0)  # what was begun in this turn takes its first step, before which it cannot be broken off
        await self._until(lambda: not any(connection.busy for connection in self._connections), drain)
        broken_off = [task for connection in self._connections for task in connection.cancel()]
        if broken_off:
            await asyncio.wait(broken_off, timeout=FLUSH)
        for connection in list(self._connections):
            connection.close()
        await self._until(lambda: not self._connections, FLUSH)
        for connection in list(self._connections):
            connection.abort()

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not condition() and loop.time() < deadline:
            await asyncio.sleep(0.01)
