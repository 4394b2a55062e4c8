"""How attackers get to a node: with nothing in an open ring; in one with certificates as a client, with a token, or as
strangers who show the wrong thing."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from node.codec import Address
from node.remote.enrolment import enrol
from node.remote.pool import connect
from node.settings import Settings
from node.trust.certificates import Authority
from node.trust.contexts import client_context
from node.trust.keyring import Keyring
from node.trust.token import Token
from tests.fuzz.attack import Target
from tests.fuzz.endings import trusting
from tests.fuzz.requests import BEARER, CLIENT, OPEN_RING
from tests.remote.ends import HOST
from tests.ring.nodes import NodeProcess
from tests.trust.rings import issued


@dataclass(frozen=True, slots=True)
class Entrances:
    """To one node."""

    targets: tuple[Target, ...]
    """The first of them is the one most attackers take."""
    honest: ssl.SSLContext | None = None
    """What an honest client connects with."""
    strangers: tuple[ssl.SSLContext, ...] = ()

    @classmethod
    async def to(cls, node: NodeProcess, settings: Settings) -> Entrances:
        """Whatever its ring is."""
        keyring = Keyring(node.directory)
        if not keyring.exists:
            return cls((Target(node.port, OPEN_RING),))
        address, own = Address(HOST, node.port), client_context(keyring.load())
        operator = await connect(HOST, node.port, settings, deadline=10, tls=own)
        texts = [await operator.call("make_token", "client", uses, 36_000, deadline=10) for uses in (2, 5)]
        operator.close()
        token, spare = map(Token.read, texts)
        hostile, honest = [await enrol(address, token, name, settings) for name in ("hostile", "honest")]
        strange = issued(Authority.new(), "client", "0123456789abcdef"), issued(Authority.new(), "node", "0" * 16)
        return cls(
            (
                Target(node.port, CLIENT, client_context(hostile)),
                Target(node.port, BEARER, client_context(spare.credentials)),
            ),
            client_context(honest),
            (trusting(), *map(trusting, strange)),
        )
