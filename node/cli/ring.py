"""The command `ring`. Sub-commands are imported when they are used, so that the command is quick to start."""

from __future__ import annotations

import importlib
import sys

import click

from node import __version__
from node.cli.arguments import run

COMMANDS = {
    "put": ("node.cli.keys:put", "Store a value under a key."),
    "get": ("node.cli.keys:get", "Print the value of a key."),
    "delete": ("node.cli.keys:delete", "Remove keys."),
    "put-many": ("node.cli.keys:put_many", "Store several pairs in one go."),
    "increment": ("node.cli.keys:increment", "Add to a number."),
    "keys": ("node.cli.keys:keys", "Print all keys, or those that begin with a prefix."),
    "count": ("node.cli.keys:count", "Print how many keys the ring holds."),
    "file": ("node.cli.files:group", "Put, get, list and remove files."),
    "watch": ("node.cli.watch:watch", "Print every change of a key as it happens."),
    "overlay": ("node.cli.overlook:overlay", "Show the members of the ring."),
    "lookup": ("node.cli.overlook:lookup", "Show the way to the owner of a key, hop by hop."),
    "replicas": ("node.cli.overlook:replicas", "Show the nodes that hold a key."),
    "verify": ("node.cli.overlook:verify", "Compare all replicas."),
    "status": ("node.cli.overlook:status", "Show every node and what it does."),
    "range-insert": ("node.cli.ranges:insert", "Store the numbers 0 to MAX."),
    "range-search": ("node.cli.ranges:search", "Look them up, and name what is missing or wrong."),
    "add-server": ("node.cli.servers:add_server", "Start a node here that joins the ring, and leave it running."),
    "rm-server": ("node.cli.servers:rm_server", "Have a node of this machine leave the ring and end."),
    "join": ("node.cli.servers:join", "Take a node that is a ring of its own into the ring."),
    "depart": ("node.cli.servers:depart", "Have a node anywhere leave the ring and end."),
    "force-repair": ("node.cli.repair:command", "Go on without keepers or replicas that are lost for good."),
    "shell": ("node.cli.shell:shell", "Type commands one after the other; `ring` alone does it too."),
    "serve": ("node.cli.serve:command", "Start one node and stay until told to leave (server.py)."),
    "load": ("node.cli.bulk.load:command", "Store the rows of a file, or do what a script says."),
    "dump": ("node.cli.bulk.dump:command", "Write all keys and values to a file."),
    "local": ("node.cli.local:command", "Run a ring of several nodes on this machine until Ctrl-C."),
    "login": ("node.cli.trust:login", "Let this user into a ring with certificates."),
    "logout": ("node.cli.trust:logout", "Remove what login got."),
    "token": ("node.cli.trust:token", "Print what lets another machine or user into the ring."),
    "revoke": ("node.cli.trust:revoke", "Trust a host or a client no more."),
    "certify": ("node.cli.trust:certify", "Give a node of an open ring at rest certificates."),
    "rotate-tokens": ("node.cli.trust:rotate_tokens", "Make all tokens void, and print a new one."),
}
"""Where each command is, as module:name, and what it does in one line."""


class Lazy(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rpychord")
def group() -> None:
    """A ring of nodes that hold keys and values.

    Start with `ring local` in one terminal and `ring put city Lisbon --node HOST:PORT` in another, with the address it
    printed; or with `ring serve` here, which listens where all commands look.

    Exit codes: 0 done; 1 failed; 2 what was typed is wrong, or a file here; 3 no such key, file or node; 4 it may or
    may not be done; 130 Ctrl-C; 143 SIGTERM.
    """


def main() -> int:
    """The entry point of the command. Without any word, on a terminal, it is the shell."""
    alone = len(sys.argv) == 1 and sys.stdin.isatty() and sys.stdout.isatty()
    return run(group, "ring", ["shell"] if alone else None)


if __name__ == "__main__":
    sys.exit(main())
