"""`ring force-repair`: shows what is left of a ring whose keepers are lost for good, asks, and goes on with that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from node.cli.arguments import FAILED, AddressType, run_loop
from node.cli.output import print_table
from node.codec import Address
from node.settings import Settings

PATIENCE = 600.0
"""Seconds that a repair may take: nodes count their keys."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--node",
    type=AddressType(),
    required=True,
    envvar="RPYCHORD_NODE",
    metavar="HOST:PORT",
    help="A node that is left.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="In a ring with certificates: the data directory of a node of this host, whose certificate allows it.",
)
@click.option("--yes", is_flag=True, help="Do not ask: do it, whatever is lost.")
def command(node: Address, data: Path | None, yes: bool) -> int:
    """Go on without most keepers of the ring map, which are lost for good.

    While most keepers of the ring map do not answer the ring refuses changes, and soon everything: they may be cut off
    and still at work. Only a person can know that they are gone. This shows which nodes would be given up and what is
    left of each arc, asks, and begins a new map with the nodes that answer. Make sure first that the nodes to be given
    up do not run. They are not let in again with what they hold: start them with empty data directories.
    """
    return int(run_loop(lambda: repair(node, yes, data)))


async def repair(node: Address, yes: bool, data: Path | None = None) -> int:
    """Ask the node what is left, ask the person, do it. Raises RingErrors."""
    from node.cli.trust import operator
    from node.remote.pool import connect

    tls = operator(data)[1] if data is not None else None
    connection = await connect(node.host, node.port, Settings(), deadline=5.0, tls=tls)
    try:
        token, given_up, arcs = await connection.call("force_repair", deadline=PATIENCE)
        show(given_up, arcs)
        if not yes and not click.confirm("Do these nodes not run any more, and is the ring to go on with this?"):
            print("nothing was changed")
            return FAILED
        _, _, arcs = await connection.call("force_repair", token, deadline=PATIENCE)
    finally:
        connection.close()
    lost = sum(problem != "" for *_, problem in arcs)
    print(f"the ring goes on with {_plural(len(arcs), 'arc')}, {lost} of them with something lost")
    return 0


def show(given_up: tuple[Any, ...], arcs: tuple[Any, ...]) -> None:
    """What would be given up, and what is left."""
    print(f"to be given up for good: {' '.join(f'{ip}:{port}' for ip, port in given_up) or 'no node'}")
    rows = [
        (f"{start[:8]}..{end[:8]}", keys, " ".join(f"{ip}:{port}" for ip, port in where), problem)
        for start, end, keys, where, problem in arcs
    ]
    print_table(["arc", "keys", "goes on with", "what may be lost"], rows)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
