"""`python main.py`: do what an input file says, on the ring that is there or on one of its own for the time being."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import click

from node.cli.arguments import TERMINATED, AddressType, run, run_loop
from node.codec import PORT, Address
from node.errors import BadUsage, Unreachable
from node.logs import LogOptions, Logs
from node.settings import Settings

NODES = 5
DEFAULT_INPUT = Path(__file__).resolve().parents[2] / "input.txt"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", required=False, type=click.Path(path_type=Path), default=DEFAULT_INPUT, metavar="[input.txt]")
@click.option(
    "--node",
    type=AddressType(),
    default=lambda: next(iter(os.environ.get("RPYCHORD_NODE", "").split()), None),
    help=f"A node of the ring to use. [the first in $RPYCHORD_NODE, or localhost:{PORT}]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    help="What is logged on standard error. [error]",
)
def command(file: Path, node: Address | None, log_level: str) -> int:
    """Do what the lines of a file say and verify it.

    Lines are: put KEY VALUE, get KEY, delete KEY; # begins a comment, quotes work as in a shell. Every get is compared
    with what the file put before, and in the end every key is read once more through another node.

    Without --node the ring at localhost:18861 is used; if nothing listens there, a ring of five processes is started
    for the job and taken down afterwards. Exit code 0: every line did what it said; 1: some did not; 2: wrong usage.
    """
    Logs(LogOptions(log_level))
    try:
        lines = file.open("rb")
    except OSError as error:
        raise BadUsage(f"cannot read {file}: {error.strerror}") from None
    with lines:
        return do_lines(lines, file, node)


def do_lines(lines: BinaryIO, file: Path, node: Address | None) -> int:
    """Do the lines of a file on the ring of a node, or as `command` says on which; the exit code."""
    try:
        code: int = run_loop(lambda: load(lines, _short(file), node))
    except asyncio.CancelledError:
        return TERMINATED
    return code


def _short(file: Path) -> str:
    """A path as one would type it here."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


async def load(lines: BinaryIO, name: str, node: Address | None) -> int:
    """Find or start a ring and do the lines on it; the exit code. SIGTERM cancels it, as Ctrl-C does."""
    from node.cli.job import Job
    from node.client import credentials

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with contextlib.AsyncExitStack() as stack:
        address = node if node is not None else await stack.enter_async_context(_some_ring())
        settings = Settings()
        job = Job(lines, name, address, settings, await credentials.tls(settings, [address]))
        try:
            return await job.run()
        finally:
            await job.close()


@contextlib.asynccontextmanager
async def _some_ring() -> AsyncIterator[Address]:
    """The ring at the default address, or one of our own for the time being."""
    from node.client import credentials
    from node.remote.pool import connect

    settings, default = Settings(), Address("localhost", PORT)
    tls = await credentials.tls(settings, [default])
    try:
        connection = await connect(default.host, default.port, settings, deadline=settings.connect, tls=tls)
    except Unreachable:
        from node.cli.local import LocalRing

        print(f"nothing listens on localhost:{PORT}: starting a ring of {NODES} nodes for this run", flush=True)
        with tempfile.TemporaryDirectory(prefix="rpychord-") as directory:
            async with LocalRing(NODES, Path(directory)) as ring:
                yield ring.addresses[0]
    else:
        connection.close()
        yield default


def main() -> int:
    """The door of `main.py`."""
    return run(command, Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(main())
