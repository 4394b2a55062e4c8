"""Taking an operation on a key to the node that holds it, from whichever node it was asked of.

The holder is guessed from the members known, corrected by what nodes answer (`Moved`), and looked up through the ring
when guessing fails. Definite failures are tried again until the deadline, an unknown outcome only where another attempt
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node.chord.neighbours import Neighbours
from node.chord.residence import Residence
from node.codec import Address, Contact
from node.errors import Moved, NotAMember, NotServing, OutcomeUnknown, Overloaded, RingError, Unavailable, Unreachable
from node.identifiers import Identifier, successor_index
from node.replication.holder import Holder
from node.replication.messages import DELETE, GET, PUT, KeyQuestion, PutQuestion, Stored, Version
from node.transport import A, Method, Q

TRY_AGAIN = (Moved, NotAMember, NotServing, Overloaded, Unreachable)


class Router:
    """The way from this node to the holder of a key."""

    def __init__(self, residence: Residence, holder: Holder, neighbours: Neighbours) -> None:
        self._residence = residence
        self._holder = holder
        self._neighbours = neighbours
        self._settings = neighbours.settings
        self._known: dict[Identifier, Contact] = {}
        self._ordered: list[Identifier] = []

    async def get(self, key: bytes) -> Stored | None:
        """The record of a key. Raises Unavailable, naming what is missing, when the deadline is over."""
        at = Identifier.of_key(key)
        return await self._operate(at, GET, KeyQuestion(key), lambda: self._holder.get(at, key), repeatable=True)

    async def put(self, key: bytes, value: bytes) -> Version:
        """Write a packed value. Raises Unavailable, StoreFull, and OutcomeUnknown if it may have been written."""
        at = Identifier.of_key(key)
        return await self._operate(at, PUT, PutQuestion(key, value), lambda: self._holder.put(at, key, value))

    async def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        at = Identifier.of_key(key)
        return await self._operate(at, DELETE, KeyQuestion(key), lambda: self._holder.delete(at, key))

    async def _operate(
        self,
        position: Identifier,
        method: Method[Q, A],
        question: Q,
        here: Callable[[], Awaitable[A]],
        *,
        repeatable: bool = False,
    ) -> A:
        deadline = asyncio.get_running_loop().time() + self._settings.operation
        target: Address | None = self._guess(position)
        attempt = 0
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                if target is None:
                    target = (await self._looked_up(position)).address
                if target == self._residence.address:
                    return await here()
                patience = min(max(left, 0.001), self._settings.call)
                return await method.ask(self._neighbours.transport, target, question, deadline=patience)
            except TRY_AGAIN as error:
                failure: RingError = error
            except OutcomeUnknown as error:
                if not repeatable:
                    self._forget(target)
                    raise
                failure = error
            target = self._elsewhere(failure, target)
            attempt += 1
            pause = self._settings.backoff * min(attempt, 4) if attempt > 2 or target is None else 0.0
            if asyncio.get_running_loop().time() + pause >= deadline:
                raise Unavailable(
                    f"no answer for this key within {self._settings.operation} s, tried {attempt} times: {failure}"
                ) from None
            if pause:
                await asyncio.sleep(pause)

    def _elsewhere(self, failure: RingError, target: Address | None) -> Address | None:
        """Where to try next; None: look it up."""
        if isinstance(failure, NotServing) and target is not None:
            return target
        if isinstance(failure, Moved) and failure.args[1:] and failure.args[1]:
            return Address(*failure.args[1])
        self._forget(target)
        return None

    def _forget(self, address: Address | None) -> None:
        """Do not guess this node again until it is met again."""
        for contact in [c for c in self._known.values() if c.address == address]:
            del self._known[contact.id]
            self._ordered.remove(contact.id)
            for member in self._residence.members.values():
                member.doubt(contact)

    def _guess(self, position: Identifier) -> Address | None:
        """The node of the first known member at or after the position."""
        if self._holder.holdings.at(position) is not None:
            return self._residence.address
        if not self._ordered:
            return None
        return self._known[self._ordered[successor_index(self._ordered, position)]].address

    async def _looked_up(self, position: Identifier) -> Contact:
        try:
            found = await self._residence.first.find_successor(position)
        except Unavailable as error:
            raise NotServing(*error.args) from None
        self.learn(found.owner, *found.path)
        return found.owner

    def learn(self, *contacts: Contact) -> None:
        """These are members."""
        for contact in contacts:
            self._known[contact.id] = contact
        self._ordered = sorted(self._known)
