"""Getting a certificate with a token, from whichever node of the ring answers at an address."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.codec import Address
from node.errors import BadUsage, NotARing, NotTrusted, OutcomeUnknown, Unavailable, Unreachable
from node.remote.pool import connect
from node.settings import Settings
from node.trust.certificates import Request, pem_of_key
from node.trust.contexts import Credentials, client_context
from node.trust.token import Token


async def enrol(at: Address, token: Token, name: str, settings: Settings, hosts: tuple[str, ...] = ()) -> Credentials:
    """The credentials that a token gives, for a key made here, which never leaves this host.

    Asks again if the answer is lost, with the same key, which costs no further use of the token. Raises NotTrusted if
    the node at that address is of another ring or does not take the token, BadUsage if that is used up, void or ended.
    """
    key = Ed25519PrivateKey.generate()
    csr = Request.sign(key, name, hosts)
    deadline = asyncio.get_running_loop().time() + 2 * settings.operation
    while True:
        try:
            authority, certificate, authority_key = await _ask(at, token, csr, settings)
            break
        except (OutcomeUnknown, Unavailable):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(settings.backoff_limit)
    issued = Credentials(authority, certificate + pem_of_key(key), authority_key)
    if not issued.belong_together(key.public_key(), token.authority):
        raise NotARing(f"{at} answered with certificates that do not fit this token")
    return issued


async def _ask(at: Address, token: Token, csr: bytes, settings: Settings) -> tuple[bytes, bytes, bytes]:
    tls = client_context(token.credentials)
    try:
        connection = await connect(at.host, at.port, settings, deadline=settings.operation, tls=tls)
    except Unreachable as error:
        if token.until <= datetime.now(UTC):
            raise BadUsage(f"this token ended at {token.until:%F %R} UTC: make a new one with `ring token`") from None
        if not isinstance(error, NotTrusted):
            raise
        raise NotTrusted(f"{error}: is the token of this ring, and still good? `ring token` makes a new one") from None
    try:
        answer: tuple[bytes, bytes, bytes] = await connection.call("enroll", csr, deadline=settings.operation)
        return answer
    finally:
        connection.close()
