"""Without a certificate of the ring that is good now, nothing is to be had but the end of the handshake."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from node.codec import Address
from node.errors import NotARing, NotTrusted
from node.remote.exposure import Exposure
from node.remote.listener import Listener
from node.remote.pool import Pool, connect
from node.trust import certificates
from node.trust.certificates import Authority
from node.trust.contexts import Credentials, client_context, server_context
from node.trust.guard import Guard
from node.trust.keyring import Keyring
from node.trust.ledger import Standing
from node.trust.token import Token
from tests.remote.ends import HOST, Root, eventually, failure_of, run
from tests.trust.rings import SETTINGS, SecureRing, issued, secure_ring, what_it_gets

pytestmark = pytest.mark.usefixtures("loops")
Stranger = Callable[[SecureRing], Awaitable[ssl.SSLContext | None]]


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def showing(credentials: Credentials) -> ssl.SSLContext:
    """Shows them, and takes any server."""
    context = client_context(credentials)
    context.verify_mode = ssl.CERT_NONE
    return context


async def plain_text(ring: SecureRing) -> None:
    return None


async def no_certificate(ring: SecureRing) -> ssl.SSLContext:
    return unverified()


async def certificate_of_another_ring(ring: SecureRing) -> ssl.SSLContext:
    return showing(issued(Authority.new(), "node", "0123456789abcdef"))


async def certificate_by_itself(ring: SecureRing) -> ssl.SSLContext:
    """Signed by a client of the ring, who is no authority, and shown with the whole chain."""
    client = await ring.client()
    signer = Authority.load(client.identity[client.identity.index(b"-----BEGIN PRIVATE") :])
    forged = issued(signer, "node", "0123456789abcdef", pem=client.authority)
    return showing(Credentials(forged.authority, forged.identity + client.identity))


async def expired(ring: SecureRing) -> ssl.SSLContext:
    return showing(issued(ring.authority(), "client", "0123456789abcdef", life=-1))


async def of_no_kind(ring: SecureRing) -> ssl.SSLContext:
    certificates.USES["other"] = certificates.USES["client"]
    try:
        return showing(issued(ring.authority(), "other", "0123456789abcdef"))
    finally:
        del certificates.USES["other"]


async def revoked(ring: SecureRing) -> ssl.SSLContext:
    client = await ring.client()
    await ring.operate(ring.nodes[0], "revoke", "ann@laptop")
    return showing(client)


async def token_of_another_ring(ring: SecureRing) -> ssl.SSLContext:
    return showing(Token.issue(Authority.new(), "node", 1, 0, 600).credentials)


async def token_that_ended(ring: SecureRing) -> ssl.SSLContext:
    return showing(Token.issue(ring.authority(), "node", 1, 0, -1).credentials)


async def tls_1_2(ring: SecureRing) -> ssl.SSLContext:
    context = showing(await ring.client())
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


STRANGERS = [
    plain_text,
    no_certificate,
    certificate_of_another_ring,
    certificate_by_itself,
    expired,
    of_no_kind,
    revoked,
    token_of_another_ring,
    token_that_ended,
    tls_1_2,
]


def test_strangers_get_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            friend = showing(await ring.client())
            for stranger in STRANGERS:
                assert await what_it_gets(node.address, await stranger(ring)) == b"", stranger.__name__
            friend = showing(await ring.client())
            assert await what_it_gets(node.address, friend) != b""

    run(scenario())


@pytest.mark.parametrize("kind", ["client", "token", "node"])
def test_nodes_talk_to_nobody_but_nodes_of_their_ring(tmp_path: Path, kind: str) -> None:
    """A client that listens is no node, nor is a node of another ring."""

    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            authority = Authority.new() if kind == "node" else ring.authority()
            listening = server_context(issued(authority, kind, "0123456789abcdef"))
            guard = Guard(Keyring(ring.data(node)), SETTINGS, (HOST, "localhost"))
            async with Listener(SETTINGS, HOST, 0, Root(), tls=listening) as listener:
                work = connect(HOST, listener.port, SETTINGS, deadline=5, tls=guard.client)
                assert type(await failure_of(work)) is NotTrusted

    run(scenario())


def test_a_node_does_not_talk_to_who_is_revoked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            guard = Guard(Keyring(ring.data(node)), SETTINGS, (HOST, "localhost"))
            impostor = issued(ring.authority(), "node", "0123456789abcdef")

            def pool() -> Pool:
                made = Pool(SETTINGS, random.Random(1))
                made.secure(guard.client, lambda certificate: (guard.admit(certificate), Exposure(None)))
                return made

            async with Listener(SETTINGS, HOST, 0, Root(), tls=server_context(impostor)) as listener:
                to = Address(HOST, listener.port)
                before, after = pool(), pool()
                assert type(await failure_of(before.call(to, "x", b"", deadline=5))) is NotARing  # it was heard
                guard.standing = Standing(0, ("0123456789abcdef",))
                before.end_those(guard.refuses)
                await eventually(lambda: not listener.connections)
                error = await failure_of(after.call(to, "x", b"", deadline=5))
                assert type(error) is NotTrusted and "revoked" in str(error)
                await before.close()
                await after.close()

    run(scenario())
