"""The command `ring`. Sub-commands are imported when they are used, so that the command is quick to start."""

from __future__ import annotations

import importlib
import sys

import click

from node import __version__
from node.cli.arguments import run

COMMANDS = {
    "serve": ("node.cli.serve", "Start one node and stay until told to leave (server.py)."),
    "load": ("node.cli.load", "Do what the lines of a file say and verify it (main.py)."),
    "local": ("node.cli.local", "Run a ring of several nodes on this machine until Ctrl-C."),
}


class Lazy(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpychord")
def group() -> None:
    """A ring of nodes that hold keys and values: start one, load it."""


def main() -> int:
    """The entry point of the command."""
    return run(group, "ring")


if __name__ == "__main__":
    sys.exit(main())
