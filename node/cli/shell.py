"""`ring shell`, or `ring` alone on a terminal: the same commands without the word `ring`, on one ring.

On a terminal with history, completion and line editing (prompt_toolkit); otherwise lines are read from standard input.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from node.cli.arguments import ABSENT, FAILED, SCRIPT, USAGE, run
from node.cli.client import RingCommand, ring_command
from node.cli.output import complain
from node.cli.places import state_home
from node.codec import PORT, Address

ALIASES = {"insert": "put", "query": "get"}
OWN = {
    "setnode": "N or HOST:PORT: ask that node from now on.",
    "help": "[COMMAND]: what there is, or what a command does.",
    "exit": "Leave; so does Ctrl-D.",
}
NOT_HERE = ("shell", "serve")


@ring_command()
def shell(nodes: tuple[Address, ...], timeout: float, as_json: bool) -> int:
    """Type commands one after the other: put, get, delete, overlay and all others of `ring`, without the word `ring`.

    insert and query are other words for put and get; `setnode N` talks to node N of the overlay; quotes work as in any
    shell. Ctrl-C ends what is under way, Ctrl-D the shell. From a file or pipe the exit code is that of the first
    command that failed.
    """
    session = Shell(nodes or (Address("localhost", PORT),), timeout, as_json)
    return session.interact() if sys.stdin.isatty() else session.follow(sys.stdin)


class Shell:
    """What has been set: the node to ask, and how."""

    def __init__(self, nodes: tuple[Address, ...], timeout: float, as_json: bool) -> None:
        self._nodes = nodes
        self._timeout = timeout
        self._as_json = as_json
        self._of: object = None

    def follow(self, lines: Iterator[str]) -> int:
        """Do what the lines say; the exit code of the first that failed."""
        failed = 0
        self._of = SCRIPT
        for line in lines:
            code = self.do(line)
            if code is None:
                break
            failed = failed or code
        return failed

    def interact(self) -> int:
        """Until Ctrl-D."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.shortcuts import CompleteStyle

        from node.cli.ring import COMMANDS

        words = sorted([*(name for name in COMMANDS if name not in NOT_HERE), *ALIASES, *OWN])
        history = _history()
        prompt: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)) if history is not None else None,
            completer=WordCompleter(words, WORD=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
        )
        print("help lists the commands, Tab completes them, Ctrl-D leaves")
        while True:
            try:
                line = prompt.prompt(f"{self._nodes[0]}> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            if self.do(line) is None:
                return 0

    def do(self, line: str) -> int | None:
        """One line; its exit code, None to leave."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            complain(f"{line.strip()!r}: {error}")
            return USAGE
        if not words:
            return 0
        name, *rest = words
        match name:
            case "exit" | "quit":
                return None
            case "help":
                return self._help(rest)
            case "setnode":
                return self._set_node(rest)
        return self._run(ALIASES.get(name, name), rest)

    def _run(self, name: str, words: list[str]) -> int:
        from node.cli.ring import COMMANDS, group

        if name not in COMMANDS or name in NOT_HERE:
            complain(f"no command {name!r}: help lists them")
            return USAGE
        command = group.get_command(click.Context(group), name)
        path = [name]
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words[0]]
            path.append(words[0])
            words = words[1:]
        set_here: list[str] = []
        if isinstance(command, RingCommand):
            set_here = [f"--timeout={self._timeout}"]
            set_here += [] if any(word.startswith("--node") for word in words) else [f"--node={n}" for n in self._nodes]
            set_here += ["--json"] if self._as_json else []
        return run(group, "ring", [*path, *set_here, *words], self._of)

    def _help(self, words: list[str]) -> int:
        from node.cli.ring import COMMANDS

        if words:
            return self._run(ALIASES.get(words[0], words[0]), ["--help"])
        lines = {name: summary for name, (_, summary) in COMMANDS.items() if name not in NOT_HERE}
        lines |= {alias: f"The same as {name}." for alias, name in ALIASES.items()} | OWN
        for name, summary in lines.items():
            print(f"  {name:<14}{summary}")
        return 0

    def _set_node(self, words: list[str]) -> int:
        from node.codec import parse_address
        from node.errors import BadUsage, RingError

        if len(words) != 1:
            complain("setnode takes the number of a node, as overlay shows it, or HOST:PORT")
            return USAGE
        try:
            if not words[0].isdecimal():
                self._nodes = (parse_address(words[0]),)
                return 0
            infos = self._overlay()
        except RingError as error:
            complain(str(error))
            return USAGE if isinstance(error, BadUsage) else FAILED
        if int(words[0]) >= len(infos):
            complain(f"no node {words[0]}: they are numbered 0 to {len(infos) - 1}")
            return ABSENT
        self._nodes = (infos[int(words[0])],)
        return 0

    def _overlay(self) -> list[Address]:
        from node.client.sync import Ring

        with Ring.connect(*self._nodes, timeout=self._timeout) as ring:
            return [Address(ip, port) for ip, port, _, _ in ring.overlay()]


def _history() -> Path | None:
    """Where lines typed before are kept; None where that cannot be written."""
    path = state_home() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
    except OSError:
        return None
    return path
