"""Connections to other nodes: one an address, shared by all calls, made when needed, with back-off when that fails.

Implements `node.transport.Transport` over RPyC. The two ends of a call between nodes are here: `Pool.call` and `answer`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from random import Random
from typing import Any

from node.codec import Address, Failure, error_of, failure_of, pack, unpack
from node.errors import BadValue, NotARing, OutcomeUnknown, RingError, Unreachable
from node.remote.connection import Connection
from node.settings import Settings
from node.transport import Receiver

log = logging.getLogger(__name__)

FINE, FAILED = b"\x00", b"\x01"
UNUSED = 60.0
"""Seconds after which a connection that nobody uses is closed."""


async def connect(host: str, port: int, settings: Settings, *, deadline: float) -> Connection:
    """A connection to the root object at `host:port`, within `deadline` seconds. Raises Unreachable, NotARing."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    try:
        async with asyncio.timeout(deadline):
            _, connection = await loop.create_connection(lambda: Connection(settings, None), host, port)
            await connection.handshake(deadline)
    except TimeoutError:
        if connection is not None:
            connection.abort()
        raise Unreachable(f"{host}:{port} does not answer within {deadline:.3g} s") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unreachable(f"nobody listens at {host}:{port}: {reason}; is the node running?") from None
    except (OutcomeUnknown, NotARing, Unreachable):
        if connection is not None:
            connection.abort()
        raise NotARing(f"what listens at {host}:{port} is not a node of a ring") from None
    return connection


async def answer(receiver: Receiver, method: Any, payload: Any) -> bytes:
    """What the exposed method `call` of a node returns: the result, or the error of our tree, in an envelope."""
    if type(method) is not str or type(payload) is not bytes:
        raise BadValue("call takes a method's name and packed arguments")
    try:
        return FINE + await receiver(method, payload)
    except RingError as error:
        return FAILED + pack(failure_of(error))
    except Exception:
        log.exception("%s failed", method)
        return FAILED + pack(Failure("RingError", (f"internal error in {method}: see the log of the node called",)))


@dataclass(slots=True)
class Peer:
    """What is known of one address."""

    connection: Connection | None = None
    connecting: asyncio.Task[Connection] | None = None
    failures: int = 0
    not_before: float = 0.0
    used: float = 0.0


class Pool:
    """The transport of a node."""

    def __init__(self, settings: Settings, random: Random) -> None:
        self._settings = settings
        self._random = random
        self._peers: dict[Address, Peer] = {}

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> bytes:
        """See `node.transport.Transport`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        peer = self._peers.get(to)
        if peer is None:
            self._drop_unused(loop.time())
            peer = self._peers[to] = Peer()
        peer.used = loop.time()
        connection = peer.connection
        if connection is None or connection.closed:
            connection = await self._connected(to, peer, deadline)
        reply = await connection.call("call", method, payload, deadline=max(until - loop.time(), 0.001))
        if type(reply) is not bytes or reply[:1] not in (FINE, FAILED):
            raise NotARing(f"{to} is not a node of a ring")
        if reply[:1] == FINE:
            return reply[1:]
        raise error_of(unpack(Failure, reply[1:]))

    async def _connected(self, to: Address, peer: Peer, deadline: float) -> Connection:
        """The connection of a peer, made anew if nobody is making it already. Raises Unreachable, NotARing."""
        loop = asyncio.get_running_loop()
        if peer.connecting is None:
            if loop.time() < peer.not_before:
                raise Unreachable(f"{to} could not be reached {peer.failures} times: waiting before the next attempt")
            peer.connecting = loop.create_task(self._connect(to, peer))
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.shield(peer.connecting)
        except TimeoutError:
            raise Unreachable(f"{to} takes longer than {deadline:.3g} s to connect") from None

    async def _connect(self, to: Address, peer: Peer) -> Connection:
        try:
            peer.connection = await connect(to.host, to.port, self._settings, deadline=self._settings.connect)
        except RingError:
            peer.failures += 1
            wait = min(self._settings.backoff * 2 ** min(peer.failures - 1, 16), self._settings.backoff_limit)
            peer.not_before = asyncio.get_running_loop().time() + wait * self._random.uniform(0.5, 1.0)
            raise
        else:
            peer.failures, peer.not_before = 0, 0.0
            return peer.connection
        finally:
            peer.connecting = None

    def _drop_unused(self, now: float) -> None:
        for address, peer in list(self._peers.items()):
            if now - peer.used > UNUSED and peer.connecting is None:
                if peer.connection is not None:
                    peer.connection.close()
                del self._peers[address]

    async def close(self) -> None:
        """End all connections; never blocks."""
        for peer in self._peers.values():
            if peer.connecting is not None:
                peer.connecting.cancel()
            if peer.connection is not None:
                peer.connection.close()
        self._peers.clear()
