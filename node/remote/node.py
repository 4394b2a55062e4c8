"""A node as a process runs it: a store on disk, a listener, a pool of connections, and the ring node between them."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node.codec import Address
from node.errors import BadUsage, Unreachable
from node.identifiers import Identifier
from node.remote.listener import Listener
from node.remote.pool import Pool
from node.remote.service import RingService
from node.remote.way_in import Way, let_in, own_host, way_in
from node.replication.arrival import StartOptions
from node.replication.identity import IDENTITY
from node.replication.node import RingNode
from node.settings import Settings
from node.store.rocks import RocksStore, open_store
from node.trust.keyring import Keyring

if TYPE_CHECKING:  # an open ring starts without cryptography
    from node.remote.trusted import Trust
    from node.trust.token import Token

DRAIN = 2.0
"""Seconds that a leaving node lets requests under way finish."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What is typed on the command line, checked."""

    data: Path
    listen: str | None = None
    """None: where it listened before, the address by which it reaches `first` if it comes with a token, or loopback."""
    advertise: str | None = None
    """The address others reach this node at, if it is not `listen`."""
    port: int = 18861
    members: int = 1
    id: Identifier | None = None
    first: Address | None = None
    alone: bool = False
    replicas: int | None = None
    zone: str | None = None
    insecure: bool = False
    secure: bool = False
    token: Token | None = None
    consistency: str | None = None
    durability: str | None = None
    siblings: bool | None = None


class Node:
    """One process of the ring."""

    def __init__(self, options: NodeOptions, settings: Settings) -> None:
        self._options = options
        self._settings = settings
        self._store: RocksStore | None = None
        self._listener: Listener | None = None
        self._pool: Pool | None = None
        self._node: RingNode | None = None
        self._told = asyncio.Event()
        self._trust: Trust | None = None
        self._way = Way.OPEN
        self.invitation = ""
        """A token for the second node, of the first one after it has founded a ring with certificates."""

    @property
    def address(self) -> Address:
        """Where others reach it; known once `start` has begun."""
        return self._running.address

    @property
    def id(self) -> Identifier:
        """The id of its first member."""
        return self._running.residence.first.me.id

    def names(self) -> dict[str, str]:
        """Its address and the id of its first member, as far as it has them."""
        if self._node is None:
            return {}
        id = {"id": self.id.hex} if self._node.residence.members else {}
        return {"address": str(self.address), **id}

    @property
    def _running(self) -> RingNode:
        if self._node is None:
            raise BadUsage("the node has not been started")
        return self._node

    async def start(self) -> None:
        """Open the store, listen, join or found the ring. Raises RingErrors; then everything is closed again, and
        gone if it was made for this."""
        try:
            await self._start()
        except BaseException:
            if self._node is None or not self._node.serving:
                self._undo()
            await self.close()
            raise

    def _undo(self) -> None:
        """Have nothing stay that was made, but a certificate and what goes with it: its token may be used up."""
        keyring = Keyring(self._options.data)
        if self._way is Way.FOUND:
            keyring.remove()
        if self._store is not None and not keyring.exists:
            self._store.undo()

    async def _start(self) -> None:
        options, settings = self._options, self._settings
        keyring = Keyring(options.data)
        way = self._way = way_in(options, keyring)
        first = await _resolved(options.first.host, options.first.port) if options.first else None
        listen = options.listen or own_host(way, keyring, first)
        advertised = await _resolved(options.advertise or listen, options.port)
        self._store = await open_store(options.data)
        if way is Way.FOUND and await self._store.read_note(IDENTITY):
            raise BadUsage(
                f"{options.data} belongs to a ring without certificates: go on with --insecure, or see `ring certify`"
            )
        self._pool = Pool(settings, random.Random())
        self._listener = Listener(settings, listen, options.port)
        self._listener.bind()
        address = Address(advertised.host, self._listener.port)
        guard = await let_in(way, keyring, address, first, options, settings)
        self._node = await RingNode.open(
            address, self._store, self._pool, settings, random.Random(), _clock, time.time, _boot()
        )
        if guard is None:
            self._listener.serve(RingService(self._node, self._told.set))
        else:
            from node.remote.trusted import Trust

            self._trust = Trust(guard, self._node, self._listener, self._pool, self._told.set)
            self._trust.serve()
        await self._node.start(
            StartOptions(
                members=options.members,
                id=options.id,
                first=first,
                alone=options.alone,
                zone=options.zone,
                replicas=options.replicas,
                consistency=options.consistency,
                durability=options.durability,
                siblings=options.siblings,
            )
        )
        if self._trust is not None:
            self._trust.begin()
            if way is Way.FOUND:
                self.invitation = await self._trust.found()

    async def stopped(self) -> None:
        """Returns never; raises what ended the node from inside."""
        failures = [self._running.tasks.failed, *([self._trust.tasks.failed] if self._trust is not None else [])]
        ended, _ = await asyncio.wait(failures, return_when=asyncio.FIRST_COMPLETED)
        ended.pop().result()

    async def told_to_leave(self) -> None:
        """Returns once somebody asked over the network that this node leave."""
        await self._told.wait()

    async def leave(self) -> None:
        """Hand everything over, say goodbye, close."""
        if self._node is not None:
            await self._node.leave()
        await self.close(drain=DRAIN)

    async def close(self, drain: float = 0.0) -> None:
        """Stop at once, but for requests under way, which get `drain` seconds."""
        if self._trust is not None:
            await self._trust.tasks.stop()
        if self._node is not None:
            await self._node.stop()
        if self._listener is not None:
            await self._listener.close(drain)
        if self._pool is not None:
            await self._pool.close()
        if self._store is not None:
            await self._store.close()


def _clock() -> float:
    """Seconds that go on while the process or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> bytes:
    """The kernel's name for the time since the machine was started; where it has none, another every time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return random.SystemRandom().randbytes(16)


async def _resolved(host: str, port: int) -> Address:
    """The address as nodes compare it: a number, IPv4 first."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", "it is the name of none")
        raise Unreachable(f"no host {host!r}: {reason}; check the name or give an address") from None
    best = min(found, key=lambda info: info[0] != socket.AF_INET)
    if ipaddress.ip_address(best[4][0]).is_unspecified:
        raise BadUsage(f"{host} is no address that others can reach: give the one of a network card")
    return Address(str(best[4][0]), port)
