"""What a node shows to whom: the bearer of a token one method, a client what is for people, a node everything.

And the rounds that keep it so: who is revoked is heard from the ring, and cut off; the own certificate is renewed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from node.data import Stored
from node.errors import BadUsage, BadValue, NotTrusted, RingError, Unavailable, shown
from node.eventual.commons import Commons
from node.remote.exposure import Exposure
from node.remote.listener import Listener
from node.remote.pool import CLIENT_METHODS, Pool
from node.remote.service import RingService
from node.replication.node import RingNode
from node.tasks import Tasks
from node.trust.guard import Guard
from node.trust.ledger import Ledger
from node.trust.party import CLIENT, NODE, TOKEN, Party
from node.values import SYSTEM

log = logging.getLogger(__name__)


class TokenService:
    """What the bearer of a token can do."""

    def __init__(self, guard: Guard, ledger: Ledger, bearer: Party) -> None:
        self._guard = guard
        self._ledger = ledger
        self._bearer = bearer

    async def exposed_enroll(self, csr: Any) -> tuple[bytes, bytes, bytes]:
        """(authority's certificate, own certificate, authority's key or nothing), all PEM, for a certificate request.

        Raises BadUsage if the token is used up, void or ended.
        """
        issued = await self._guard.enrol(self._bearer, csr, self._ledger)
        return issued.authority, issued.identity, issued.authority_key


class ClientService(RingService):
    """What a client can do: all that is for people, and the few questions of nodes by which it goes straight to the
    right one."""

    def __init__(self, node: RingNode, depart: Callable[[], None], guard: Guard, client: Party) -> None:
        super().__init__(node, depart)
        self._guard = guard
        self._client = client

    def exposed_call(self, method: Any, payload: Any) -> bytes | Awaitable[bytes]:
        """Some of what nodes ask each other."""
        if type(method) is not str or method not in CLIENT_METHODS:
            raise BadUsage(f"{shown(method)} is for nodes, and this is a client's certificate")
        if type(payload) is bytes and SYSTEM in payload:
            raise BadValue(
                f"{SYSTEM!r} begins keys that are the ring's own, and is nothing a client may send in a call"
            )
        return super().exposed_call(method, payload)

    async def exposed_force_repair(self, confirm: Any = "") -> tuple[Any, ...]:
        """Only for who operates a node: it may give up data for good."""
        raise BadUsage("a repair by force takes the certificate of a node: `ring force-repair --data DIR` on its host")

    def exposed_renew(self, csr: Any) -> bytes:
        """A new certificate for the same client, PEM, for a certificate request, PEM."""
        return self._guard.renewed(self._client, csr)


class NodeService(RingService):
    """What a node of the ring can do, and whoever operates it with its certificate."""

    def __init__(self, node: RingNode, depart: Callable[[], None], trust: Trust) -> None:
        super().__init__(node, depart)
        self._trust = trust

    async def exposed_make_token(self, grants: Any, uses: Any, valid: Any) -> str:
        """A new token for a `node` or a `client`, with so many uses within so many seconds."""
        if type(grants) is not str or type(uses) is not int or type(valid) not in (int, float):
            raise BadValue("a token takes a kind, a number of uses and a number of seconds")
        return await self._trust.token(grants, uses, valid)

    async def exposed_rotate_tokens(self) -> None:
        """Make all tokens void that there are."""
        await self._trust.rotate_tokens()

    async def exposed_revoke(self, name: Any) -> tuple[str, ...]:
        """Trust nobody any more who is called so, by id, HOST:PORT or HOST; who that was."""
        if type(name) is not str or not name:
            raise BadValue(f"name who is to be revoked: an id, HOST:PORT or HOST, not {shown(name)}")
        return await self._trust.revoke(name)


class RingRecords:
    """The ring's own records, by the operations of a node: compared and set in a chain, joined in an eventual ring."""

    def __init__(self, node: RingNode) -> None:
        self._node = node

    async def read(self, key: bytes) -> tuple[Stored, ...]:
        """See `node.trust.ledger.Records`."""
        if not self._node.serving:
            raise Unavailable(f"{self._node.address} has not joined its ring yet: try again in a moment")
        data = self._node.data
        if isinstance(data, Commons):
            return await data.get_all(key)
        found = await data.operations.get(key)
        return () if found is None else (found,)

    async def write(self, key: bytes, value: bytes, over: tuple[Stored, ...]) -> None:
        """See `node.trust.ledger.Records`."""
        data = self._node.data
        if isinstance(data, Commons):
            await data.put_over(key, value, tuple(stored.version for stored in over))
        else:
            await data.operations.put_if(key, value, over[0].version if over else None)


