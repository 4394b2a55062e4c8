"""Commands that start nodes on this machine and have nodes come and go: add-server, rm-server, join, depart."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.arguments import ABSENT, AddressType, PortType
from node.cli.client import on_ring, ring_command
from node.cli.output import complain, print_json
from node.cli.serve import default_directory
from node.codec import PORT, Address
from node.errors import BadUsage, Unreachable

if TYPE_CHECKING:
    from node.client.ring import AsyncRing


@ring_command("add-server")
@click.argument("port", type=PortType(), metavar="PORT")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    metavar="DIR",
    help="Its data directory. [as server.py]",
)
@click.option("--listen", default="127.0.0.1", metavar="ADDR", help="Address to listen on. [127.0.0.1]")
def add_server(
    port: int, data: Path | None, listen: str, nodes: tuple[Address, ...], timeout: float, as_json: bool
) -> int:
    """Start a node on PORT of this machine that joins the ring and stays when this command ends.

    What it says goes to a file beside its data directory. `ring rm-server PORT` ends it.
    """
    from node.cli.processes import start_detached

    directory = (data or default_directory(port)).absolute()
    first = nodes[0] if nodes else Address("localhost", PORT)
    words = [first.host, str(first.port), str(port), "--data", str(directory), "--listen", listen]
    pid, ready = start_detached(words, directory.with_name(directory.name + ".log"))
    print_json({"pid": pid, "ready": ready}) if as_json else print(ready)
    return 0


@ring_command("rm-server")
@click.argument("port", type=PortType(), metavar="PORT")
def rm_server(port: int, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Have the node on PORT of this machine hand all it holds to others and end.

    With --node or $RPYCHORD_NODE it must be one of that ring. For nodes elsewhere: `ring depart HOST:PORT`; `ring
    overlay` shows them all.
    """

    async def work(ring: AsyncRing) -> int:
        there = {Address(ip, at) for ip, at, *_ in await ring.overlay() if at == port}
        here = sorted(filter(_is_here, there), key=str)
        if len(here) > 1:
            raise BadUsage(f"which of {', '.join(map(str, here))}? Say it with ring depart HOST:PORT")
        if here:
            await _leave(ring, here[0], as_json)
            return 0
        elsewhere = "".join(f"; there is {each}: ring depart {each}" for each in sorted(there, key=str))
        complain(f"ring rm-server: the ring has no node on port {port} of this machine{elsewhere}")
        return ABSENT

    return on_ring((*nodes, Address("localhost", port)), timeout, work)


def _is_here(node: Address) -> bool:
    """Whether its address is one of this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in node.host else socket.AF_INET) as probe:
            probe.bind((node.host, 0))
    except OSError:
        return False
    return True


@ring_command()
@click.argument("node", type=AddressType(), metavar="HOST:PORT")
def depart(node: Address, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Have the node at HOST:PORT hand all it holds to others and end. `ring overlay` shows where nodes listen."""
    try:
        return on_ring((node,), timeout, lambda ring: _leave(ring, node, as_json))
    except Unreachable as error:
        raise Unreachable(f"{error}; `ring overlay` shows where nodes listen") from None


async def _leave(ring: AsyncRing, node: Address, as_json: bool) -> None:
    await ring.depart(node)
    print_json({"left": str(node)}) if as_json else print(f"{node} has left")


@ring_command()
@click.argument("node", type=AddressType(), metavar="HOST:PORT")
def join(node: Address, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Take the node at HOST:PORT, which is a ring of its own without keys, into the ring."""

    async def work(ring: AsyncRing) -> None:
        ip, port, member = await ring.join(node)
        if as_json:
            print_json({"node": str(Address(ip, port)), "id": member})
        else:
            print(f"{Address(ip, port)} has joined as {member}")

    return on_ring(nodes, timeout, work)
