"""A program's connection to a ring: any node will do, another one if it dies.

The methods are those a plain RPyC client has. What was certainly not done is tried again until the deadline; a put or
delete whose outcome is unknown is not, since another client may have written the key meanwhile.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from node.codec import Address
from node.errors import BadValue, Definite, NotARing, OutcomeUnknown, StoreFull, Unavailable, Unreachable
from node.remote.connection import Connection
from node.remote.pool import connect
from node.settings import Settings

ConnInfo = tuple[str, int, str, str]
"""(ip, port, id, neighbour id) of a member."""
FINAL = (BadValue, StoreFull, NotARing)
"""Definite errors that trying again does not mend."""


class Session:
    """One connection at a time, to the first of `nodes` that answers. A node that is silent is left for the next."""

    def __init__(
        self,
        nodes: Iterable[Address],
        settings: Settings,
        tls: ssl.SSLContext | None = None,
        known: Callable[[], Iterable[Address]] = tuple,
    ) -> None:
        """`known`: nodes that others have heard of since, as those of `nodes` may all have left."""
        self._nodes = list(nodes)
        self._known = known
        self._settings = settings
        self._tls = tls
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._left: set[Connection] = set()
        self._reached = False

    def beside(self, node: Address) -> Session:
        """One like this with another node."""
        return Session([node], self._settings, self._tls)

    def show(self, tls: ssl.SSLContext) -> None:
        """From now on connect with another certificate; calls under way may still be answered."""
        self._tls = tls
        if self._connection is not None:
            self._let_go(self._connection)

    @property
    def node(self) -> Address:
        """The node that is spoken to, or would be next."""
        return self._nodes[0]

    async def put(self, key: Any, value: Any) -> tuple[int, int]:
        """Store a value; its version. Raises OutcomeUnknown if it may or may not have been stored."""
        version: tuple[int, int] = await self._call("put", key, value)
        return version

    async def get(self, key: Any) -> Any:
        """The value of a key, or None."""
        return await self._call("get", key, repeatable=True)

    async def delete(self, key: Any) -> bool:
        """Remove a key; whether it was there. Raises OutcomeUnknown as `put` does."""
        there: bool = await self._call("delete", key)
        return there

    async def get_conn_info(self) -> tuple[ConnInfo, ...]:
        """((ip, port, id, neighbour id), ...) of the whole ring; from now on these are the nodes tried."""
        infos: tuple[ConnInfo, ...] = await self._call("get_conn_info", repeatable=True)
        known = [Address(info[0], info[1]) for info in infos]
        self._nodes = list(dict.fromkeys([self.node, *known, *self._nodes]))
        return infos

    async def get_node(self, number: int, attribute: str) -> Any:
        """One attribute of the numbered node."""
        return await self._call("get_node", number, attribute, repeatable=True)

    async def ask(self, name: str, *arguments: Any) -> Any:
        """What an exposed method that changes nothing returns."""
        return await self._call(name, *arguments, repeatable=True)

    async def do(self, name: str, *arguments: Any) -> Any:
        """What an exposed method that does something returns. Raises OutcomeUnknown if it may or may not have."""
        return await self._call(name, *arguments)

    @property
    def ended(self) -> bool:
        """Whether the connection has ended since."""
        return self._connection is None or self._connection.closed

    async def _call(self, name: str, *arguments: Any, repeatable: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 4 * self._settings.operation
        pause = self._settings.backoff
        while True:
            connection = None
            try:
                connection = await self._connected()
                return await connection.call(name, *arguments, deadline=2 * self._settings.operation)
            except FINAL:
                raise
            except Unavailable:
                if loop.time() > deadline:
                    raise
            except Definite as error:
                if not self._reached:
                    raise
                if loop.time() > deadline:
                    raise Unavailable(f"{name}: no node of the ring answered in time, the last said: {error}") from None
            except OutcomeUnknown:
                if connection is not None:
                    self._leave(connection)
                if not repeatable or loop.time() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._settings.backoff_limit)

    def _leave(self, connection: Connection) -> None:
        """Go on with the next node; calls under way to this one may still be answered."""
        if connection is self._connection:
            self._let_go(connection)
            self._nodes.append(self._nodes.pop(0))

    def _let_go(self, connection: Connection) -> None:
        self._connection = None
        self._left = {each for each in (*self._left, connection) if not each.closed}

    async def _connected(self) -> Connection:
        """A live connection; if its node is gone, to the next one that answers. Raises Unreachable, NotARing."""
        async with self._connecting:
            if self._connection is not None and not self._connection.closed:
                return self._connection
            self._nodes += [node for node in self._known() if node not in self._nodes]
            for _ in range(len(self._nodes) - 1):
                try:
                    return await self._connect()
                except Unreachable:
                    self._nodes.append(self._nodes.pop(0))
            return await self._connect()

    async def _connect(self) -> Connection:
        host, port = self.node.host, self.node.port
        self._connection = await connect(host, port, self._settings, deadline=self._settings.connect, tls=self._tls)
        self._reached = True
        return self._connection

    def close(self) -> None:
        """End all connections."""
        for connection in (*self._left, *([self._connection] if self._connection else [])):
            connection.close()
