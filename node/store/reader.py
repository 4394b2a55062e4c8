"""Point reads: what memory has is read on the loop, the rest on threads, all that waits for a thread in one go.

The loop never waits for the disk. A read from memory takes about a microsecond, a thread costs thirty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

THREADS = 4
"""Reads from disk at the same time."""
FEW = 32
"""Names looked for in memory before it is asked whether the rest is worth it."""
LARGE = 2_000
"""Names from which on the loop does not look at memory first."""

Wave = list[tuple[list[bytes], "asyncio.Future[list[bytes | None]]"]]


class Readable(Protocol):
    """What the reader needs of the engine."""

    def look(self, names: Iterable[bytes]) -> list[tuple[bool, bytes | None]]:
        """From memory, without waiting."""
        ...

    def get(self, names: list[bytes]) -> list[bytes | None]:
        """From wherever it is."""
        ...


class Reader:
    """Belongs to one event loop."""

    def __init__(self, engine: Readable, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._threads = ThreadPoolExecutor(THREADS, "read")
        self._reading = 0
        self._waiting: Wave = []

    async def get(self, name: bytes) -> bytes | None:
        """What stands under a name. Raises EngineError."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: list[bytes]) -> list[bytes | None]:
        """What stands under these names, in their order. Raises EngineError."""
        if len(names) > LARGE:
            return await self._from_disk(names)
        found = self._engine.look(names)
        contents = [content for _, content in found]
        missed = [n for n, (there, content) in enumerate(found) if there and content is None]
        if missed:
            for n, content in zip(missed, await self._from_disk([names[n] for n in missed]), strict=True):
                contents[n] = content
        return contents

    def peek_many(self, names: list[bytes]) -> list[bytes | None] | None:
        """What stands under these names if memory has it all, else None. Raises EngineError."""
        if len(names) > LARGE:
            return None
        contents: list[bytes | None] = []
        for at in range(0, len(names), FEW):
            found = self._engine.look(names[at : at + FEW])
            if (True, None) in found:
                return None
            contents += [content for _, content in found]
        return contents

    def close(self) -> None:
        """Wait for reads under way. Not on the loop."""
        self._threads.shutdown()

    async def _from_disk(self, names: list[bytes]) -> list[bytes | None]:
        answer: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        self._waiting.append((names, answer))
        if self._reading < THREADS:
            self._send()
        return await answer

    def _send(self) -> None:
        wave, self._waiting = self._waiting, []
        self._reading += 1
        names = [name for names, _ in wave for name in names]
        self._loop.run_in_executor(self._threads, self._engine.get, names).add_done_callback(partial(self._deal, wave))

    def _deal(self, wave: Wave, read: asyncio.Future[list[bytes | None]]) -> None:
        """Hand a wave its contents, or its error, and send the next one."""
        self._reading -= 1
        error = read.exception()
        contents = read.result() if error is None else []
        for names, answer in wave:
            mine, contents = contents[: len(names)], contents[len(names) :]
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(mine)
        if self._waiting:
            self._send()
