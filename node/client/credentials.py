"""What lets a program or a person into a ring with certificates: one file, got with a token, renewed in time.

The file is TOML for us and PEM for everybody else, who skip what is not PEM: it serves as `certfile` and as `ca_certs`.
What makes certificates is imported only where there are any, so that open rings are as quick to reach as without.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import ssl
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from node.codec import Address, parse_address
from node.errors import BadUsage, NotTrusted, RingError
from node.remote.pool import connect
from node.settings import Settings

if TYPE_CHECKING:
    from node.trust.contexts import Credentials
    from node.trust.token import Token

log = logging.getLogger(__name__)

KEY = b"-----BEGIN PRIVATE KEY-----"


def default_path() -> Path:
    """~/.config/rpychord/credentials.toml, or below $XDG_CONFIG_HOME."""
    wanted = Path(os.environ.get("XDG_CONFIG_HOME") or ".")
    base = wanted if wanted.is_absolute() else Path.home() / ".config"
    return base / "rpychord" / "credentials.toml"


async def login(token: Token, address: Address, settings: Settings, path: Path | None = None) -> Path:
    """Get a client's certificate with a token from the node at `address`; the file it is kept in.

    Raises as `node.remote.enrolment.enrol` does, BadUsage if the file cannot be written.
    """
    from node.remote.enrolment import enrol

    token.check_grants("client")
    path = path or default_path()
    name = f"{_user()}@{socket.gethostname()}"
    _write(path, await enrol(address, token, name, settings), address)
    return path


def logout(path: Path | None = None) -> tuple[Path, Address | None]:
    """Remove what `login` wrote: the file, and the node it came from, if that can be read. Raises BadUsage if there is
    none."""
    path = path or default_path()
    try:
        address = read(path)[1]
    except BadUsage:
        address = None
    try:
        path.unlink()
    except FileNotFoundError:
        raise BadUsage(f"nobody is logged in: there is no {path}") from None
    except OSError as error:
        raise BadUsage(f"cannot remove {path}: {error.strerror}") from None
    return path, address


async def tls(settings: Settings, nodes: Iterable[Address], path: Path | None = None) -> ssl.SSLContext | None:
    """For `connect(..., tls=...)` with these nodes; None if they are to be spoken to without certificates, see `of`."""
    credentials = await of(settings, nodes, path)
    return None if credentials is None else context(credentials)


def context(credentials: Credentials) -> ssl.SSLContext:
    """For `connect(..., tls=...)`."""
    from node.trust.contexts import client_context

    return client_context(credentials)


async def of(
    settings: Settings, nodes: Iterable[Address], path: Path | None = None, held: Credentials | None = None
) -> Credentials | None:
    """Those to show these nodes; None if they are to be spoken to without certificates.

    That is so if nobody logged in here, and on loopback, where rings are open, unless one logged in on loopback and the
    first of these nodes that answers takes certificates. Those that are soon to end are renewed first, if a node
    answers. `held`: what was shown until now, which may be newer than a file that cannot be written.
    """
    path, nodes = path or default_path(), tuple(nodes)
    if not path.exists():
        return None
    credentials, address = read(path)
    if held is not None and held.until > credentials.until and held.authority == credentials.authority:
        credentials = held
    if all(node.is_loopback for node in nodes) and (
        not address.is_loopback or await _are_open(nodes, settings, context(credentials))
    ):
        return None
    if credentials.due:
        renewed = await _renewed(credentials, dict.fromkeys((*nodes, address)), settings)
        if renewed is not None:
            credentials = renewed
            try:
                _write(path, credentials, address)
            except BadUsage as error:
                log.warning("the renewed certificate is not kept: %s", error)
    return credentials


def read(path: Path) -> tuple[Credentials, Address]:
    """What `login` wrote, and the node it came from. Raises BadUsage for a file that is not as it was written."""
    from node.trust.contexts import Credentials

    try:
        told = tomllib.loads(path.read_text())
        credentials = Credentials(told["authority"].encode(), (told["certificate"] + told["key"]).encode())
        return credentials, parse_address(told["address"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadUsage) as error:
        raise BadUsage(f"{path} cannot be used ({error}): remove it, and `ring login` again") from None


async def _are_open(nodes: Iterable[Address], settings: Settings, context: ssl.SSLContext) -> bool:
    """Whether the first of these nodes that answers does so without certificates, and does not take them."""
    for node in nodes:
        for tls in (context, None):
            try:
                connection = await connect(node.host, node.port, settings, deadline=settings.connect, tls=tls)
            except NotTrusted:
                return False
            except RingError:
                continue
            connection.close()
            return tls is None
    return False


async def _renewed(old: Credentials, nodes: Iterable[Address], settings: Settings) -> Credentials | None:
    """With a new certificate, from the first node that gives one; None if none does."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from node.trust.certificates import Request, pem_of_key
    from node.trust.contexts import Credentials

    key = Ed25519PrivateKey.generate()
    tls = context(old)
    for node in nodes:
        try:
            connection = await connect(node.host, node.port, settings, deadline=settings.connect, tls=tls)
            try:
                issued: bytes = await connection.call("renew", Request.sign(key, "renewed"), deadline=settings.call)
                return Credentials(old.authority, issued + pem_of_key(key))
            finally:
                connection.close()
        except RingError as error:
            log.info("the certificate could not be renewed at %s: %s", node, error)
    return None


def _write(path: Path, credentials: Credentials, address: Address) -> None:
    """Keep them for `read`, and for no other user. Raises BadUsage."""
    from node.trust.keyring import write_private

    certificate, key = credentials.identity.split(KEY)
    parts = (("certificate", certificate), ("key", KEY + key), ("authority", credentials.authority))
    text = f'address = "{address}"\n' + "".join(f'{name} = """\n{pem.decode()}"""\n' for name, pem in parts)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, text.encode())
    except OSError as error:
        raise BadUsage(f"cannot write {path}: {error.strerror}") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
