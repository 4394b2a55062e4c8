"""`python main.py`: do what an input file says, check every answer, and read everything once more through another node.

What is expected is kept in a temporary database and never more than a window of operations is in flight, so that a file
of any length needs the same memory. Operations on one key are done in the order of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import click

from node.cli.arguments import DEFAULT_PORT, FAILED, TERMINATED, USAGE, AddressType, log_to_stderr, run, run_loop
from node.cli.script import Line, Malformed, read_lines
from node.codec import Address
from node.errors import RingError, Unreachable
from node.settings import Settings

NODES = 5
WINDOW = 256
DEFAULT_INPUT = Path(__file__).resolve().parents[2] / "input.txt"
ABSENT = "<absent>"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", required=False, type=click.Path(path_type=Path), default=DEFAULT_INPUT, metavar="[input.txt]")
@click.option("--node", type=AddressType(), help=f"A node of the ring to use. [localhost:{DEFAULT_PORT}]")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    help="What is logged on standard error. [error]",
)
def command(file: Path, node: Address | None, log_level: str) -> int:
    """Do what the lines of a file say and verify it.

    Lines are: put KEY VALUE, get KEY, delete KEY; # begins a comment, quotes work as in a shell. Every get is compared
    with what the file put before, and in the end every key is read once more through another node.

    Without --node the ring at localhost:18861 is used; if nothing listens there, a ring of five processes is started
    for the job and taken down afterwards. Exit code 0: every line did what it says; 1: some did not; 2: wrong usage.
    """
    log_to_stderr(log_level)
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        print(f"main.py: cannot read {file}: {error.strerror}", file=sys.stderr)
        return USAGE
    try:
        code: int = run_loop(lambda: load(file, node))
    except asyncio.CancelledError:
        return TERMINATED
    return code


async def load(file: Path, node: Address | None) -> int:
    """Find or start a ring and run the file on it; the exit code. SIGTERM cancels it, as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    async with contextlib.AsyncExitStack() as stack:
        address = node if node is not None else await stack.enter_async_context(_some_ring())
        job = Job(file, address)
        try:
            return await job.run()
        finally:
            job.close()


@contextlib.asynccontextmanager
async def _some_ring() -> AsyncIterator[Address]:
    """The ring at the default address, or one of our own for the time being."""
    from node.remote.pool import connect

    settings = Settings()
    try:
        connection = await connect("localhost", DEFAULT_PORT, settings, deadline=settings.connect)
    except Unreachable:
        from node.cli.local import LocalRing

        print(f"nothing listens on localhost:{DEFAULT_PORT}: starting a ring of {NODES} nodes for this run")
        with tempfile.TemporaryDirectory(prefix="rpychord-") as directory:
            async with LocalRing(NODES, Path(directory)) as ring:
                yield ring.addresses[0]
    else:
        connection.close()
        yield Address("localhost", DEFAULT_PORT)


