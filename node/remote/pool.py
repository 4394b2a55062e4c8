"""Connections to other nodes: one an address, shared by all calls, made when needed, with back-off when that fails.

Implements `node.transport.Transport` over RPyC. The two ends of a call between nodes are here, with the envelope that
answers travel in: `Pool.call` and `answer`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from node.codec import Address, Failure, Packed, error_of, failure_of, pack, unpack
from node.errors import BadValue, NotARing, NotTrusted, OutcomeUnknown, RingError, Unreachable, shown
from node.events import Event
from node.remote.connection import Connection, Gate
from node.remote.exposure import Exposure
from node.remote.translation import let_go
from node.settings import Settings
from node.transport import Receiver
from node.trust.party import Party

log = logging.getLogger(__name__)

FINE, FAILED = b"\x00", b"\x01"
"""First byte of an answer: the packed result follows, or the packed error."""
CLIENT_METHODS = frozenset(
    ["ring.hello"]
    + [f"chain.{name}" for name in ("chart", "read", "write", "scan", "count", "watch")]
    + [f"eventual.{name}" for name in ("contacts", "get_many", "put_many", "delete_many", "scan", "count")]
)
"""What a client may `call` that has a certificate of its own: nothing else of what nodes ask each other."""
UNUSED = 60.0
"""Seconds after which a connection that nobody uses is closed."""
MOST = 1024
"""Connections kept at most; beyond it those unused for longest are closed."""
TIDY = 15.0
"""Seconds between two looks for unused connections."""


async def connect(
    host: str,
    port: int,
    settings: Settings,
    *,
    deadline: float,
    root: object = None,
    tls: ssl.SSLContext | None = None,
) -> Connection:
    """A connection to the root object at `host:port`, within `deadline` seconds.

    Raises Unreachable if nobody answers in time, NotTrusted if one end does not believe the other, NotARing if what
    answers is no RPyC service.
    """
    return await _connect(Address(host, port), settings, deadline, Exposure(root), tls, None)


async def _connect(
    to: Address,
    settings: Settings,
    deadline: float,
    exposure: Exposure,
    tls: ssl.SSLContext | None,
    gate: Gate | None,
) -> Connection:
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline
    connection = Connection(settings, exposure, gate=gate)
    try:
        async with asyncio.timeout_at(until):
            await loop.create_connection(lambda: connection.wire, to.host, to.port, ssl=tls)
        await connection.handshake(until - loop.time())
    except TimeoutError:
        connection.abort()
        raise Unreachable(f"{to} does not answer within {deadline:.3g} s: is the host up?") from None
    except ssl.SSLError as error:
        connection.abort()
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        raise NotTrusted(f"what listens at {to} does not prove that it belongs to this ring ({reason})") from None
    except OSError as error:
        connection.abort()
        reason = error.strerror or str(error)
        if isinstance(error, socket.gaierror):
            raise Unreachable(f"no host {shown(to.host)} ({reason}): check the name") from None
        if tls and isinstance(error, (ConnectionAbortedError, ConnectionResetError)):
            raise Unreachable(f"{to} takes connections, but not with certificates: is its ring an open one?") from None
        raise Unreachable(f"nobody listens at {to} ({reason}): is the node running?") from None
    except ValueError:
        connection.abort()
        raise Unreachable(f"{shown(to.host)} is the name of no host: check it, or give an address") from None
    except (OutcomeUnknown, Unreachable) as error:
        connection.abort()
        if reason := connection.distrust or connection.wire.tls_error:
            raise NotTrusted(f"{to} and this side do not trust each other: {reason}") from None
        if connection.wire.garbage:
            raise NotARing(f"what listens at {to} is not a node of a ring: {error}") from None
        hint = "this certificate may be revoked" if tls else "a ring with certificates answers only those who have one"
        raise Unreachable(f"{to} takes connections and does not answer on them: {error}; {hint}") from None
    except BaseException:
        connection.abort()
        raise
    return connection


def answer(
    receiver: Receiver, method: Any, payload: Any, at_once: Callable[[str, bytes], bytes | None] = lambda *_: None
) -> bytes | Awaitable[bytes]:
    """What the exposed method `call` of a node returns: the result, or the error of our tree, in an envelope.
    `at_once`: the result if it is there without waiting, else None."""
    if type(method) is not str or type(payload) is not bytes:
        raise BadValue("call takes a method's name and packed arguments")
    try:
        result = at_once(method, payload)
    except Exception as error:  # noqa: BLE001 - told to who asked
        return _failed(method, error)
    return FINE + result if result is not None else _answer_later(receiver, method, payload)


async def _answer_later(receiver: Receiver, method: str, payload: bytes) -> bytes:
    try:
        return FINE + await receiver(method, payload)
    except Exception as error:  # noqa: BLE001 - told to who asked
        return _failed(method, error)


def _failed(method: str, error: Exception) -> bytes:
    if isinstance(error, RingError):
        let_go(error)
        return FAILED + _packed(error)
    log.error("%s failed", method, exc_info=error)
    return FAILED + _packed(RingError(f"internal error in {method[:80]}: the log of the node called has the details"))


def _packed(error: RingError) -> bytes:
    try:
        return pack(failure_of(error))
    except (RingError, ValueError, TypeError, OverflowError):  # an argument of the error that does not travel
        return pack(Failure(type(error).__name__, tuple(ascii(argument)[:1000] for argument in error.args)))


def opened(reply: Any, to: Address) -> Packed:
    """The result in an answer. Raises the error in it, NotARing if it is none."""
    if type(reply) is bytes or type(reply) is memoryview:
        if reply[:1] == FINE:
            return reply[1:]
        if reply[:1] == FAILED:
            raise error_of(unpack(Failure, reply[1:]))
    raise NotARing(f"{to} is not a node of a ring, or one of another version")


@dataclass(slots=True)
class Peer:
    """What is known of one address."""

    connection: Connection | None = None
    connected: float = 0.0
    connecting: asyncio.Task[Connection] | None = None
    failures: int = 0
    reason: str = ""
    not_before: float = 0.0
    used: float = 0.0


class Pool:
    """The transport of a node. To its peers it exposes `root` too, if it is given one."""

    def __init__(
        self, settings: Settings, random: Random, root: object = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._random = random
        self._exposure = Exposure(root)
        self._tls = tls
        self._gate: Gate | None = None
        self._peers: dict[Address, Peer] = {}
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False

    def secure(self, tls: ssl.SSLContext, gate: Gate) -> None:
        """From now on connect under TLS, and only with whom the gate lets through."""
        self._tls = tls
        self._gate = gate

    def another(self) -> Pool:
        """One more for the same client, with connections of its own."""
        return Pool(self._settings, self._random, tls=self._tls)

    def show(self, tls: ssl.SSLContext, grace: float) -> None:
        """From now on connect with another certificate; see `begin_anew`."""
        self._tls = tls
        self.begin_anew(grace)

    def end_those(self, whom: Callable[[Party], str]) -> None:
        """End all connections with peers of whom there is a reason to say so."""
        for peer in self._peers.values():
            if peer.connection is not None:
                peer.connection.end_if(whom)

    def begin_anew(self, grace: float) -> None:
        """Make further calls on new connections; calls on those there are have `grace` seconds to end."""
        for peer in self._peers.values():
            if peer.connection is not None:
                asyncio.get_running_loop().call_later(grace, peer.connection.close)
                peer.connection = None

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> Packed:
        """See `node.transport.Transport`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        peer = self._peers.get(to) or self._add(to)
        peer.used = now
        connection = peer.connection
        if connection is None or connection.closed:
            connection = await self._connected(to, peer, deadline)
            deadline -= loop.time() - now
        return opened(await connection.relay(method, payload, deadline), to)

    def _add(self, to: Address) -> Peer:
        if self._closed:
            raise Unreachable(f"nothing was sent to {to}: this node is shutting down")
        if self._tidying is None:
            self._tidy()
        while len(self._peers) >= MOST and (idle := [at for at, peer in self._peers.items() if not _in_use(peer)]):
            self._drop(min(idle, key=lambda at: self._peers[at].used))
        peer = self._peers[to] = Peer()
        return peer

    async def _connected(self, to: Address, peer: Peer, deadline: float) -> Connection:
        """The connection of a peer, made anew if nobody is making it already. Raises Unreachable, NotARing."""
        loop = asyncio.get_running_loop()
        if peer.connecting is None:
            self._note_loss(to, peer, loop.time())
            if loop.time() < peer.not_before:
                raise Unreachable(f"nothing was sent to {to}, tried {peer.failures} times just now: {peer.reason}")
            peer.connecting = loop.create_task(self._connect(to, peer))
        connecting = peer.connecting
        await asyncio.wait((connecting,), timeout=deadline)
        if not connecting.done():
            raise Unreachable(f"{to} takes longer than {deadline:.3g} s to connect to")
        if connecting.cancelled():
            raise Unreachable(f"nothing was sent to {to}: this node is shutting down")
        return connecting.result()

    def _note_loss(self, to: Address, peer: Peer, now: float) -> None:
        """A connection that lasted is made again at once; one that broke soon counts as a failure."""
        if peer.connection is None:
            return
        peer.connection = None
        if now - peer.connected < self._settings.backoff_limit:
            self._back_off(peer, f"{to} ended the last connection soon", now)

    def _back_off(self, peer: Peer, reason: str, now: float) -> None:
        wait = min(self._settings.backoff * 2 ** min(peer.failures, 16), self._settings.backoff_limit)
        peer.failures += 1
        peer.reason = reason
        peer.not_before = now + wait * self._random.uniform(0.5, 1.0)

    async def _connect(self, to: Address, peer: Peer) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            connection = await _connect(
                to, self._settings, self._settings.connect, self._exposure, self._tls, self._gate
            )
        except RingError as error:
            distrusted = self._gate is not None and isinstance(error, NotTrusted | NotARing)
            if distrusted and str(error) != peer.reason:
                Event.PEER_REFUSED.tell(log, "%s", error)
            self._back_off(peer, str(error), loop.time())
            raise
        finally:
            peer.connecting = None
            if (task := asyncio.current_task()) is not None:
                task.add_done_callback(_seen)
        if self._closed or self._peers.get(to) is not peer:
            connection.abort()
            raise Unreachable(f"nothing was sent to {to}: this node is shutting down")
        peer.connection, peer.connected, peer.failures, peer.not_before = connection, loop.time(), 0, 0.0
        return connection

    def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        for address, peer in list(self._peers.items()):
            if not _in_use(peer) and loop.time() - peer.used > UNUSED:
                self._drop(address)
        self._tidying = loop.call_later(TIDY, self._tidy)

    def _drop(self, address: Address) -> None:
        connection = self._peers.pop(address).connection
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """End all connections; never blocks. Calls under way fail."""
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        for peer in self._peers.values():
            if peer.connecting is not None:
                peer.connecting.cancel()
            if peer.connection is not None:
                peer.connection.close()
        self._peers.clear()


def _in_use(peer: Peer) -> bool:
    return peer.connecting is not None or (peer.connection is not None and peer.connection.busy)


def _seen(task: asyncio.Task[Connection]) -> None:
    """Nobody may be waiting any more for a connection that failed: that is no error of the loop's."""
    if not task.cancelled():
        task.exception()
