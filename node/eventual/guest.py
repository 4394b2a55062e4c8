"""Operations of a client of an eventual ring: each goes to the node that owns its key, or to the next one that answers.

A write that a node may have taken is not given to another one: stamped a second time, it could undo what was written
since.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from node.batches import portions, side_by_side
from node.codec import Address, Contact
from node.data import Scan, Stored, Version
from node.errors import (
    BadUsage,
    BadValue,
    Definite,
    OutcomeUnknown,
    RingError,
    StoreFull,
    Unavailable,
)
from node.eventual.limits import Limited, check_lasting
from node.eventual.messages import CONTACTS, COUNT, DELETE_MANY, GET_MANY, PUT_MANY, SCAN
from node.identifiers import EVERYTHING, Arc, Identifier, successor_index
from node.settings import Settings
from node.transport import A, Method, Q, Transport

T = TypeVar("T")

FRESH = 10.0
"""Seconds after which the members are asked for anew."""
SIDE_BY_SIDE = 4
"""Questions of one batch under way at a time: a node works on each key by itself, and what waits for it too long is
asked a second time."""
FINAL = (BadValue, BadUsage, StoreFull)


class Guest(Limited):
    """The `Operations` of a client."""

    def __init__(self, seeds: Iterable[Address], transport: Transport, settings: Settings) -> None:
        self._seeds = tuple(seeds)
        self._transport = transport
        self._settings = settings
        self._contacts: list[Contact] = []
        self._until = 0.0

    @property
    def nodes(self) -> list[Address]:
        """The members as of not long ago, and the nodes that the client began with."""
        return list(dict.fromkeys([*(contact.address for contact in self._contacts), *self._seeds]))

    async def get(self, key: bytes) -> Stored | None:
        """What the node that answers knows to be the latest. Raises Unavailable."""
        return (await self.get_many((key,)))[key]

    async def put(self, key: bytes, value: bytes, expires: int = 0) -> Version:
        """Raises Unavailable, StoreFull, OutcomeUnknown, and BadUsage for a record that expires."""
        check_lasting(expires)
        (version,) = await self._ask(Identifier.of_key(key), PUT_MANY, ((key, value),), repeatable=False)
        return version

    async def delete(self, key: bytes) -> bool:
        """Raises as `put` does."""
        return bool(await self.delete_many((key,)))

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Stored | None]:
        """Raises as `get` does."""
        found: dict[bytes, Stored | None] = {}

        async def get(part: list[bytes]) -> None:
            while part:
                answer = await self._ask(Identifier.of_key(part[0]), GET_MANY, tuple(part))
                found.update(zip(part, answer, strict=False))
                part = part[max(len(answer), 1) :]

        await self._apart(get, dict.fromkeys(keys), lambda key: key, len)
        return found

    async def put_many(self, pairs: Iterable[tuple[bytes, bytes]], expires: int = 0) -> None:
        """Raises as `put` does."""
        check_lasting(expires)

        async def put(part: list[tuple[bytes, bytes]]) -> None:
            await self._ask(Identifier.of_key(part[0][0]), PUT_MANY, tuple(part), repeatable=False)

        await self._apart(put, dict(pairs).items(), lambda pair: pair[0], lambda pair: len(pair[0]) + len(pair[1]))

    async def delete_many(self, keys: Iterable[bytes]) -> int:
        """Raises as `put` does."""
        gone = 0

        async def delete(part: list[bytes]) -> None:
            nonlocal gone
            there = await self._ask(Identifier.of_key(part[0]), DELETE_MANY, tuple(part), repeatable=False)
            gone += there

        await self._apart(delete, dict.fromkeys(keys), lambda key: key, len)
        return gone

    async def scan(
        self, prefix: bytes = b"", *, keys_only: bool = False
    ) -> AsyncIterator[tuple[tuple[bytes, Stored], ...]]:
        """Raises Unavailable."""
        rest: Arc | None = EVERYTHING
        while rest is not None:
            scanned = await self._ask(rest.start.plus(1), SCAN, Scan(rest, prefix, keys_only))
            rest = scanned.rest
            if scanned.records:
                yield scanned.records

    async def count(self, arc: Arc = EVERYTHING) -> int:
        """Raises Unavailable."""
        return await self._ask(arc.end, COUNT, arc)

    # -- going there -------------------------------------------------------------------------------------------------

    async def _apart(
        self,
        do: Callable[[list[T]], Awaitable[None]],
        things: Iterable[T],
        key_of: Callable[[T], bytes],
        size_of: Callable[[T], int],
    ) -> None:
        """By the node that owns them, and by size, some at a time; then the first failure, if there was one."""
        await self._learn_members()
        ids = [contact.id for contact in self._contacts]

        def owner_of(thing: T) -> int:
            return successor_index(ids, Identifier.of_key(key_of(thing))) if ids else 0

        await side_by_side(do, portions(things, size_of, owner_of), SIDE_BY_SIDE)

    async def _ask(self, point: Identifier, method: Method[Q, A], question: Q, *, repeatable: bool = True) -> A:
        """Ask the owner of a point, then those after it. Raises Unavailable; OutcomeUnknown unless it is repeatable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        while True:
            failure: RingError = Unavailable("no node of the ring is known")
            for node in await self._nodes(point):
                left = deadline - loop.time()
                if left <= 0:
                    break
                try:
                    patience = min(left, self._settings.call) if repeatable else left  # nobody else may do it again
                    return await method.ask(self._transport, node, question, deadline=patience)
                except FINAL:
                    raise
                except Definite as error:
                    failure = error
                except OutcomeUnknown as error:
                    if not repeatable:
                        raise
                    failure = error
            self._until = 0.0
            if loop.time() + self._settings.backoff >= deadline:
                raise Unavailable(f"no answer within {self._settings.operation} s: {failure}")
            await asyncio.sleep(self._settings.backoff)

    async def _nodes(self, point: Identifier) -> list[Address]:
        await self._learn_members()
        at = bisect_left([contact.id for contact in self._contacts], point)
        following = [*self._contacts[at:], *self._contacts[:at]]
        return list(dict.fromkeys([*(contact.address for contact in following), *self._seeds]))

    async def _learn_members(self) -> None:
        """Know the members, as of not long ago, if anybody tells."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._until:
            return
        self._until = loop.time() + FRESH
        for node in self.nodes:
            try:
                contacts = await CONTACTS.ask(self._transport, node, None, deadline=self._settings.call)
            except RingError:
                continue
            self._contacts = sorted(contacts, key=lambda contact: contact.id)
            return
