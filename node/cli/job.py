"""One run of an input file against a ring: do the lines, check every answer, read everything once more elsewhere.

What is expected is kept on disk and never more than a window of operations is in flight, so that a file of any length
needs the same memory. Operations on one key are done in the order of the file.

The file is taken to be the only writer of its keys. So a put or delete whose outcome is unknown is simply done again:
at worst the ring stores the same value twice. A program that shares keys with others may not do that.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, TypeVar

from node.cli.arguments import FAILED
from node.cli.expectations import Expectations, Expected
from node.cli.output import is_drawn_on
from node.cli.script import Line, Malformed, read_lines
from node.cli.window import Window
from node.client.session import ConnInfo, Session
from node.codec import Address
from node.errors import OutcomeUnknown, RingError
from node.identifiers import RING, Arc, Identifier
from node.settings import MIB, Settings

T = TypeVar("T")

IN_FLIGHT = 256
"""Operations at a time."""
VOLUME = 16 * MIB
"""Characters of values in flight at a time."""
ATTEMPTS = 4
"""How often an operation is tried whose outcome is unknown; each attempt has a deadline of its own."""
TURNS = 1024
"""Malformed lines after which others get a turn of the loop: signals, say."""
ABSENT = "<absent>"


class Job:
    """The lines of a file and the ring they are done on."""

    def __init__(
        self, lines: BinaryIO, name: str, node: Address, settings: Settings, tls: ssl.SSLContext | None = None
    ) -> None:
        self._lines = lines
        self._name = name
        self._settings = settings
        self._tls = tls
        self._writer = Session([node], settings, tls)
        self._reader = self._writer
        self._expected = Expectations()
        self._window = Window(IN_FLIGHT, VOLUME)
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._shown = 0.0

    async def run(self) -> int:
        """Do the lines, verify, report; the exit code."""
        infos = await self._writer.get_conn_info()
        await self._do_lines()
        self._reader = await self._another_node(infos)
        await self._verify_all()
        await self._report()
        return FAILED if self._counts["wrong"] or self._counts["malformed"] else 0

    async def close(self) -> None:
        """End what is under way and let go of everything."""
        await self._window.close()
        self._writer.close()
        self._reader.close()
        self._expected.close()

    # -- the lines -----------------------------------------------------------------------------------------------

    async def _do_lines(self) -> None:
        for parsed in read_lines(self._lines):
            if isinstance(parsed, Malformed):
                self._complain("malformed", parsed.number, parsed.reason)
                if self._counts["malformed"] % TURNS == 0:
                    await asyncio.sleep(0)
            else:
                await self._window.admit(parsed.key, len(parsed.value), self._line(parsed))
                self._progress()
        await self._window.drain()

    async def _line(self, line: Line) -> None:
        """Do one line and compare the answer with what the file says it must be."""
        do = {"put": self._put, "get": self._get, "delete": self._delete}[line.verb]
        try:
            fault = await do(line, self._expected.of(line.key))
        except RingError as error:
            if isinstance(error, OutcomeUnknown) and line.verb != "get":
                self._expected.forget(line.key)
            fault = str(error)
        if fault:
            self._complain("wrong", line.number, f"{line.verb} {_shown(line.key)}: {fault}")
        else:
            self._counts[line.verb] += 1

    async def _put(self, line: Line, _: Expected | None) -> str:
        await self._surely(lambda: self._writer.put(line.key, line.value))
        self._expected.expect(line.key, line.value, line.number)
        return ""

    async def _get(self, line: Line, before: Expected | None) -> str:
        value = await self._writer.get(line.key)
        if before is None:
            self._clear()
            print(f"{self._name}:{line.number}: {_shown(line.key)} is {_shown(value)}")
        return _difference(value, before)

    async def _delete(self, line: Line, before: Expected | None) -> str:
        there, attempts = await self._surely(lambda: self._writer.delete(line.key))
        self._expected.expect(line.key, None, line.number)
        if before is None or attempts > 1 or there == (before.value is not None):
            return ""
        return f"it was {'' if there else 'not '}there, line {before.line} {'deleted' if there else 'put'} it"

    async def _surely(self, operation: Callable[[], Awaitable[T]]) -> tuple[T, int]:
        """The answer of an operation that is safe to repeat, and how many attempts it took."""
        for attempt in range(1, ATTEMPTS):
            try:
                return await operation(), attempt
            except OutcomeUnknown:
                await asyncio.sleep(self._settings.backoff_limit)
        return await operation(), ATTEMPTS

    # -- once more -----------------------------------------------------------------------------------------------

    async def _another_node(self, infos: tuple[ConnInfo, ...]) -> Session:
        """A session with the nodes that were not written through; with the same one, if there is no other."""
        node = self._writer.node
        found = await asyncio.get_running_loop().getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM)
        same = {node.host, *(str(each[4][0]) for each in found)}
        addresses = dict.fromkeys(Address(host, port) for host, port, _, _ in infos)
        others = [each for each in addresses if each.port != node.port or each.host not in same]
        return Session(others, self._settings, self._tls) if others else self._writer

    async def _verify_all(self) -> None:
        for key, expected in self._expected.all():
            await self._window.admit(key, len(expected.value or ""), self._verify(key, expected))
            self._progress()
        await self._window.drain()
        self._progress(final=True)

    async def _verify(self, key: str, expected: Expected) -> None:
        """Read one key through another node."""
        try:
            fault = _difference(await self._reader.get(key), expected)
        except RingError as error:
            fault = str(error)
        if fault:
            self._complain("wrong", expected.line, f"{_shown(key)} read through {self._reader.node}: {fault}")
        else:
            self._counts["verified"] += 1

    # -- what people see -----------------------------------------------------------------------------------------

    def _complain(self, kind: str, number: int, reason: str) -> None:
        self._counts[kind] += 1
        self._clear()
        print(f"{self._name}:{number}: {reason}", file=sys.stderr)

    def _progress(self, *, final: bool = False) -> None:
        """A line that is written over, on a terminal only."""
        now = time.monotonic()
        if now - self._shown < 0.2 and not final:
            return
        self._shown = now
        self._clear()
        if is_drawn_on() and not final:
            done = sum(self._counts.values())
            rate = done / max(now - self._began, 0.001)
            print(f"{done:,} done, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if is_drawn_on():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    async def _report(self) -> None:
        """Where the keys live, and a summary."""
        counts, seconds = self._counts, max(time.monotonic() - self._began, 0.001)
        done = sum(counts[each] for each in ("put", "get", "delete", "verified"))
        infos = await self._reader.get_conn_info()
        shares = _shares(infos)
        print(f"{'node':<24}{'id':<12}{'keys':>10}{'share':>9}")
        for number, (host, port, identifier, _) in enumerate(infos):
            try:
                keys = f"{await self._reader.get_node(number, 'keys'):,}"
            except RingError:
                keys = "?"
            node = str(Address(host, port))
            print(f"{node:<24}{identifier[:8] + '..':<12}{keys:>10}{shares[number]:>8.1%}")
        through = f"{self._reader.node}{', the only node' if self._reader is self._writer else ''}"
        print(
            f"{counts['put']:,} put, {counts['get']:,} got, {counts['delete']:,} deleted; "
            f"{counts['verified']:,} keys verified through {through}; "
            f"{counts['wrong']:,} wrong, {counts['malformed']:,} malformed; {seconds:.1f} s, {done / seconds:,.0f}/s"
        )


def _shares(infos: tuple[ConnInfo, ...]) -> list[float]:
    """How much of the ring each member owns, of members from the smallest id on."""
    ids = [Identifier.from_hex(identifier) for _, _, identifier, _ in infos]
    return [Arc(ids[n - 1], ids[n]).width / RING for n in range(len(ids))]


def _difference(value: Any, expected: Expected | None) -> str:
    if expected is None or value == expected.value:
        return ""
    written = f"{'deleted' if expected.value is None else 'put'} in line {expected.line}"
    return f"{_shown(value)} instead of {_shown(expected.value)}, {written}"


def _shown(value: Any) -> str:
    return ABSENT if value is None else repr(value)[:200]
