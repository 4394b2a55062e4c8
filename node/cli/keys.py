"""Commands on single keys, and on all: put, get, delete, put-many, keys, count, increment."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

from node.cli.arguments import ABSENT, check_standard_input
from node.cli.client import on_ring, ring_command
from node.cli.output import Progress, complain, print_json, print_value
from node.codec import Address
from node.errors import BadUsage

if TYPE_CHECKING:
    from node.client.ring import AsyncRing

KINDS = ["text", "int", "float", "json", "bytes"]


def typed(text: str, kind: str) -> Any:
    """What was typed as a value of this kind. Raises BadUsage if it is none."""
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "json":
                return json.loads(text)
            case "bytes":
                return text.encode("utf-8", "surrogateescape")
            case "text":
                text.encode()
    except ValueError:
        raise BadUsage(f"{text[:60]!r} is no {kind}: give one, or another --as") from None
    return text


def _from_standard_input(kind: str) -> Any:
    check_standard_input()
    stored = sys.stdin.buffer.read()
    return stored if kind == "bytes" else typed(stored.decode("utf-8", "surrogateescape"), kind)


@ring_command()
@click.argument("key")
@click.argument("value")
@click.option("--as", "kind", type=click.Choice(KINDS), default="text", help="What VALUE is. [text]")
@click.option("--ttl", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds after which it is gone.")
@click.option("--if-absent", is_flag=True, help="Only if the key has no value yet.")
def put(
    key: str,
    value: str,
    kind: str,
    ttl: float | None,
    if_absent: bool,
    nodes: tuple[Address, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Store VALUE under KEY. A VALUE of - is read from standard input, byte by byte. One that begins with - comes after
    two of them: ring put -- KEY -5."""
    stored = _from_standard_input(kind) if value == "-" else typed(value, kind)

    async def work(ring: AsyncRing) -> None:
        version = await (ring.put_if(key, stored, None, ttl=ttl) if if_absent else ring.put(key, stored, ttl=ttl))
        if as_json:
            print_json({"key": key, "version": version})

    return on_ring(nodes, timeout, work)


@ring_command()
@click.argument("key")
@click.option("--version", "versioned", is_flag=True, help="Print its version too.")
def get(key: str, versioned: bool, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Print the value of KEY: text and bytes as they are, anything else as JSON. Exit code 3 if there is none."""

    async def work(ring: AsyncRing) -> int:
        found = await ring.get_versioned(key)
        if found is None:
            complain(f"ring get: there is no key {key!r}")
            return ABSENT
        if as_json:
            print_json({"key": key, "value": found[0], "version": found[1]})
        else:
            print_value(found[0])
            if versioned:
                print(f"version {found[1][0]}.{found[1][1]}")
        return 0

    return on_ring(nodes, timeout, work)


@ring_command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def delete(keys: tuple[str, ...], nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Remove keys. Exit code 3 if one of them was not there."""

    async def work(ring: AsyncRing) -> int:
        code = 0
        for key in keys:
            there = await ring.delete(key)
            if as_json:
                print_json({"key": key, "deleted": there})
            elif not there:
                complain(f"ring delete: there is no key {key!r}")
            code = code if there else ABSENT
        return code

    return on_ring(nodes, timeout, work)


@ring_command("put-many")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--as", "kind", type=click.Choice(KINDS), default="text", help="What each VALUE is. [text]")
def put_many(pairs: tuple[str, ...], kind: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Store several pairs in one go. For files of pairs see `ring load`."""
    for pair in pairs:
        if "=" not in pair:
            raise BadUsage(f"{pair!r} is no pair: give KEY=VALUE")
    wanted = {key: typed(value, kind) for key, _, value in (pair.partition("=") for pair in pairs)}

    async def work(ring: AsyncRing) -> None:
        await ring.put_many(wanted)
        if as_json:
            print_json({"stored": len(wanted)})

    return on_ring(nodes, timeout, work)


@ring_command()
@click.argument("key")
@click.argument("amount", default="1")
def increment(key: str, amount: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Add AMOUNT (1 unless said otherwise) to the number under KEY, 0 if there is none; print what it came to. To take
    something away: ring increment -- KEY -5."""
    number: int | float = typed(amount, "float" if any(c in amount for c in ".eEnN") else "int")
    if not math.isfinite(number):
        raise BadUsage(f"{amount!r} is no amount: give a number")

    async def work(ring: AsyncRing) -> None:
        total = await ring.increment(key, number)
        print_json({"key": key, "value": total}) if as_json else print_value(total)

    return on_ring(nodes, timeout, work)


@ring_command()
@click.argument("prefix", default="")
def keys(prefix: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Print all keys that begin with PREFIX, one a line, in the order of the ring."""

    async def work(ring: AsyncRing) -> None:
        with Progress("keys") as progress:
            async for page in ring.key_pages(prefix):
                progress.add(len(page))
                for key in page:
                    print_json(key) if as_json else print_value(key if isinstance(key, str) else repr(key))

    return on_ring(nodes, timeout, work)


@ring_command()
def count(nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Print how many keys the ring holds."""

    async def work(ring: AsyncRing) -> None:
        counted = await ring.count()
        print_json({"keys": counted}) if as_json else print(counted)

    return on_ring(nodes, timeout, work)
