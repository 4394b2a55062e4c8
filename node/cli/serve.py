"""`python server.py`: start one node and stay until told to leave."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.arguments import SERVER, IdType, PortType, run, run_loop
from node.cli.lifetime import serve, stay
from node.cli.places import data_home
from node.cli.settings_file import Configuration, Typed
from node.codec import PORT, Address
from node.errors import BadUsage
from node.identifiers import Identifier
from node.logs import FILES, FORMATS, LEVELS, SIZE
from node.settings import PROFILES
from node.store.directory import CONTENT

if TYPE_CHECKING:
    from node.trust.token import Token


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("first_ip", required=False)
@click.argument("first_port", required=False, type=PortType(), metavar="[PORT]")
@click.argument("local_port", required=False, type=PortType(0), metavar="[LOCAL-PORT]")
@click.option("--port", type=PortType(0), help=f"Port to listen on, same as the third word; 0: a free one. [{PORT}]")
@click.option(
    "--listen",
    metavar="ADDR",
    help="Address to listen on and be known by; where others can reach it, all of the ring must have certificates. "
    "[127.0.0.1; with --token the address of this machine that faces FIRST_IP]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    metavar="DIR",
    help="Data directory: keys, id and known members. [~/.local/share/rpychord/PORT, or below $XDG_DATA_HOME]",
)
@click.option(
    "--servers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Start N nodes, a process each, on consecutive ports, with --port 0 on free ones; they leave together. "
    "--data: the directory above theirs.",
)
@click.option(
    "--members",
    type=click.IntRange(1, 1024),
    default=1,
    metavar="N",
    help="Members of the ring this process holds, each with an id of its own. [1]",
)
@click.option(
    "--id",
    "identifier",
    type=IdType(),
    metavar="HEX",
    help="Id of the first member, 40 hex digits. [bisects the widest arc of the ring]",
)
@click.option(
    "--alone",
    is_flag=True,
    help="This data directory is the last of its ring: do not wait for the other members it knew.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 16),
    metavar="K",
    help="On how many nodes each key lives. Belongs to the ring: said by its first node. [3]",
)
@click.option(
    "--consistency",
    type=click.Choice(["chain", "eventual"]),
    help="chain: linearizable, and refuses where it cannot be. eventual: always answers, agrees later. Belongs to the "
    "ring. [chain]",
)
@click.option(
    "--durability",
    type=click.Choice(["fsync", "os"]),
    help="An acknowledged write is on the disks of its replicas, or in their page caches. Belongs to the ring. [fsync]",
)
@click.option(
    "--siblings",
    is_flag=True,
    default=None,
    help="In an eventual ring: keep values that were written side by side, instead of the last. Belongs to the ring.",
)
@click.option(
    "--zone",
    metavar="NAME",
    help="What this node may fail together with; replicas are kept in different zones. [its address without the port]",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="No certificates though other machines can reach this address: nothing is encrypted, nobody is checked.",
)
@click.option(
    "--secure",
    is_flag=True,
    help="Certificates also on loopback: the first node makes the ring's authority and prints a token for the next.",
)
@click.option(
    "--token",
    envvar="RPYCHORD_TOKEN",
    metavar="TOKEN",
    help="What lets this node into a ring with certificates, once. [$RPYCHORD_TOKEN]",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="A file with the token in it, which keeps it out of lists of processes.",
)
@click.option(
    "--profile",
    type=click.Choice(sorted(PROFILES)),
    default="local",
    help="All time-outs at once, see node/settings.py. [local]",
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="A file in TOML with what may change while the node runs; read anew at SIGHUP. What is typed here goes before "
    "it. [settings.toml in the data directory, if there is one]",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    help="What is logged. [warning; info in a file]",
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path, dir_okay=False, resolve_path=True),
    metavar="PATH",
    help=f"Where it is logged; rotated at {SIZE // 10**6} MB, {FILES} files are kept. With --servers each node has its "
    "own: PATH with the port. [standard error]",
)
@click.option("--log-format", type=click.Choice(FORMATS), help="A line of text or an object in JSON. [text]")
def command(
    first_ip: str | None,
    first_port: int | None,
    local_port: int | None,
    port: int | None,
    listen: str | None,
    data: Path | None,
    servers: int | None,
    members: int,
    identifier: Identifier | None,
    alone: bool,
    replicas: int | None,
    consistency: str | None,
    durability: str | None,
    siblings: bool | None,
    zone: str | None,
    insecure: bool,
    secure: bool,
    token: str | None,
    token_file: Path | None,
    profile: str,
    settings_file: Path | None,
    log_level: str | None,
    log_file: Path | None,
    log_format: str | None,
) -> int:
    """Start a node of a ring.

    Without words it is the first node. With FIRST_IP it joins the ring of the node at FIRST_IP and PORT; both ports
    default to 18861. A node whose data directory belongs to a ring comes back to that ring, with or without FIRST_IP.

    When it has joined and serves it prints one line: ready HOST:PORT id=ID; the first node of a ring with certificates
    adds what is to be typed on the next machine. SIGTERM and Ctrl-C make it hand its keys over and leave.

    SIGUSR1 ends it as it is, for a ring of which all nodes are to rest. SIGHUP makes it read its settings anew, see
    docs/operations.md.
    """
    if port is not None and local_port is not None and port != local_port:
        raise BadUsage(f"two local ports: {local_port} as the third word and --port {port}; give one")
    local = port if port is not None else local_port if local_port is not None else PORT
    if first_ip is not None and not first_ip.strip():
        raise BadUsage(
            "FIRST_IP is empty: give the address of a node of the ring, or no word at all for the first node"
        )
    if first_ip is not None and (both := re.fullmatch(r"([^:]*):(\d+)", first_ip)):
        raise BadUsage(f"the port is a word of its own: {both[1]} {both[2]}")
    first = None if first_ip is None else Address(first_ip, first_port or PORT)
    if servers is not None:
        from node.cli.processes import free_ports

        with free_ports(servers if local == 0 else 0) as free:
            return _several(_ports(servers, local, free, data), first, data, token_file, log_file)
    from node.remote.node import NodeOptions
    from node.trust.keyring import Keyring

    directory = data or default_directory(local)
    if token_file is not None:
        token = None if Keyring(directory).exists else read_token(token_file)
    options = NodeOptions(
        data=directory,
        listen=listen,
        port=local,
        members=members,
        id=identifier,
        first=first,
        alone=alone,
        replicas=replicas,
        consistency=consistency,
        durability=durability,
        siblings=siblings,
        zone=zone,
        insecure=insecure,
        secure=secure,
        token=_token(token),
    )
    typed = Typed(directory, profile, settings_file, log_level, log_format, log_file)
    configuration = Configuration(typed)
    code: int = run_loop(lambda: serve(options, configuration))
    return code


def _ports(count: int, port: int, free: list[int], data: Path | None) -> list[int]:
    """Those of so many nodes. For port 0 those that nodes had whose data is there, where their ring looks for them, and
    then free ones. Raises BadUsage."""
    if port == 0:
        above = data or default_directory(port)
        had = sorted(int(each.parent.name) for each in above.glob(f"*/{CONTENT}") if each.parent.name.isdecimal())
        return list(dict.fromkeys([*had, *free]))[:count]
    if port + count - 1 > 65535:
        raise BadUsage(f"{count} ports from {port} on go beyond 65535: begin lower with --port")
    return list(range(port, port + count))


def _several(
    ports: list[int], first: Address | None, data: Path | None, token_file: Path | None, log_file: Path | None
) -> int:
    """Many nodes, each started with the words of this command but where it listens, what it joins and where it is."""
    from node.cli.processes import Servers
    from node.trust.keyring import Keyring

    context = click.get_current_context()
    if context.params["identifier"] is not None:
        raise BadUsage("--id is of one node: leave it out with --servers")
    directories = [data / str(port) if data is not None else default_directory(port) for port in ports]
    token = context.params["token"]
    if token_file is not None:
        token = None if Keyring(directories[0]).exists else read_token(token_file)
    if token is not None:
        os.environ["RPYCHORD_TOKEN"] = token  # and not on command lines, which everybody can read
    own = ("first_ip", "first_port", "local_port", "port", "data", "servers", "token", "token_file", "log_file")
    shared: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if option.name not in own and value not in (None, False) and value != option.default:
            shared += [option.opts[0]] if value is True else [option.opts[0], str(value)]

    def words_of(number: int, first: Address | None) -> list[str]:
        own = str(ports[number])
        there = [first.host, str(first.port), own] if first else ["--port", own]
        log = log_file and log_file.with_name(f"{log_file.stem}-{own}{log_file.suffix}")
        return [*there, "--data", str(directories[number]), *shared, *(["--log-file", str(log)] if log else [])]

    listen = context.params["listen"]
    here = Address(listen if listen not in (None, "0.0.0.0", "::") else "127.0.0.1", ports[0])
    code: int = run_loop(lambda: stay(Servers(words_of, directories, first, here)))
    return code


def read_token(path: Path) -> str:
    """The token in a file. Raises BadUsage."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"cannot read a token from {path}: {getattr(error, 'strerror', error)}") from None


def _token(text: str | None) -> Token | None:
    if text is None:
        return None
    from node.trust.token import Token

    return Token.read(text)


def default_directory(port: int) -> Path:
    """Where a node on this port keeps its data unless told otherwise. Raises BadUsage for port 0."""
    if port == 0:
        raise BadUsage("port 0 is another one every time: say with --data where the data is to be kept")
    return data_home() / str(port)


def main() -> int:
    """The door of `server.py`."""
    return run(command, SERVER)


if __name__ == "__main__":
    sys.exit(main())
