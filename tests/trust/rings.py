"""Rings with certificates inside one loop, and strangers who try what they get from a node."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.codec import Address
from node.remote.connection import Connection
from node.remote.enrolment import enrol
from node.remote.node import Node, NodeOptions
from node.remote.pool import connect
from node.settings import Settings
from node.trust.certificates import Authority, pem_of_key
from node.trust.contexts import Credentials, client_context
from node.trust.keyring import Keyring
from node.trust.token import Token
from tests.remote.ends import HOST, Raw, call

SETTINGS = replace(Settings(), trust_period=0.2, evict=2.0)


class SecureRing:
    """Nodes below one directory, closed with it."""

    def __init__(self, directory: Path, settings: Settings = SETTINGS) -> None:
        self.directory = directory
        self.settings = settings
        self.nodes: list[Node] = []
        self._data: dict[Node, Path] = {}

    async def first(self, **options: Any) -> Node:
        """Found it."""
        return await self._start(self._options(secure=True, **options))

    async def join(self, token: str | None = None, through: Node | None = None, **options: Any) -> Node:
        """One more node, with this token or a new one of the node it comes through."""
        through = through or self.nodes[0]
        text = token or await self.operate(through, "make_token", "node", 1, 600)
        return await self._start(self._options(first=through.address, token=Token.read(text), **options))

    async def of(self, count: int, **options: Any) -> list[Node]:
        """Found it and have others join."""
        await self.first(**options)
        for _ in range(count - 1):
            await self.join()
        return self.nodes

    async def again(self, node: Node, **options: Any) -> Node:
        """Start one that was closed on its directory, with no word about trust."""
        self.forget(node)
        return await self._start(NodeOptions(data=self.data(node), port=node.address.port, **options))

    async def back(self, options: list[NodeOptions]) -> None:
        """Start all of a ring that rests."""
        await asyncio.gather(*map(self._start, options))

    def forget(self, node: Node) -> None:
        """It is none of the ring any more."""
        self.nodes.remove(node)

    def _options(self, **options: Any) -> NodeOptions:
        return NodeOptions(data=self.directory / f"node{len(self._data)}", port=0, **options)

    async def _start(self, options: NodeOptions) -> Node:
        node = Node(options, self.settings)
        self._data[node] = options.data
        await node.start()
        self.nodes.append(node)
        return node

    def data(self, node: Node) -> Path:
        """The directory of a node, also of one that is forgotten."""
        return self._data[node]

    def credentials(self, node: Node) -> Credentials:
        """What a node shows."""
        return Keyring(self.data(node)).load()

    @asynccontextmanager
    async def connection(self, node: Node, credentials: Credentials) -> AsyncIterator[Connection]:
        """Somebody with credentials, connected to a node."""
        context = client_context(credentials)
        connection = await connect(HOST, node.address.port, self.settings, deadline=10, tls=context)
        try:
            yield connection
        finally:
            connection.close()

    async def ask(self, node: Node, credentials: Credentials) -> Any:
        """What stands under `k`."""
        async with self.connection(node, credentials) as connection:
            return await connection.call("get", "k", deadline=10)

    async def operate(self, node: Node, method: str, *arguments: Any) -> Any:
        """What an operator does, with the certificate of a node."""
        async with self.connection(node, self.credentials(node)) as connection:
            return await connection.call(method, *arguments, deadline=10)

    async def token(self, grants: str, uses: int = 1, valid: float = 600) -> Token:
        return Token.read(await self.operate(self.nodes[0], "make_token", grants, uses, valid))

    async def client(self, node: Node | None = None) -> Credentials:
        """The credentials of a new client."""
        at = (node or self.nodes[0]).address
        return await enrol(at, await self.token("client"), "ann@laptop", self.settings)

    def authority(self, node: Node | None = None) -> Authority:
        """The ring's, which every node has."""
        return Authority.load(self.credentials(node or self.nodes[0]).authority_key)

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()


@asynccontextmanager
async def secure_ring(directory: Path, settings: Settings = SETTINGS) -> AsyncIterator[SecureRing]:
    """An empty one."""
    ring = SecureRing(directory, settings)
    try:
        yield ring
    finally:
        await ring.close()


def issued(authority: Authority, kind: str, id: str, life: float = 600.0, pem: bytes = b"") -> Credentials:
    """Credentials that an authority issues to somebody whom no ring knows."""
    key = Ed25519PrivateKey.generate()
    return Credentials(pem or authority.pem, authority.issue(kind, id, key.public_key(), life) + pem_of_key(key))


async def what_it_gets(address: Address, context: ssl.SSLContext | None) -> bytes:
    """The application data that a node sends to somebody who connects so and asks for something."""
    try:
        reader, writer = await asyncio.open_connection(HOST, address.port, ssl=context)
    except OSError:
        return b""
    raw = Raw(reader, writer)
    received = b""
    try:
        await raw.send(call(1, "get", "key") + call(2, "enroll", b""))
        async with asyncio.timeout(10):
            while data := await reader.read(1 << 16):
                received += data
                if b"\n" in received:
                    break
    except OSError:
        pass
    finally:
        raw.close()
    return received
