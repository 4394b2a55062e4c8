"""`ring login`, `logout`, and for who operates a host of the ring: `ring token`, `revoke`, `rotate-tokens`, `certify`.

The operator's commands act with the certificate of a node of this host, through that node.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.arguments import AddressType, run_loop
from node.cli.lifetime import join_line
from node.cli.serve import default_directory, read_token
from node.codec import PORT, Address
from node.errors import BadUsage
from node.settings import Settings

if TYPE_CHECKING:
    from node.trust.certificates import Authority

with_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=f"Data directory of a node of this host that runs. [that of a node on port {PORT}]",
)


@click.command()
@click.argument("token", envvar="RPYCHORD_TOKEN", required=False)
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="A file with it.")
@click.option("--node", type=AddressType(), help=f"A node of the ring. [localhost:{PORT}]")
def login(token: str | None, token_file: Path | None, node: Address | None) -> int:
    """Let this user into a ring with certificates.

    TOKEN is what `ring token --client` printed on a host of the ring. What it gives is kept in
    ~/.config/rpychord/credentials.toml and used from then on.
    """
    from node.client import credentials
    from node.trust.token import Token

    text = read_token(token_file) if token_file is not None else token
    if text is None:
        raise BadUsage("give the token that `ring token --client` printed on a host of the ring")
    bearing = Token.read(text)
    address = node or Address("localhost", PORT)
    path = run_loop(lambda: credentials.login(bearing, address, Settings()))
    print(f"welcome to the ring of {address}: your certificate is in {path}")
    return 0


@click.command()
def logout() -> int:
    """Remove the certificate that `ring login` got.

    Whoever has a copy of it is let in until it ends, within 30 days, or until `ring revoke` on a host of the ring.
    """
    from node.client import credentials

    path, address = credentials.logout()
    ring = f"the ring of {address}" if address else "a ring, of which one cannot tell which it was"
    print(f"logged out of {ring}: {path} is removed")
    return 0


@click.command()
@click.option("--client", is_flag=True, help="For a client: it may do what people do, and let nobody in.")
@click.option("--uses", type=click.IntRange(1, 65535), default=1, metavar="N", help="How many may come with it. [1]")
@click.option("--valid", type=click.FloatRange(0, 24 * 366, min_open=True), metavar="HOURS", help="For how long. [24]")
@with_data
def token(client: bool, uses: int, valid: float | None, data: Path | None) -> int:
    """Print what lets another machine, or with --client another user, into the ring."""
    seconds = Settings().token if valid is None else 3600 * valid
    address, made = ask(data, "make_token", "client" if client else "node", uses, seconds)
    print(f"ring login {made} --node {address}" if client else join_line(address, made))
    return 0


@click.command()
@click.argument("name", metavar="HOST")
@with_data
def revoke(name: str, data: Path | None) -> int:
    """Trust a host, or a client, no more: all its connections end, within seconds.

    HOST is how it was let in: HOST, HOST:PORT, USER@HOST, or the id of a certificate. A wrong one is answered with all
    there are.
    """
    for each in ask(data, "revoke", name)[1]:
        print(f"revoked {each}")
    return 0


@click.command(name="rotate-tokens")
@with_data
def rotate_tokens(data: Path | None) -> int:
    """Make all tokens void that are not used up, and print a new one for a machine."""
    ask(data, "rotate_tokens")
    address, made = ask(data, "make_token", "node", 1, Settings().token)
    print(join_line(address, made))
    return 0


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Data directory of a node that rests.",
)
@click.option(
    "--authority",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Data directory of a node that has been certified, or a copy of its `trust`. [another authority is made]",
)
def certify(data: Path | None, authority: Path | None) -> int:
    """Give certificates to a node of an open ring, all of which is at rest.

    To be done for every node of the ring before any is started again: for the first one without --authority, for the
    others with what that one got.
    """
    from node.store.directory import Directory
    from node.trust.certificates import Authority
    from node.trust.guard import vouch
    from node.trust.keyring import Keyring

    directory = data or default_directory(PORT)
    keyring = Keyring(directory)
    if keyring.exists:
        raise BadUsage(f"{keyring.path} makes this a node of a ring with certificates already")
    if not Directory.is_one(directory):
        raise BadUsage(f"no node keeps its data in {directory}: give --data")
    held = Directory(directory)
    try:
        vouch(keyring, _authority_of(authority) if authority else Authority.new(), Settings())
    finally:
        held.close()
    print(f"{directory} is of a ring with certificates now")
    if authority is None:
        print(
            f"For every other node of its ring: ring certify --authority {keyring.path} (or a copy of that directory)"
        )
    return 0


def _authority_of(directory: Path) -> Authority:
    from node.trust.certificates import Authority
    from node.trust.keyring import AUTHORITY_KEY, Keyring

    below = directory if (directory / AUTHORITY_KEY).exists() else Keyring(directory).path
    try:
        return Authority.load((below / AUTHORITY_KEY).read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise BadUsage(f"cannot read the authority in {below}: {reason}") from None


def ask(data: Path | None, method: str, *arguments: Any) -> tuple[Address, Any]:
    """Call a method for operators of the node of this data directory; its address, and what it answered."""
    answered: tuple[Address, Any] = run_loop(lambda: asked(data or default_directory(PORT), method, *arguments))
    return answered


async def asked(data: Path, method: str, *arguments: Any) -> tuple[Address, Any]:
    """As `ask`."""
    from node.remote.pool import connect

    settings = Settings()
    address, context = operator(data)
    connection = await connect(address.host, address.port, settings, deadline=settings.connect, tls=context)
    try:
        return address, await connection.call(method, *arguments, deadline=2 * settings.operation)
    finally:
        connection.close()


def operator(data: Path) -> tuple[Address, ssl.SSLContext]:
    """Where the node of this data directory listens, and TLS with its certificate. Raises BadUsage if it has none."""
    from node.trust.contexts import client_context
    from node.trust.keyring import Keyring

    keyring = Keyring(data)
    address = keyring.address
    if address is None:
        raise BadUsage(f"no node of a ring with certificates keeps its data in {data}: give --data")
    return address, client_context(keyring.load())
