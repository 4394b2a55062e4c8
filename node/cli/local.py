"""A ring of node processes on this machine, for as long as somebody needs it. They die with whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import click

from node.cli.arguments import run, run_loop
from node.cli.processes import ROOT, START, bound_to, command_line, ready_at
from node.codec import Address
from node.errors import Unavailable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("count", type=click.IntRange(1, 256), default=5, metavar="[N]")
@click.option("--detach", is_flag=True, help="Leave it running when this command ends, until `ring local --stop`.")
@click.option("--stop", is_flag=True, help="End the ring that was left running, and remove its data.")
def command(count: int, detach: bool, stop: bool) -> int:
    """Run a ring of N node processes (5 unless said otherwise) on free ports of this machine until Ctrl-C.

    Their data is in a temporary directory and goes with them. Each prints its line: ready HOST:PORT id=ID.
    """
    if stop:
        from node.cli.detached import stop_ring

        print(f"{stop_ring()} nodes ended")
    elif detach:
        from node.cli.detached import start_ring

        for line in start_ring(count):
            print(line, flush=True)
        print("it stays until: ring local --stop")
    else:
        run_loop(lambda: _stay(count))
    return 0


async def _stay(count: int) -> None:
    """Until the first signal; it ends the start of the ring too."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told = asyncio.Event()

    def leave() -> None:
        if not told.is_set():
            told.set()
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    try:
        with tempfile.TemporaryDirectory(prefix="rpychord-") as directory:
            async with LocalRing(count, Path(directory)) as ring:
                for line in ring.lines:
                    print(line, flush=True)
                await ring.broken()
    except asyncio.CancelledError:
        if not told.is_set():
            raise


class LocalRing:
    """`async with LocalRing(5, directory) as ring: ring.addresses`. `words` are further words for each `server.py`."""

    def __init__(self, count: int, directory: Path, *words: str) -> None:
        self._count = count
        self._directory = directory
        self._words = words
        self._processes: list[asyncio.subprocess.Process] = []
        self.addresses: list[Address] = []
        """Where the nodes listen, the first one first."""
        self.lines: list[str] = []
        """Their ready lines."""

    async def __aenter__(self) -> LocalRing:
        try:
            first = await self._start(0, None)
            rest = [asyncio.ensure_future(self._start(n, first)) for n in range(1, self._count)]
            try:
                self.addresses = [first, *await asyncio.gather(*rest)]
            finally:
                for starting in rest:
                    starting.cancel()
                await asyncio.gather(*rest, return_exceptions=True)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def broken(self) -> None:
        """Raises Unavailable, with what it said, as soon as one of the processes has ended."""
        waiting = [asyncio.ensure_future(process.wait()) for process in self._processes]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        number = next(n for n, process in enumerate(self._processes) if process.returncode is not None)
        code = self._processes[number].returncode
        raise Unavailable(f"a node of the local ring ended with code {code}: {self._said(number)}")

    async def _start(self, number: int, first: Address | None) -> Address:
        """Start one process; where it listens, once it is ready. Raises Unavailable with what it said."""
        process = await self._spawn(number, [first.host, str(first.port), "0"] if first else ["--port", "0"])
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START):
                line = (await process.stdout.readline()).decode(errors="replace").strip()
        except TimeoutError:
            line = ""
        address = ready_at(line)
        if address is None:
            raise Unavailable(f"node {number} of the local ring did not start: {self._said(number)}")
        self.lines.append(line)
        return address

    async def _spawn(self, number: int, words: list[str]) -> asyncio.subprocess.Process:
        data = self._directory / f"node{number}"
        with self._log(number).open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command_line([*words, "--data", str(data), *self._words]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                preexec_fn=bound_to(os.getpid(), signal.SIGKILL),
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _log(self, number: int) -> Path:
        return self._directory / f"node{number}.log"

    def _said(self, number: int) -> str:
        """What a process wrote on standard error."""
        return self._log(number).read_text(errors="replace").strip() or "it said nothing"

    async def _stop(self) -> None:
        """All end at once, and their ring with them: nobody is left to hand anything to."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self._processes))


def main() -> int:
    """The command on its own."""
    return run(command, "ring local")


if __name__ == "__main__":
    sys.exit(main())
