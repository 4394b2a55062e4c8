"""Node processes that commands start: several together for as long as the command lives, or on their own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from node.cli.arguments import SERVER, USAGE
from node.codec import Address
from node.errors import BadUsage, RingError, Unavailable
from node.settings import Settings
from node.store.directory import CONTENT
from node.trust.keyring import Keyring

ROOT = Path(__file__).resolve().parents[2]
START = 30.0
"""Seconds a process has to become ready."""
READY = re.compile(r"^ready (\S+):(\d+) id=[0-9a-f]{40}$")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def command_line(words: Sequence[str]) -> list[str]:
    """What starts a node with these words of `server.py`."""
    return [sys.executable, "-m", "node.cli.serve", *words]


def ready_at(line: str) -> Address | None:
    """Where a node listens that printed this line; None if it is not the line of one that is ready."""
    found = READY.match(line)
    return Address(found[1].strip("[]"), int(found[2])) if found else None


def bound_to(parent: int, number: int) -> Callable[[], None]:
    """For `preexec_fn`: get this signal when the parent is gone, end at once if it is gone already."""

    def bind() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return bind


def start_detached(words: Sequence[str], log: Path) -> tuple[int, str]:
    """A node that goes on when this command ends; its pid and its ready line. What it says goes to the log.

    Raises Unavailable or BadUsage, with what it said, if it does not become ready.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        begins = output.tell()
        process = subprocess.Popen(
            command_line(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START
    try:
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            with log.open("rb") as said:
                said.seek(begins)
                lines = said.read().decode(errors="replace").splitlines()
            ready = next((line for line in lines if ready_at(line)), None)
            if ready is not None:
                return process.pid, ready
            if ended:
                why = lines[-1].removeprefix(f"{SERVER}: ") if lines else f"the node said nothing: see {log}"
                if lines and not begins:
                    log.unlink(missing_ok=True)
                raise BadUsage(why) if process.returncode == USAGE else Unavailable(why)
            time.sleep(0.02)
    except BaseException:
        process.kill()
        raise
    process.kill()
    raise Unavailable(f"the node was not ready within {START:.0f} s: see {log}")


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nothing listens on, and that nobody gets by chance meanwhile: only who asks for them by number."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("", 0))
        yield [each.getsockname()[1] for each in sockets]


class Servers:
    """Several nodes on ports of this machine, one process each; they end together."""

    def __init__(
        self,
        words_of: Callable[[int, Address | None], Sequence[str]],
        directories: Sequence[Path],
        first: Address | None,
        here: Address,
    ) -> None:
        """`words_of(n, first)`: what the nth node is started with, None for one that begins a ring. `directories`:
        where each has its data. `here`: where the first of them will listen."""
        self._words_of = words_of
        self._directories = directories
        self._here = here
        self._count = len(directories)
        self._first = first
        self._processes: list[asyncio.subprocess.Process] = []
        self.resting = False
        """They are to end as they are, for a ring of which all nodes are to rest."""

    async def run(self) -> int:
        """Start them, print each one's line, stay until all have ended; the exit code. Raises Unavailable or
        BadUsage if one of them does not start.

        Those that come back may wait for each other. Newcomers come after the first one, which lets them in.
        """
        others = range(1, self._count)
        begin = {0: self._first}
        begin |= {n: self._first or self._here for n in others if (self._directories[n] / CONTENT).exists()}
        rest = [number for number in others if number not in begin]
        try:
            there = await asyncio.gather(*(self._start(number, first) for number, first in begin.items()))
            token = await self._token(len(rest))
            await asyncio.gather(*(self._start(number, self._first or there[0], token) for number in rest))
            await asyncio.gather(*(self._watched(process) for process in self._processes))
        finally:
            await self._stop()
        return 0

    async def _token(self, uses: int) -> str | None:
        """What lets so many into the ring; None if it has no certificates."""
        if not uses or not self._has_certificates:
            return None
        from node.cli.trust import asked

        _, token = await asked(self._directories[0], "make_token", "node", uses, Settings().token)
        return str(token)

    @property
    def _has_certificates(self) -> bool:
        return Keyring(self._directories[0]).exists

    async def _start(self, number: int, first: Address | None, token: str | None = None) -> Address:
        process = await asyncio.create_subprocess_exec(
            *command_line(self._words_of(number, first)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **({} if token is None else {"RPYCHORD_TOKEN": token})},
            preexec_fn=bound_to(os.getpid(), signal.SIGTERM),
            start_new_session=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode().strip()
        address = ready_at(line)
        if address is None:
            said = f"server {number + 1} of {self._count} did not start: its complaint is above"
            raise BadUsage(said) if await process.wait() == USAGE else Unavailable(said)
        print(line, flush=True)
        return address

    async def _are_all(self) -> bool:
        """Whether the ring has just these nodes: there is nobody to hand anything over to."""
        if self._first is not None:
            return False
        running = sum(process.returncode is None for process in self._processes)
        try:
            return running == len({member[:2] for member in await self._members()})
        except RingError:
            return False

    async def _members(self) -> Sequence[tuple[str, int, str, str]]:
        if self._has_certificates:
            from node.cli.trust import asked

            members: Sequence[tuple[str, int, str, str]]
            _, members = await asked(self._directories[0], "get_conn_info")
            return members
        from node.client.ring import AsyncRing

        async with await AsyncRing.connect(self._here, timeout=2.0) as ring:
            return await ring.overlay()

    async def _watched(self, process: asyncio.subprocess.Process) -> None:
        """Pass on what it prints after its ready line, which lets other machines in, until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            print(line.decode().rstrip(), flush=True)
        code = await process.wait()
        if code:
            print(f"a server (pid {process.pid}) ended with code {code}, the others go on", file=sys.stderr, flush=True)

    def tell(self, number: int) -> None:
        """Pass a signal on."""
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(number)

    async def _stop(self) -> None:
        """All leave, or rest if there are no others in their ring. Cancelled meanwhile, they end at once."""
        self.tell(signal.SIGUSR1 if self.resting or await self._are_all() else signal.SIGTERM)
        try:
            await asyncio.gather(*(process.wait() for process in self._processes))
        finally:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
