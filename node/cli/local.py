"""A ring of node processes on this machine, for as long as somebody needs it. They die with whoever started them."""

from __future__ import annotations

import asyncio
import ctypes
import re
import signal
import sys
from pathlib import Path

from node.codec import Address
from node.errors import Unavailable

READY = re.compile(rb"^ready (\S+):(\d+) id=[0-9a-f]{40}$")
START = 30.0
"""Seconds a process has to become ready."""
STOP = 30.0
"""Seconds the processes have to leave."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class LocalRing:
    """`async with LocalRing(5, directory) as ring: ring.addresses`."""

    def __init__(self, count: int, directory: Path) -> None:
        self._count = count
        self._directory = directory
        self._processes: list[asyncio.subprocess.Process] = []
        self.addresses: list[Address] = []

    async def __aenter__(self) -> LocalRing:
        try:
            self.addresses = [await self._start(0, None)]
            first = self.addresses[0]
            self.addresses += await asyncio.gather(*(self._start(n, first) for n in range(1, self._count)))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self, number: int, first: Address | None) -> Address:
        """Start one process; where it listens, once it is ready. Raises Unavailable with what it said."""
        log = self._directory / f"node{number}.log"
        words = [first.host, str(first.port), "0"] if first else ["--port", "0"]
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "node.cli.serve",
                *words,
                "--data",
                str(self._directory / f"node{number}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).resolve().parents[2],
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START)
        except TimeoutError:
            line = b""
        ready = READY.match(line.strip())
        if ready is None:
            raise Unavailable(
                f"node {number} of the local ring did not start: {log.read_text().strip() or 'it said nothing'}"
            )
        return Address(ready[1].decode(), int(ready[2]))

    async def _stop(self) -> None:
        """All leave at once; what has not left in time is killed."""
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
        try:
            async with asyncio.timeout(STOP):
                await asyncio.gather(*(process.wait() for process in self._processes))
        except TimeoutError:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
