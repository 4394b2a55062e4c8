"""What all commands that use a ring have in common: which ring, how long to wait, JSON or text, how to end.

Exit codes: 0 done; 1 failed; 2 what was typed is wrong, or a file here; 3 there is no such key, file or node; 4 it may
or may not be done; 130 interrupted (Ctrl-C); 143 told to end (SIGTERM).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from node.cli.arguments import TERMINATED, AddressType, run_loop
from node.codec import PORT, Address

if TYPE_CHECKING:
    from node.client.ring import AsyncRing

F = TypeVar("F", bound=Callable[..., Any])


class RingCommand(click.Command):
    """A command with --node, --timeout and --json; its function gets them as `nodes`, `timeout` and `as_json`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params += [
            click.Option(
                ["--node", "nodes"],
                type=AddressType(),
                multiple=True,
                envvar="RPYCHORD_NODE",
                help=f"HOST:PORT of a node of the ring; again for others. [those in $RPYCHORD_NODE, localhost:{PORT}]",
            ),
            click.Option(
                ["--timeout"], type=click.FloatRange(0.1), default=10.0, metavar="S", help="Seconds to try for. [10]"
            ),
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, one value a line, for scripts."),
        ]


def ring_command(name: str | None = None) -> Callable[[F], RingCommand]:
    """`@ring_command()` makes a command of a function that takes `nodes`, `timeout` and `as_json` beside its own."""
    return click.command(name, cls=RingCommand, context_settings={"help_option_names": ["-h", "--help"]})


def on_ring(nodes: tuple[Address, ...], timeout: float, work: Callable[[AsyncRing], Awaitable[int | None]]) -> int:
    """Connect, do the work, disconnect; the exit code. Ctrl-C and SIGTERM cancel it."""

    async def main() -> int:
        from node.client.ring import AsyncRing

        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
        async with await AsyncRing.connect(*(nodes or (Address("localhost", PORT),)), timeout=timeout) as ring:
            return await work(ring) or 0

    try:
        code: int = run_loop(main)
    except asyncio.CancelledError:
        return TERMINATED
    return code
