"""A node under attack: portions of hostile messages on several connections at once, and between them a look at what it
must still do. Raises `Finding` at the first thing that is wrong, with the seed of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from node.codec import Address
from node.errors import Definite, OutcomeUnknown, RingError
from node.events import Event
from node.remote.pool import connect
from node.settings import Settings
from tests.fuzz.attack import Attack, Peer
from tests.fuzz.endings import client_hello, half, handshakes
from tests.fuzz.entrances import Entrances
from tests.fuzz.oracle import Finding
from tests.remote.ends import HOST
from tests.ring.nodes import NodeProcess
from tests.trust.rings import what_it_gets

SETTINGS = Settings()
AT_ONCE = 8
"""Hostile connections at a time that send all they can."""
SESSION = 200
"""Messages on one of them."""
SILENT = 100
"""Connections that say nothing, beside them."""
SLOW = 30
"""Connections on which half a frame stands, or comes byte by byte."""
STRANGERS = 0.15
"""Part of the connections to a port with TLS that are by strangers: each is one message only."""
PATIENCE = 10.0
"""Seconds within which an honest client must be answered, in the middle of it all."""
GROWTH = 32 * 2**20
"""Bytes that a node may have more, at the most of the second half of a siege than at the most of the first. The C
library keeps tens of megabytes of what is free until it is given back (see `node.cli.memory`), so that single looks
differ by as much. Of a million messages a leak of seventy bytes each would be more."""
MANY = 100_000
"""Messages from which on that is asked of a node."""
MOST = 512 * 2**20
"""Bytes that it may have at any moment: what a few connections may have it hold, and not what they sent altogether."""


@dataclass
class Report:
    """What came of it."""

    messages: int = 0
    seconds: float = 0.0
    asked: int = 0
    slowest: float = 0.0
    """Seconds that the slowest answer to the honest client took while the attack went on."""
    again: int = 0
    """Of them those that were refused for the moment, and asked again."""
    resident: list[tuple[int, int]] = field(default_factory=list)
    """(messages so far, bytes of memory then)."""
    most: int = 0

    @property
    def growth(self) -> int:
        """The most bytes of memory of the second half beyond the most of the first."""
        halves: tuple[list[int], list[int]] = [], []
        for messages, size in self.resident:
            halves[messages > self.messages / 2].append(size)
        return max(halves[1]) - max(halves[0] or halves[1])

    def __str__(self) -> str:
        if not self.resident:
            return f"{self.messages:,} messages"
        now, growth, most = (size / 1e6 for size in (self.resident[-1][1], self.growth, self.most))
        return (
            f"{self.messages:,} messages in {self.seconds:.0f} s; {self.asked:,} honest requests beside them, the "
            f"slowest {1000 * self.slowest:.0f} ms, {self.again} asked again; memory {now:.0f} MB, {growth:+.1f} in "
            f"the second half, {most:.0f} at most"
        )


class Siege:
    """One node process and its attackers."""

    def __init__(self, node: NodeProcess, entrances: Entrances, seed: int, sentinel: Path) -> None:
        """`sentinel`: a file that attackers try to change."""
        self._node = node
        self._entrances = entrances
        self._seed = seed
        self._sentinel = sentinel
        self._sessions = 0
        self._slow: list[tuple[float, Peer]] = []
        hello = client_hello(entrances.honest) if entrances.honest is not None else b""
        self._handshakes = handshakes(hello)
        self.report = Report()

    async def lay(self, count: int, portion: int, show: Any = lambda report: None) -> Report:
        """Send so many messages, a look at the node after each portion of them."""
        report, began = self.report, time.monotonic()
        async with self._honest_client() as honest:
            while report.messages < count:
                await self._portion(min(portion, count - report.messages))
                await self._look(honest)
                report.seconds = time.monotonic() - began
                show(report)
        for _, peer in self._slow:
            peer.transport.abort()
        if self._node.terminate() != 0:
            raise Finding("the node did not leave in good order")
        lines = self._node.directory.with_suffix(".log").read_text().splitlines()
        if said := [line for line in lines if f" {Event.PEER_REFUSED.label}: " not in line]:
            raise Finding(f"the node had something to say: {' '.join(said)[:5000]}")
        if (report.growth > GROWTH and count >= MANY) or report.most > MOST:
            raise Finding(f"memory grew by {report.growth:,} bytes: {report.resident}")
        return report

    # -- the attack --------------------------------------------------------------------------------------------------

    async def _portion(self, count: int) -> None:
        """Several connections at once, until so many messages were sent."""
        until = self.report.messages + count
        silent = [await Peer.connect(self._node.port) for _ in range(SILENT)]
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._attacker(until))
        except* Finding as findings:
            raise findings.exceptions[0] from None
        finally:
            for peer in silent:
                peer.transport.abort()
        await self._slowly()

    async def _attacker(self, until: int) -> None:
        while self.report.messages < until:
            self._sessions += 1
            seed = f"{self._seed}/{self._sessions}"
            try:
                sent = await self.session(seed, SESSION)
            except (OSError, EOFError) as error:
                raise Finding(f"{type(error).__name__}: {error}; seed {seed!r}") from error
            self.report.messages += sent

    async def session(self, seed: str, count: int) -> int:
        """What happens on one connection; how many messages it was."""
        random = Random(seed)
        if self._entrances.strangers and random.random() < STRANGERS:
            await self._stranger(random, seed)
            return 1
        targets = self._entrances.targets
        target = targets[0] if random.random() < 0.9 else random.choice(targets)
        return await Attack(target, seed, count).run()

    async def _stranger(self, random: Random, seed: str) -> None:
        if random.random() < 0.1:
            told = await what_it_gets(Address(HOST, self._node.port), random.choice(self._entrances.strangers))
            if told:
                raise Finding(f"a stranger was told {told[:300]!r}; seed {seed!r}")
            return
        name = random.choice(list(self._handshakes))
        peer = await Peer.connect(self._node.port)
        peer.transport.write(self._handshakes[name](random))
        if random.random() < 0.5:
            peer.transport.write_eof()
            while not peer.ended:
                await peer.news(f"the end after {name} in place of a handshake; seed {seed!r}")
        peer.transport.abort()
        if peer.received[:1] not in (b"", b"\x15", b"\x16"):
            raise Finding(f"{name} in place of a handshake was answered with {peer.received[:100]!r}; seed {seed!r}")

    async def _slowly(self) -> None:
        """Peers who stop in the middle of a frame, or send a byte of it now and then, lose their connection in time."""
        random = Random(f"{self._seed}/slow/{self._sessions}")
        now = time.monotonic()
        while len(self._slow) < SLOW:
            peer = await Peer.connect(self._node.port, self._entrances.targets[0].tls)
            peer.transport.write(half(random)[:1000])
            self._slow.append((now, peer))
        for began, peer in list(self._slow):
            if peer.ended:
                self._slow.remove((began, peer))
            elif now - began > SETTINGS.half_frame + SETTINGS.handshake:
                raise Finding(f"half a frame is waited for since {now - began:.0f} s")
            elif random.random() < 0.5:
                peer.transport.write(b"\0")

    # -- what must go on ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _honest_client(self) -> AsyncIterator[Any]:
        """A client that was there before, and asks all the time."""
        connection = await connect(HOST, self._node.port, SETTINGS, deadline=10, tls=self._entrances.honest)
        asking = asyncio.create_task(self._ask(connection))
        try:
            yield asking
        finally:
            asking.cancel()
            connection.close()

    async def _ask(self, connection: Any) -> None:
        loop, report = asyncio.get_running_loop(), self.report
        while True:
            key, value = f"honest {report.asked % 50}", f"value {report.asked}"
            began = loop.time()
            await self._answered(connection, "put", key, value)
            got = await self._answered(connection, "get", key)
            if got != value:
                raise Finding(f"an honest client got {got!r} instead of {value!r}")
            report.slowest = max(report.slowest, (loop.time() - began) / 2)
            report.asked += 2
            await asyncio.sleep(0.02)

    async def _answered(self, connection: Any, *words: Any) -> Any:
        """What a call came to; again while the node does not say that it did it, as clients do."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await connection.call(*words, deadline=PATIENCE)
            except RingError as error:
                if not isinstance(error, (Definite, OutcomeUnknown)) or asyncio.get_running_loop().time() > deadline:
                    raise Finding(f"an honest client was not served: {error}") from error
                self.report.again += 1

    async def _look(self, honest: asyncio.Task[None]) -> None:
        """Everything is as it should be, for who was connected before and for who comes now."""
        if honest.done():
            honest.result()
        await asyncio.to_thread(self._newcomer)
        if self._sentinel.read_text() != "untouched":
            raise Finding(f"{self._sentinel} was changed")
        process = self._node.process
        assert process is not None
        self.report.resident.append((self.report.messages, _memory(process.pid, "VmRSS")))
        self.report.most = _memory(process.pid, "VmHWM")

    def _newcomer(self) -> None:
        """A stock client of RPyC, just connected."""
        with self._node.connection() as root:
            number = self.report.messages
            root.put("newcomer", number)
            if root.get("newcomer") != number or dict(root.health())["serving"] is not True:
                raise Finding("a stock client was served wrongly")


def _memory(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024
