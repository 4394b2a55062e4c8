"""One hostile connection: many messages at once, what comes back judged, and an ending."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random
from typing import cast

from tests.fuzz.endings import FATAL, half
from tests.fuzz.oracle import Finding, judge, read, secret
from tests.fuzz.requests import NOTHING, May, Message, Rights, hostile
from tests.remote.ends import HOST, call, request

PATIENCE = 30.0
"""Seconds a node may be silent while answers are due."""
LAST = 10**11
"""The number of the question after all others."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an attacker gets in, and as what."""

    port: int
    rights: Rights
    tls: ssl.SSLContext | None = None


class Peer(asyncio.Protocol):
    """A raw end of a connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._news = asyncio.Event()
        self.ended = False
        self.transport: asyncio.Transport

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None) -> Peer:
        _, peer = await asyncio.get_running_loop().create_connection(cls, HOST, port, ssl=tls)
        return peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._news.set()

    def payloads(self) -> list[bytes]:
        """What has come since the last look."""
        found, at, received = [], 0, self.received
        while len(received) >= at + 5:
            size, compressed = struct.unpack_from("!LB", received, at)
            if compressed or size > 10**7:
                raise Finding(f"the node sent no frame: {bytes(received[at : at + 100])!r}")
            if len(received) < at + size + 6:
                break
            found.append(bytes(received[at + 5 : at + 5 + size]))
            at += size + 6
        del received[:at]
        return found

    async def news(self, what: str) -> None:
        """Wait for something to come. Raises Finding."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._news.wait()
        except TimeoutError:
            raise Finding(f"nothing came within {PATIENCE:.0f} s: {what}") from None
        self._news.clear()


class Attack:
    """So many messages, and an ending, all drawn from one seed."""

    def __init__(self, target: Target, seed: str, count: int) -> None:
        self.seed = seed
        self._target = target
        self._random = Random(seed)
        self._count = count
        self._due: dict[int, list[Message]] = defaultdict(list)
        self._answered: Counter[int] = Counter()
        """How many there were under a number that several messages had, for which any of them may have come."""

    async def run(self) -> int:
        """How many messages it was. Raises Finding."""
        target, random = self._target, self._random
        messages = [hostile(random, target.rights, seq) for seq in range(self._count)]
        peer = await Peer.connect(target.port, target.tls)
        try:
            for message in messages:
                if message.may is not NOTHING:
                    self._due[message.seq].append(message)
                peer.transport.write(message.frame)
            await self._answers(peer)
            self._due[LAST].append(Message("the last", b"", LAST, May.ANSWER))
            peer.transport.write(request(LAST, 1, (1, ("x",))))
            await self._answers(peer)
            await self._end(peer)
        except Finding as finding:
            raise Finding(f"{finding}; seed {self.seed!r}, {target.rights.name}") from None
        finally:
            peer.transport.abort()
        return len(messages) + 1

    async def _answers(self, peer: Peer) -> None:
        while self._due:
            for payload in peer.payloads():
                self._judge(payload)
            if not self._due:
                return
            due = [message for each in self._due.values() for message in each]
            what = f"{len(due)} answers are due, the first to {due[0].kind} {due[0].frame[:300].hex()}"
            if peer.ended:
                raise Finding(f"the connection ended: {what}")
            await peer.news(what)

    def _judge(self, payload: bytes) -> None:
        kind, seq, content = read(payload)
        due = self._due.get(seq)
        if due is None:
            raise Finding(f"an answer that nobody waits for: {payload[:300]!r}")
        wrongs = [judge(kind, content, message.may, self._target.rights) for message in due]
        wrong = secret(payload) or ("" if "" in wrongs else wrongs[0])
        if wrong:
            kinds = " or ".join(f"{message.kind} {message.frame[:300]!r}" for message in due)
            raise Finding(f"{wrong} came of {kinds}: {payload[:300]!r}")
        self._answered[seq] += 1
        if self._answered[seq] == len(due):
            del self._due[seq], self._answered[seq]

    async def _end(self, peer: Peer) -> None:
        random, transport = self._random, peer.transport
        how = random.random()
        if how < 0.4:
            name = random.choice(list(FATAL))
            transport.write(FATAL[name](random))
            await self._ended(peer, name)
        elif how < 0.6:
            transport.write(half(random))
            if self._target.tls is None and random.random() < 0.5:
                transport.write_eof()
                await self._ended(peer, "half a frame and the end of the stream")
        elif how < 0.7:  # answers that nobody stays to read
            transport.write(b"".join(call(n, "health") for n in range(50)))
        elif how < 0.9:
            transport.close()

    async def _ended(self, peer: Peer, name: str) -> None:
        while not peer.ended:
            await peer.news(f"the connection was to end after {name}")
            peer.payloads()