class Expectations:
    """The last value the file gave each key, on disk."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file of sqlite's own, gone when closed
        self._database.execute("PRAGMA cache_size = -4096")
        self._database.execute("CREATE TABLE expected (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def expect(self, key: str, value: str | None) -> None:
        """From now on `key` has this value; None: it was deleted."""
        self._database.execute("INSERT OR REPLACE INTO expected VALUES (?, ?)", (key, value))

    def of(self, key: str) -> tuple[bool, str | None]:
        """Whether the file has written the key, and its value."""
        row = self._database.execute("SELECT value FROM expected WHERE key = ?", (key,)).fetchone()
        return (False, None) if row is None else (True, row[0])

    def all(self) -> sqlite3.Cursor:
        """Every key and its value."""
        return self._database.execute("SELECT key, value FROM expected")

    def close(self) -> None:
        """Forget everything."""
        self._database.close()


class Job:
    """One run of a file against a ring."""

    def __init__(self, file: Path, node: Address) -> None:
        from node.client.session import Session

        self._file = file
        self._settings = Settings()
        self._writer = Session([node], self._settings)
        self._reader = Session([node], self._settings)
        self._expected = Expectations()
        self._last: dict[str, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._shown = 0.0

    async def run(self) -> int:
        """Do the lines, verify, report."""
        infos = await self._writer.get_conn_info()
        for parsed in read_lines(self._file):
            if isinstance(parsed, Malformed):
                self._complain("malformed", parsed.number, parsed.reason)
            else:
                await self._admit(parsed.key, self._line(parsed, *self._expectation(parsed)))
        await self._drain()
        others = [Address(info[0], info[1]) for info in infos if (info[0], info[1]) != self._first_of(infos)]
        if others:
            from node.client.session import Session

            self._reader = Session(others, self._settings)
        for key, value in self._expected.all():
            await self._admit(key, self._verify(key, value))
        await self._drain()
        self._progress(final=True)
        await self._report()
        return FAILED if self._counts["wrong"] or self._counts["malformed"] else 0

    def _first_of(self, infos: tuple[tuple[str, int, str, str], ...]) -> tuple[str, int]:
        """The node that was written through, as the ring knows it."""
        node = self._writer.node
        for host, port, _, _ in infos:
            if port == node.port and (host == node.host or node.host == "localhost"):
                return host, port
        return node.host, node.port

    def _expectation(self, line: Line) -> tuple[bool, str | None]:
        """What the ring should hold for the line's key before it is done; notes what it should hold after."""
        before = self._expected.of(line.key)
        if line.verb != "get":
            self._expected.expect(line.key, line.value if line.verb == "put" else None)
        return before

    async def _admit(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Start an operation behind the last one on the same key, when there is room."""
        while len(self._running) >= WINDOW:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.get_running_loop().create_task(self._after(self._last.get(key), work))
        self._last[key] = task
        self._running.add(task)
        task.add_done_callback(lambda done: self._finished(key, done))
        self._progress()

    @staticmethod
    async def _after(before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
        if before is not None:
            await asyncio.wait({before})
        await work

    def _finished(self, key: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._last.get(key) is task:
            del self._last[key]

    async def _drain(self) -> None:
        while self._running:
            await asyncio.wait(self._running)

    async def _line(self, line: Line, known: bool, before: str | None) -> None:
        """Do one line and compare the answer with what the file says it must be."""
        try:
            if line.verb == "put":
                await self._writer.put(line.key, line.value)
            elif line.verb == "get":
                value = await self._writer.get(line.key)
                if known and value != before:
                    self._complain(
                        "wrong", line.number, f"get {line.key!r}: {_shown(value)} instead of {_shown(before)}"
                    )
                    return
            else:
                there = await self._writer.delete(line.key)
                if known and there != (before is not None):
                    self._complain("wrong", line.number, f"delete {line.key!r}: it was {'' if there else 'not '}there")
                    return
        except RingError as error:
            self._complain("wrong", line.number, f"{line.verb} {line.key!r}: {error}")
        else:
            self._counts[line.verb] += 1

    async def _verify(self, key: str, expected: str | None) -> None:
        """Read one key through another node."""
        try:
            value = await self._reader.get(key)
        except RingError as error:
            self._complain("wrong", None, f"{key!r} through {self._reader.node}: {error}")
            return
        if value == expected:
            self._counts["verified"] += 1
        else:
            wanted = f"{_shown(value)} instead of {_shown(expected)}"
            self._complain("wrong", None, f"{key!r} through {self._reader.node}: {wanted}")

    def _complain(self, kind: str, number: int | None, reason: str) -> None:
        self._counts[kind] += 1
        where = f"{self._file}:{number}" if number else f"{self._file}"
        print(f"{where}: {reason}", file=sys.stderr)

    def _progress(self, *, final: bool = False) -> None:
        """A line that is written over, on a terminal only."""
        now = time.monotonic()
        if sys.stderr.isatty() and (final or now - self._shown > 0.2):
            self._shown = now
            done = sum(self._counts.values())
            rate = done / max(now - self._began, 0.001)
            print(f"\r{done:,} done, {rate:,.0f}/s\033[K", end="\n" if final else "", file=sys.stderr, flush=True)

    async def _report(self) -> None:
        """Where the keys live, and a summary."""
        infos = await self._reader.get_conn_info()
        print(f"{'node':<24}{'id':<12}{'keys':>10}")
        for number, (host, port, identifier, _) in enumerate(infos):
            try:
                keys = f"{await self._reader.get_node(number, 'keys'):,}"
            except RingError:
                keys = "?"
            print(f"{f'{host}:{port}':<24}{identifier[:8] + '..':<12}{keys:>10}")
        counts, seconds = self._counts, time.monotonic() - self._began
        print(
            f"{counts['put']:,} put, {counts['get']:,} got, {counts['delete']:,} deleted; "
            f"{counts['verified']:,} keys verified through {self._reader.node}; "
            f"{counts['wrong']:,} wrong, {counts['malformed']:,} malformed; {seconds:.1f} s"
        )

    def close(self) -> None:
        """Let go of everything."""
        self._writer.close()
        self._reader.close()
        self._expected.close()


def _shown(value: Any) -> str:
    return ABSENT if value is None else repr(value)[:200]


def main() -> int:
    """The door of `main.py`."""
    return run(command, Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(main())
