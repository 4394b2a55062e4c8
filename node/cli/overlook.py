"""Commands that look at a ring: overlay, lookup, replicas, verify, status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.cli.arguments import FAILED
from node.cli.client import on_ring, ring_command
from node.cli.output import complain, print_json, print_table
from node.codec import Address
from node.identifiers import RING, Arc, Identifier

if TYPE_CHECKING:
    from node.client.ring import AsyncRing


@ring_command()
def overlay(nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Show the members of the ring as they stand on it, numbered from the smallest id on."""

    async def work(ring: AsyncRing) -> None:
        infos = await ring.overlay()
        if as_json:
            for number, (ip, port, member, neighbour) in enumerate(infos):
                print_json({"number": number, "node": str(Address(ip, port)), "id": member, "neighbour": neighbour})
            return
        shares = _shares([info[2] for info in infos])
        rows = [
            (number, Address(ip, port), member, share)
            for (number, (ip, port, member, _)), share in zip(enumerate(infos), shares, strict=True)
        ]
        print_table(["number", "node", "id", "share"], rows)

    return on_ring(nodes, timeout, work)


def _shares(ids: list[str]) -> list[str]:
    """How much of the ring each member owns."""
    members = [Identifier.from_hex(each) for each in ids]
    return [f"{100 * Arc(members[at - 1], member).width / RING:.1f}%" for at, member in enumerate(members)]


@ring_command()
@click.argument("key")
def lookup(key: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Show the way of a cold look-up of KEY through fingers, hop by hop, from the node asked to the owner."""

    async def work(ring: AsyncRing) -> None:
        way = await ring.lookup(key)
        if as_json:
            print_json({"key": key, "path": [{"node": str(Address(ip, port)), "id": m} for ip, port, m in way]})
        else:
            print_table(["hop", "node", "id"], [(hop, Address(ip, port), m) for hop, (ip, port, m) in enumerate(way)])

    return on_ring(nodes, timeout, work)


@ring_command()
@click.argument("key")
def replicas(key: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Show the nodes that hold KEY; in a chain the head, which takes writes, first, and the tail, which answers reads,
    last."""

    async def work(ring: AsyncRing) -> None:
        found = await ring.replicas(key)
        if as_json:
            print_json({"key": key, "replicas": [{"node": str(Address(ip, port)), "role": r} for ip, port, r in found]})
        else:
            print_table(["node", "role"], [(Address(ip, port), role) for ip, port, role in found])

    return on_ring(nodes, timeout, work)


@ring_command()
def verify(nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Compare the replicas of every arc, all that they hold. Exit code 1 if any differ or are missing."""

    async def work(ring: AsyncRing) -> int:
        arcs = await ring.verify()
        problems = [arc for arc in arcs if arc[4]]
        if as_json:
            for start, end, keys, holders, problem in arcs:
                held = [str(Address(*holder)) for holder in holders]
                print_json({"start": start, "end": end, "keys": keys, "replicas": held, "problem": problem})
        else:
            rows = [
                (f"{a[0][:8]}..{a[1][:8]}", a[2], " ".join(str(Address(*h)) for h in a[3]), a[4] or "ok") for a in arcs
            ]
            print_table(["arc", "keys", "replicas", "state"], rows)
            if problems:
                complain(f"{len(problems)} of {len(arcs)} arcs are not whole: nodes are coming back or being replaced")
        return FAILED if problems else 0

    return on_ring(nodes, timeout, work)


@ring_command()
def status(nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Show every node with its version, uptime and traffic, and how many keys there are. Exit code 1 if one is silent.

    Straight is the share of the operations on keys that came to the right node at once.
    """

    async def work(ring: AsyncRing) -> int:
        health = await ring.health()
        keys = await ring.count()
        if as_json:
            for node, said in health.items():
                print_json({"node": str(node), "answers": said is not None, **(said or {})})
            print_json({"keys": keys})
        else:
            rows = []
            for node, said in health.items():
                if said is None:
                    rows.append((node, "silent", "", "", 0, ""))
                    continue
                asked = said["straight"] + said["astray"]
                straight = f"{100 * said['straight'] / asked:.1f}%" if asked else ""
                state = "serving" if said["serving"] else "starting"
                rows.append((node, state, said["version"], _span(said["uptime"]), asked, straight))
            print_table(["node", "state", "version", "up", "asked", "straight"], rows)
            there = [said for said in health.values() if said is not None]
            wanted = there[0]["replicas"] if there else 0
            held = f"{wanted} replicas each"
            if len(there) < wanted:
                held = f"{len(there)} of {wanted} replicas each until more nodes are there"
            print(f"{keys:,} keys, {there[0]['consistency'] if there else '?'}, {held}")
        return FAILED if None in health.values() else 0

    return on_ring(nodes, timeout, work)


def _span(seconds: float) -> str:
    """A time as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
