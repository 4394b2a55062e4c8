"""Commands that start nodes on this machine and have nodes come and go: add-server, rm-server, join, depart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.arguments import AddressType, PortType
from node.cli.client import on_ring, ring_command
from node.cli.output import print_json
from node.cli.serve import default_directory
from node.codec import PORT, Address

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
    """Have the node on PORT of this machine hand all it holds to others and end."""
    return _depart(Address("localhost", port), timeout, as_json)


@ring_command()
@click.argument("node", type=AddressType(), metavar="HOST:PORT")
def depart(node: Address, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Have the node at HOST:PORT hand all it holds to others and end."""
    return _depart(node, timeout, as_json)


def _depart(node: Address, timeout: float, as_json: bool) -> int:
    async def work(ring: AsyncRing) -> None:
        await ring.depart(node)
        print_json({"left": str(node)}) if as_json else print(f"{node} has left")

    return on_ring((node,), timeout, work)


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