class Trust:
    """Applies what a guard says to the connections of a node."""

    def __init__(
        self, guard: Guard, node: RingNode, listener: Listener, pool: Pool, depart: Callable[[], None]
    ) -> None:
        self.tasks = Tasks()
        self._guard = guard
        self._node = node
        self._listener = listener
        self._pool = pool
        self._depart = depart
        self._ledger = Ledger(RingRecords(node), node.settings)
        self._for_nodes = Exposure(NodeService(node, depart, self))

    def serve(self) -> None:
        """Begin to make connections and to take them in, each shown what its certificate allows."""
        self._pool.secure(self._guard.client, self._believed)
        self._listener.secure(self._guard.server, self._admitted)
        self._listener.serve(None)

    def begin(self) -> None:
        """Begin the rounds, once the node is in its ring."""
        self.tasks.spawn(self._keep())

    async def found(self) -> str:
        """Be the first one that the ring knows of; a token for the second."""
        await self._guard.be_known(str(self._node.address), self._ledger)
        return await self.token(NODE, 1, self._node.settings.token)

    async def token(self, grants: str, uses: int, valid: float) -> str:
        """A new one. Raises BadUsage."""
        return (await self._guard.token(grants, uses, valid, self._ledger)).text

    async def rotate_tokens(self) -> None:
        """Make all there are void."""
        await self._guard.rotate_tokens(self._ledger)

    async def revoke(self, name: str) -> tuple[str, ...]:
        """Trust nobody any more who is called so; who that was. Raises BadUsage."""
        gone = await self._guard.revoke(name, self._ledger)
        await self._heed()
        return gone

    def _believed(self, certificate: Any) -> tuple[Party, Exposure]:
        """A gate for whom we connect to: it may ask nothing back."""
        party = self._guard.admit(certificate)
        if party.kind != NODE:
            raise NotTrusted(f"{party} is no node")
        return party, Exposure(None)

    def _admitted(self, certificate: Any) -> tuple[Party, Exposure]:
        """A gate for whoever connects to us."""
        party = self._guard.admit(certificate)
        if party.kind == NODE:
            return party, self._for_nodes
        if party.kind == CLIENT:
            return party, Exposure(ClientService(self._node, self._depart, self._guard, party))
        if party.kind == TOKEN:
            return party, Exposure(TokenService(self._guard, self._ledger, party))
        raise NotTrusted(f"{party} is of no kind that is let in")

    async def _keep(self) -> None:
        """Hear who is revoked and cut them off, renew the own certificate: for ever."""
        settings = self._node.settings
        while True:
            await asyncio.sleep(settings.trust_period * self._node.random.uniform(0.75, 1.25))
            await self._heed()
            if self._guard.due:
                await asyncio.to_thread(self._guard.renew)
                self._guard.show_renewed()
                self._pool.begin_anew(settings.operation)

    async def _heed(self) -> None:
        """Hear who is revoked and cut them off."""
        try:
            await self._guard.refresh(self._ledger)
            await self._guard.be_known(str(self._node.address), self._ledger)
        except RingError as error:
            log.info("who is revoked is not known anew: %s; trying again", error)
        self._listener.end_those(self._guard.refuses)
        self._pool.end_those(self._guard.refuses)
        self._guard.check_oneself()
