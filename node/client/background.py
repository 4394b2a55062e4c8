"""The event loop of a process's synchronous rings, on a thread of its own. It begins with the first one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from node.errors import BadUsage

T = TypeVar("T")


class Background:
    """One loop, used from any thread but its own."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="ring", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work comes to. Whoever is interrupted while waiting takes it back."""
        self._check(work)
        waiting = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> T:
        """As `run`, but begun on the calling thread; if it is done without ever waiting on the loop, it is quicker."""
        self._check(work)
        try:
            work.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        return self.run(work)

    def _check(self, work: Coroutine[Any, Any, object]) -> None:
        wrong = ""
        if threading.get_ident() == self._thread.ident:
            wrong = "a Ring is not used in its own callbacks: use the AsyncRing there, or another thread"
        if self is not _background:
            wrong = "a Ring is not used in another process than it was connected in: connect anew after a fork"
        if wrong:
            work.close()
            raise BadUsage(wrong)


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """That of this process."""
    global _background
    with _lock:
        if _background is None:
            _background = Background()
        return _background


def _forget() -> None:
    """After a fork the child has no such thread."""
    global _background, _lock
    _background = None
    _lock = threading.Lock()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


os.register_at_fork(after_in_child=_forget)
