"""How a node comes to its certificate: it founds a ring with certificates, comes with a token, or has one already."""

from __future__ import annotations

import socket
from enum import Enum
from typing import TYPE_CHECKING

from node.codec import Address
from node.errors import BadUsage, Unreachable
from node.settings import Settings
from node.trust.keyring import Keyring

if TYPE_CHECKING:  # an open ring starts without cryptography
    from node.remote.node import NodeOptions
    from node.trust.guard import Guard

LOOPBACK = "127.0.0.1"


class Way(Enum):
    """Into a ring."""

    OPEN = "without certificates"
    FOUND = "as the first node of a ring with certificates"
    ENROL = "with a token"
    KNOWN = "with the certificate that is here"


def way_in(options: NodeOptions, keyring: Keyring) -> Way:
    """The way that was asked for: only loopback is open without a word. Raises BadUsage."""
    listens = Address(options.listen or LOOPBACK, 0)
    if keyring.exists:
        if options.insecure:
            raise BadUsage(f"{keyring.path} makes this a node of a ring with certificates: leave --insecure out")
        return Way.KNOWN
    if options.insecure:
        if options.secure or options.token is not None:
            raise BadUsage("--insecure is without certificates: leave it out, or --secure and the token")
        return Way.OPEN
    if options.token is not None:
        if options.first is None:
            raise BadUsage("a token is for joining: give FIRST_IP and PORT of a node of its ring")
        return Way.ENROL
    if not options.secure and listens.is_loopback:
        return Way.OPEN
    if options.first is None:
        return Way.FOUND
    raise BadUsage(
        f"joining with {listens.host} takes a token (--token), as the first node of that ring printed or `ring token` "
        "prints on its hosts; or --insecure, if that network is yours alone and the ring has no certificates"
    )


def own_host(way: Way, keyring: Keyring, first: Address | None) -> str:
    """Where to listen if nothing was said."""
    if way is Way.KNOWN and keyring.address:
        return keyring.address.host
    if way is Way.ENROL and first is not None:
        return _facing(first)
    return LOOPBACK


async def let_in(
    way: Way, keyring: Keyring, address: Address, first: Address | None, options: NodeOptions, settings: Settings
) -> Guard | None:
    """Go that way; the guard of this node, None where there are no certificates. Raises RingErrors."""
    if way is Way.OPEN:
        return None
    from node.remote.enrolment import enrol
    from node.trust.guard import Guard

    token = options.token
    named = (address.host, options.advertise or options.listen or address.host, "localhost")
    hosts = tuple(dict.fromkeys(name for name in named if name != "localhost" or address.is_loopback))
    if way is Way.FOUND:
        guard = Guard.found(keyring, hosts, settings)
    else:
        if way is Way.ENROL and token is not None and first is not None:
            token.check_grants("node")
            keyring.create(await enrol(first, token, str(address), settings, hosts), known=True)
        guard = Guard(keyring, settings, hosts)
        if token is not None and not guard.belongs_to(token):
            raise BadUsage(f"{keyring.path} is of another ring than the token: remove it, or use another directory")
    keyring.keep_address(address)
    return guard


def _facing(other: Address) -> str:
    """The address of this host that packets to the other one come from."""
    family = socket.AF_INET6 if ":" in other.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other.host, other.port))
        except OSError as error:
            raise Unreachable(f"no way to {other} ({error.strerror}): check the address") from None
        return str(probe.getsockname()[0])
