"""The requests of one connection that are in work: each is answered when it is done, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any

from rpyc.core import brine, consts

from node.errors import OutcomeUnknown, RingError
from node.remote import relay
from node.remote.exposure import Exposed
from node.remote.translation import dumped, internal, let_go, not_plain
from node.remote.wire import Wire
from node.settings import Settings

EXCEPTION: bytes = brine.I1.pack(consts.MSG_EXCEPTION)
PLAIN = frozenset((bytes, str, int, float, bool, tuple, type(None)))
MARGIN = 16
"""Bytes of a message beside what is asked or answered, at most."""


class Requests:
    """All of one connection."""

    def __init__(self, wire: Wire, settings: Settings, on_done: Callable[[], None]) -> None:
        """`on_done` is called whenever one that took a while is answered."""
        self._wire = wire
        self._settings = settings
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._working: dict[asyncio.Task[None], int] = {}
        """Those that take a while, with their sizes."""
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._working)

    @property
    def full(self) -> bool:
        """Whether as much is in work as may be."""
        return len(self._working) >= self._settings.max_in_flight or self._size >= self._settings.max_in_work

    def do(self, seq: int, size: int, handle: Callable[..., Any], *arguments: Any) -> None:
        """Do what number `seq`, of so many bytes, asks for, and answer when it is done."""
        try:
            result = handle(*arguments)
        except (RingError, AttributeError, TypeError, ValueError) as error:
            self.fail(seq, error)
            return
        kind = type(result)
        if kind in PLAIN:
            self._reply(seq, result)
        elif kind is Exposed:
            self._wire.send(relay.REPLY, brine.dump(seq), brine.dump((consts.LABEL_REMOTE_REF, result.pack)))
        elif kind is CoroutineType or isinstance(result, Awaitable):
            task = self._loop.create_task(self._answer_later(seq, result))
            self._working[task] = size
            self._size += size
            task.add_done_callback(self._worked)
        else:
            self.fail(seq, not_plain(result))

    def fail(self, seq: int, error: Exception) -> None:
        """Answer with an error."""
        let_go(error)
        self._wire.send(EXCEPTION, brine.TAG_TUP2, brine.dump(seq), dumped(error))

    def cancel(self) -> list[asyncio.Task[None]]:
        """Break off all; their tasks, for waiting until they have ended."""
        for task in self._working:
            task.cancel()
        return list(self._working)

    async def _answer_later(self, seq: int, work: Awaitable[Any]) -> None:
        try:
            result = await work
        except RingError as error:
            self.fail(seq, error)
        except asyncio.CancelledError:
            self.fail(seq, OutcomeUnknown("the node stopped in the middle of the request"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told that it failed
            self.fail(seq, internal(error))
        else:
            self._reply(seq, result)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._size -= self._working.pop(task)
        self._wire.release()
        self._on_done()

    def _reply(self, seq: int, result: Any) -> None:
        try:
            content = relay.dumped(result) if type(result) is bytes else (brine.dump(result),)
        except (ValueError, TypeError, RecursionError):
            self.fail(seq, not_plain(result))
            return
        if sum(map(len, content)) + MARGIN > self._settings.max_frame:
            limit = self._settings.max_frame
            self.fail(seq, RingError(f"the answer is larger than the limit of {limit} bytes: ask for less"))
            return
        self._wire.send(relay.REPLY, relay.dumped_number(seq), relay.VALUE, *content)
