"""What people type, checked: addresses, ports, ids. Mistakes become click's usage errors, one line each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from node.cli.memory import bound_free_memory
from node.codec import Address, parse_address
from node.errors import BadUsage, OutcomeUnknown, RingError
from node.identifiers import Identifier

# See "Errors" in docs/operations.md.
FAILED, USAGE, ABSENT, UNKNOWN, INTERRUPTED, TERMINATED = 1, 2, 3, 4, 130, 143
SERVER = "server.py"
"""The program that is a node."""
SCRIPT = object()
"""Commands one after the other that are read from standard input."""


class PortType(click.ParamType[int]):
    """A port number."""

    name = "port"

    def __init__(self, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            port = int(value)
        except ValueError:
            port = -1
        if not self._least <= port <= 65535:
            self.fail(f"{value!r} is no port: give a number from {self._least} to 65535", param, ctx)
        return port


class AddressType(click.ParamType[Address]):
    """HOST:PORT."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return parse_address(str(value))
        except BadUsage as error:
            self.fail(str(error), param, ctx)


class IdType(click.ParamType[Identifier]):
    """40 hex digits."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Identifier:
        if isinstance(value, Identifier):
            return value
        try:
            return Identifier.from_hex(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def check_standard_input() -> None:
    """Raises BadUsage if it is no command's to read, for others come from it."""
    if click.get_current_context().find_root().obj is SCRIPT:
        raise BadUsage("- is standard input, which these commands come from: give the value itself, or a file")


def run(command: click.Command, name: str, arguments: list[str] | None = None, of: object = None) -> int:
    """Run a command as a program, or as one `of` a SCRIPT: errors of ours and of usage in one line, the exit code
    returned."""
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False, obj=of)
        sys.stdout.flush()
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return USAGE
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        path = context.command_path if context is not None else name
        print(f"{path}: {error.format_message()} (see {path} --help)", file=sys.stderr)
        return USAGE
    except BadUsage as error:
        print(f"{name}: {error}", file=sys.stderr)
        return USAGE
    except OutcomeUnknown as error:
        print(f"{name}: it may or may not be done: {error}", file=sys.stderr)
        return UNKNOWN
    except RingError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # whoever read our output has enough
        return _silenced()
    except (OSError, UnicodeEncodeError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            print(f"{name}: {os.fsdecode(error.filename)}: {error.strerror}", file=sys.stderr)
            return USAGE
        print(f"{name}: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
        return _silenced()
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(code or 0)


def _silenced() -> int:
    """Nothing more is written, also of what waits to be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def run_loop(main: Callable[[], Any]) -> Any:
    """Run an async main on uvloop where there is one."""
    bound_free_memory()
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.run(main())
    return uvloop.run(main())
