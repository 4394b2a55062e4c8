"""`ring watch`: print every change of a key as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.client import on_ring, ring_command
from node.cli.output import print_json, to_json
from node.codec import Address

if TYPE_CHECKING:
    from node.client.ring import AsyncRing


@ring_command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Watch all keys that begin with KEY.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N changes. [never]")
def watch(key: str, prefix: bool, count: int | None, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Print every change of KEY from now on, each version once and in order, until Ctrl-C."""

    async def work(ring: AsyncRing) -> None:
        watching = await ring.watch(key, prefix=prefix)
        left = count
        try:
            async for event in watching:
                if as_json:
                    flags = {"deleted": event.deleted, "missed": event.missed}
                    print_json({"key": event.key, "value": event.value, "version": event.version, **flags})
                else:
                    told = "deleted" if event.deleted else to_json(event.value)
                    shown = event.key if isinstance(event.key, str) else repr(event.key)
                    gap = " (versions before it may have been missed)" if event.missed else ""
                    print(f"{shown}  {event.version[0]}.{event.version[1]}  {told}{gap}", flush=True)
                left = left - 1 if left is not None else None
                if left == 0:
                    return
        finally:
            watching.close()

    return on_ring(nodes, timeout, work)
