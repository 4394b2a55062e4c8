"""Errors across the wire: what peers are told of ours, and what we make of theirs. The only place that translates them.

Errors of our tree travel as themselves. Everything unexpected is logged here and told without its details; nothing of
the peer's is raised as the class that it names.
"""

from __future__ import annotations

import logging
from traceback import clear_frames
from typing import Any

from rpyc.core import brine

from node.codec import Failure, error_of
from node.errors import NotARing, RingError

log = logging.getLogger(__name__)

DENIED = "<kept in the log of the node>"
"""In place of a traceback."""
MOST = 64 * 1024
"""Bytes of an error at most: it may quote what was asked, and is told in short if that is long."""


def let_go(error: BaseException) -> None:
    """An error was answered: the frames it came through drop what they have of the request. They and the error may hold
    each other, and megabytes, until the garbage collector comes by."""
    clear_frames(error.__traceback__)


def dumped(error: Exception) -> bytes:
    """The error as RPyC sends them, in brine: no traceback, no attributes, no version."""
    name = (type(error).__module__, type(error).__name__)
    arguments = tuple(argument if brine.dumpable(argument) else repr(argument) for argument in error.args)
    try:
        told = _brined((name, arguments, (), DENIED))
    except (ValueError, RecursionError):
        told = b""
    return told if 0 < len(told) <= MOST else _brined((name, (ascii(error)[:1000],), (), DENIED))


def _brined(value: Any) -> bytes:
    result: bytes = brine.dump(value)
    return result


def not_plain(result: Any) -> RingError:
    """What the caller gets instead of a result that is no plain value."""
    return RingError(f"the result, of type {type(result).__name__}, cannot be sent: only plain values can")


def internal(error: Exception) -> RingError:
    """An unexpected error as the caller gets it: without its details, which are logged."""
    log.error("an exposed method failed", exc_info=error)
    return RingError(f"internal error ({type(error).__name__}): the log of the node has the details")


def translated(raw: Any, peer: str) -> RingError:
    """The peer's exception as one of ours."""
    try:
        (module, name), arguments, _attributes, _text = raw
        arguments = tuple(arguments)
    except (TypeError, ValueError):
        return RingError(f"{peer} failed: {str(raw)[:200]}")
    if module == RingError.__module__:
        return error_of(Failure(str(name), arguments))
    told = ", ".join(str(argument)[:300] for argument in arguments[:5])
    if name == "AttributeError":
        return NotARing(f"{peer} has no such method ({told}): it is no node of a ring, or one of another version")
    return RingError(f"{peer} failed with {str(name)[:100]}: {told}")
