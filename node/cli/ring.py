"""The command `ring`. Sub-commands are imported when they are used, so that the command is quick to start."""

from __future__ import annotations

import importlib
import sys

import click

from node.cli.arguments import run

COMMANDS = {"serve": "node.cli.serve", "load": "node.cli.load"}


class Lazy(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """A ring of nodes that hold keys and values: start one, load it."""


def main() -> int:
    """The entry point of the command."""
    return run(group, "ring")


if __name__ == "__main__":
    sys.exit(main())
