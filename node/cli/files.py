"""Commands on files in a ring: `ring file put`, `get`, `ls`, `stat`, `rm`, `gc`."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.arguments import ABSENT, FAILED, USAGE, check_standard_input
from node.cli.client import on_ring, ring_command
from node.cli.output import Progress, complain, print_json, print_table
from node.codec import Address
from node.errors import BadUsage, NoSuchFile

if TYPE_CHECKING:
    from node.client.manifests import FileInfo
    from node.client.ring import AsyncRing

STREAM = "-"
"""Standard input or output, in place of a path."""
DAY = 24 * 3600.0


def on_files(
    command: str,
    nodes: tuple[Address, ...],
    timeout: float,
    work: Callable[[AsyncRing], Awaitable[int | None]],
    interrupted: Callable[[], str] = str,
    *,
    stream: bool = False,
) -> int:
    """As `on_ring`, with what goes wrong with names and paths in a line. `interrupted`: how to go on, said if it is.
    `stream`: there is no path, but standard input or output."""

    async def watched(ring: AsyncRing) -> int | None:
        try:
            return await work(ring)
        except NoSuchFile as error:
            complain(f"ring file {command}: {error}")
            return ABSENT
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
            complain(f"ring file {command}: {where}{error.strerror or error}")
            return FAILED if stream else USAGE
        except asyncio.CancelledError:
            if how := interrupted():
                complain(f"ring file {command}: interrupted: {how}")
            raise

    return on_ring(nodes, timeout, watched)


@ring_command()
@click.argument("path", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("name", required=False)
@click.option("--whole", is_flag=True, help="Send blocks that the ring says it has, too: for a file that is damaged.")
def put(path: Path, name: str | None, whole: bool, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Store the file at PATH, - for standard input, under NAME (as it is called, unless said otherwise).

    What stood under NAME is replaced in one step at the end. Blocks that the ring has already are not sent, so a put
    that broke off goes on where it was when it is started again.
    """
    is_stream = str(path) == STREAM
    called = name or path.name
    if is_stream and not name:
        raise BadUsage("standard input has no name: give NAME")
    if is_stream:
        check_standard_input()

    async def work(ring: AsyncRing) -> None:
        total = None if is_stream or not path.is_file() else path.stat().st_size
        sent = 0
        with Progress(f"put {called}", total, "B") as progress:

            def told(size: int, was_sent: bool) -> None:
                nonlocal sent
                sent += was_sent
                progress.add(size)

            source = io.FileIO(0, closefd=False) if is_stream else path
            info = await ring.files.put(source, called, whole=whole, progress=told)
        if as_json:
            print_json({**asdict(info), "sent": sent})
        else:
            print(f"stored {called!r}: {info.size:,} bytes in {info.blocks:,} blocks, {sent:,} of them sent")

    how = f"{called!r} is as it was before, or all new; the same command again sends only what is missing"
    return on_files("put", nodes, timeout, work, lambda: how, stream=is_stream)


@ring_command()
@click.argument("name")
@click.argument("path", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--resume", is_flag=True, help="Go on behind what PATH.part has, after checking it.")
def get(name: str, path: Path | None, resume: bool, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Write file NAME to PATH, - for standard output (here, under its last part, unless said otherwise).

    It is written to PATH.part and renamed when it is whole. Every block is checked. Exit code 3 if there is none.
    """
    to = path if path is not None else Path(Path(name).name)
    is_stream = str(to) == STREAM
    if not to.name:
        raise BadUsage(f"{name!r} is no name for a file here: give PATH")

    async def work(ring: AsyncRing) -> None:
        total = (await ring.files.stat(name)).size
        with Progress(f"get {name}", total, "B") as progress:
            target = io.FileIO(1, "w", closefd=False) if is_stream else to
            info = await ring.files.get(name, target, resume=resume, progress=lambda size, _: progress.add(size))
        if as_json and not is_stream:
            print_json({**asdict(info), "path": str(to)})
        elif not is_stream:
            print(f"{to}: {info.size:,} bytes")

    def how() -> str:
        part = to.with_name(to.name + ".part")
        return f"what came is in {part}; with --resume it goes on behind that" if part.exists() else ""

    return on_files("get", nodes, timeout, work, how, stream=is_stream)


@ring_command()
@click.argument("prefix", default="")
def ls(prefix: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """List files whose names begin with PREFIX, by name."""

    async def work(ring: AsyncRing) -> None:
        infos = await ring.files.ls(prefix)
        if as_json:
            for info in infos:
                print_json(asdict(info))
        elif infos:
            print_table(
                ["size", "blocks", "stored", "name"], [(i.size, i.blocks, _time(i.stored), i.name) for i in infos]
            )

    return on_files("ls", nodes, timeout, work)


@ring_command()
@click.argument("name")
def stat(name: str, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Print what is known of file NAME. Exit code 3 if there is none."""

    async def work(ring: AsyncRing) -> None:
        info = await ring.files.stat(name)
        print_json(asdict(info)) if as_json else print_table(["", ""], _rows(info))

    return on_files("stat", nodes, timeout, work)


def _rows(info: FileInfo) -> list[tuple[str, str]]:
    return [
        ("name", info.name),
        ("size", f"{info.size:,}"),
        ("blocks", f"{info.blocks:,}"),
        ("sha256", info.sha256),
        ("stored", _time(info.stored)),
        ("modified", _time(info.modified) if info.modified is not None else "not known"),
    ]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


@ring_command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...], nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Remove files. Exit code 3 if one of them was not there. The room they took comes back with `ring file gc`."""

    async def work(ring: AsyncRing) -> int:
        code = 0
        for name in names:
            there = await ring.files.rm(name)
            if as_json:
                print_json({"name": name, "removed": there})
            elif not there:
                complain(f"ring file rm: there is no file {name!r} in the ring")
            code = code if there else ABSENT
        return code

    return on_files("rm", nodes, timeout, work)


@ring_command()
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=DAY,
    metavar="S",
    help="Keep blocks that were put less than S seconds ago: longer than any put takes. [86400]",
)
@click.option("--alone", is_flag=True, help="Nobody puts files now, and all nodes are up: needed in an eventual ring.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would be.")
def gc(grace: float, alone: bool, dry_run: bool, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Remove blocks that no file has any more."""

    async def work(ring: AsyncRing) -> None:
        collected = await ring.files.gc(grace=grace, alone=alone, dry_run=dry_run)
        if as_json:
            print_json(asdict(collected))
        else:
            verb = "would remove" if dry_run else "removed"
            waiting = f"{collected.waiting:,} wait until they are {grace:,.0f} s old"
            print(f"{verb} {collected.removed:,} blocks; {waiting}, {collected.kept:,} are in use")

    return on_files("gc", nodes, timeout, work)


group = click.Group(
    "file",
    {command.name or "": command for command in (put, get, ls, stat, rm, gc)},
    help="Files in the ring: cut into blocks that are spread over all nodes, and that files share.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
