"""`ring dump`: all keys and values, one line of JSON each, such that `ring load` puts back exactly the same."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from node.cli.bulk.tagged import to_line
from node.cli.client import on_ring, ring_command
from node.cli.output import Progress, print_json
from node.codec import Address
from node.errors import BadUsage

if TYPE_CHECKING:
    from node.client.ring import AsyncRing


@ring_command("dump")
@click.argument("prefix", default="")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write. [standard output]")
def command(prefix: str, out: Path | None, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Write all keys that begin with PREFIX and their values as lines of JSON, in the order of the ring.

    A line is {"key": ..., "value": ...}. What JSON does not have is an object of one member that says what it is, as
    {"base64": ...} for bytes. `ring load` takes it back. Each key is as of the moment it is read; times to live are
    not written, and of values that stand side by side the newest is. A file has its name only once it is complete.
    """

    async def work(ring: AsyncRing) -> None:
        began = time.monotonic()
        with _output(out) as file:
            written = await dump(ring, prefix, file)
        if out is None:
            return
        seconds = time.monotonic() - began
        if as_json:
            print_json({"file": str(out), "keys": written, "seconds": round(seconds, 3)})
        else:
            print(f"{written:,} keys written to {out}; {seconds:.1f} s, {written / max(seconds, 0.001):,.0f}/s")

    return on_ring(nodes, timeout, work)


async def dump(ring: AsyncRing, prefix: str, file: BinaryIO) -> int:
    """Write what the ring holds; how many keys. Raises as `AsyncRing.items` does."""
    written = 0
    with Progress("dumping") as progress:
        async for page in ring.item_pages(prefix, reserved=True):
            file.write("".join(f"{to_line(key, value)}\n" for key, value in page).encode())
            written += len(page)
            progress.add(len(page))
    file.flush()
    return written


@contextmanager
def _output(out: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when all went well. Raises BadUsage if it cannot be written."""
    if out is None:
        yield sys.stdout.buffer
        return
    target = out.resolve()
    if target.exists() and not target.is_file():  # a device or a pipe, which nothing is to be put in the place of
        with target.open("wb") as file:
            yield file
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise BadUsage(f"cannot write {out}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
