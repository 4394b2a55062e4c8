"""Taking connections in: limits on their number and their patience, and an accept that outlives a lack of descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket

from node.errors import BadUsage
from node.remote.connection import Connection
from node.remote.exposure import Exposure
from node.settings import Settings

log = logging.getLogger(__name__)

SWEEP = 1.0
"""Seconds between two looks for connections that outstayed a deadline."""
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Listens on one address and serves one root object to everyone who connects."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self._settings = settings
        self._host = host
        self.port = port
        self._exposure: Exposure | None = None
        self._connections: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._spare = -1

    def bind(self) -> None:
        """Take the address. Raises BadUsage naming it if it cannot be had; port 0 becomes a free one."""
        self._socket = self._bound()
        self.port = self._socket.getsockname()[1]
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def serve(self, root: object) -> None:
        """Begin to take connections in."""
        assert self._socket is not None, "bind first"
        self._exposure = Exposure(root)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._accept(self._socket)), loop.create_task(self._sweep())]

    def _bound(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((self._host, self.port))
            sock.listen(1024)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise BadUsage(f"port {self.port} of {self._host} is taken: stop what listens there or choose another port") from None
            raise BadUsage(f"cannot listen on {self._host}:{self.port}: {error.strerror}") from None
        return sock

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    await self._turn_one_away(listening)
                continue
            if len(self._connections) >= self._settings.max_connections and not self._evict():
                sock.close()
                continue
            try:
                await loop.connect_accepted_socket(self._made, sock)
            except OSError as error:
                log.info("a connection ended before it began: %s", error)
                sock.close()

    def _made(self) -> Connection:
        connection = Connection(self._settings, self._exposure, self._connections.discard)
        self._connections.add(connection)
        return connection

    def _evict(self) -> bool:
        """Make room by ending the oldest connection that has never said anything; False if there is none."""
        silent = [connection for connection in self._connections if not connection.proven]
        if not silent:
            return False
        oldest = min(silent, key=lambda connection: connection.began)
        self._connections.discard(oldest)
        oldest.abort()
        return True

    async def _turn_one_away(self, listening: socket.socket) -> None:
        """Out of descriptors: free one, or use the spare to close a connection that waits, so that it need not hang."""
        log.warning("out of file descriptors: turning connections away; raise the limit (ulimit -n)")
        if not self._evict():
            os.close(self._spare)
            try:
                listening.accept()[0].close()
            except OSError:
                log.debug("nobody was waiting")
            self._spare = os.open(os.devnull, os.O_RDONLY)
        await asyncio.sleep(self._settings.backoff)

    async def _sweep(self) -> None:
        """End connections that never said anything, stopped in the middle of a frame, or have been idle for too long."""
        loop = asyncio.get_running_loop()
        settings = self._settings
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for connection in list(self._connections):
                silent = not connection.proven and now - connection.began > settings.handshake
                stuck = connection.midway and not connection.busy and now - connection.last_data > settings.half_frame
                idle = settings.idle and not connection.busy and now - connection.last_frame > settings.idle
                if silent or stuck or idle:
                    connection.abort()

    async def close(self, drain: float = 0.0) -> None:
        """Take no more connections, give requests under way `drain` seconds, end all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            os.close(self._spare)
            self._socket = None
        deadline = asyncio.get_running_loop().time() + drain
        while any(c.busy for c in self._connections) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.close()
