"""Taking an operation on keys of one arc to the node that answers it, from whichever node it was asked of.

The map tells where; a wrong answer makes it be read anew. Every write has a name, an operation of this node, so trying
again changes nothing that was done already. What could not be decided within the deadline is said to be unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from node.chain.cartography import Cartography
from node.chain.chains import Chains
from node.chain.messages import READ, WRITE, Edit, Operation, Read, Write, Written
from node.chain.ring_map import Entry, Life
from node.data import Stored, Version
from node.errors import (
    Moved,
    NoQuorum,
    NotAMember,
    NotServing,
    OutcomeUnknown,
    Overloaded,
    RingError,
    StoreFull,
    Unavailable,
    Unreachable,
    VersionConflict,
)
from node.identifiers import Identifier
from node.settings import Settings
from node.transport import A, Method, Q, Transport

T = TypeVar("T")

TRY_AGAIN = (Moved, NotAMember, NotServing, Overloaded, Unreachable)


class Router:
    """The way from this node to the head or the tail of a key's chain."""

    def __init__(
        self, cartography: Cartography, chains: Chains, transport: Transport, settings: Settings, random: Random
    ) -> None:
        self._cartography = cartography
        self._chains = chains
        self._life = chains.replicas.life
        self._transport = transport
        self._settings = settings
        self._random = random
        self._client = random.randbytes(16)
        self._numbers: list[int] = []
        """The last number used in each slot."""
        self._free: list[int] = []
        self._reading: asyncio.Task[RingError | None] | None = None
        self._blind: RingError | None = None
        """Why the map could not be read the last time."""

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key. Raises NoQuorum, Unavailable."""
        found = await self._operate(key, READ, Read((key,)), lambda entry: entry.tail, self._chains.read)
        return found[0]

    async def put(self, key: bytes, value: bytes) -> Version:
        """Write a packed value. Raises NoQuorum, Unavailable, StoreFull, OutcomeUnknown."""
        return (await self._write(Edit(key, value))).version

    async def put_if(self, key: bytes, value: bytes, version: Version | None) -> Version:
        """Write it if the key has this version, None: if it is absent. Raises VersionConflict, and as `put` does."""
        return (await self._write(Edit(key, value, True, version))).version

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        return bool((await self._write(Edit(key, None))).outcome.gone)

    async def _write(self, edit: Edit) -> Written:
        slot = self._free.pop() if self._free else self._new_slot()
        self._numbers[slot] += 1
        try:
            question = Write(Operation(self._client, slot, self._numbers[slot]), (edit,))
            written = await self._operate(edit.key, WRITE, question, lambda entry: entry.head, self._chains.write)
        finally:
            self._free.append(slot)
        if written.outcome.conflict is not None:
            _, found = written.outcome.conflict
            raise VersionConflict(f"{edit.key[:40]!r} has version {found}, not {edit.expected}", found)
        return written

    def _new_slot(self) -> int:
        self._numbers.append(0)
        return len(self._numbers) - 1

    async def _operate(
        self,
        key: bytes,
        method: Method[Q, A],
        question: Q,
        whom: Callable[[Entry], Life],
        here: Callable[[Q], Awaitable[A]],
    ) -> A:
        position = Identifier.of_key(key)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        unknown: OutcomeUnknown | None = None
        attempt = 0
        while True:
            try:
                return await self._ask(position, method, question, whom, here, deadline - loop.time())
            except TRY_AGAIN as error:
                failure: RingError = error
            except OutcomeUnknown as error:
                failure, unknown = error, unknown or error  # the first attempt had the time to find out why
            except StoreFull:
                if unknown is not None:
                    raise unknown from None
                raise
            blind = await self._read_map(deadline - loop.time())
            attempt += 1
            pause = self._settings.backoff * min(2**attempt, 4) * self._random.uniform(0.5, 1)
            if loop.time() + pause >= deadline:
                raise self._given_up(attempt, failure, unknown, blind, method is WRITE)
            await asyncio.sleep(pause)

    async def _ask(
        self,
        position: Identifier,
        method: Method[Q, A],
        question: Q,
        whom: Callable[[Entry], Life],
        here: Callable[[Q], Awaitable[A]],
        left: float,
    ) -> A:
        ring = self._cartography.ring
        if ring is None:
            raise NotServing("this node does not know the ring map yet: try again")
        life = whom(ring.at(position))
        if life == self._life:
            return await here(question)
        resident = ring.resident(life)
        if resident is None:
            raise NotServing("the ring map is changing: try again")
        patience = 1.25 * self._settings.call if method is WRITE else self._settings.probe  # a head takes `call`
        patience = min(max(left, 0.001), patience)
        return await method.ask(self._transport, resident.address, question, deadline=patience)

    async def _read_map(self, left: float) -> RingError | None:
        """Read the map anew, together with all who want that; the error if it cannot be read."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        try:
            async with asyncio.timeout(max(left, 0.001)):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            return self._blind

    async def _read(self) -> RingError | None:
        try:
            await self._cartography.current()
        except RingError as error:
            self._blind = error
        else:
            self._blind = None
        return self._blind

    def _given_up(
        self, attempts: int, failure: RingError, unknown: OutcomeUnknown | None, blind: RingError | None, writes: bool
    ) -> RingError:
        """What to say once the deadline is over."""
        if unknown is not None and writes:
            return OutcomeUnknown(f"tried {attempts} times within {self._settings.operation} s: {unknown}")
        if isinstance(blind, NoQuorum):
            return blind
        return Unavailable(f"no answer for this key within {self._settings.operation} s: {failure}")
