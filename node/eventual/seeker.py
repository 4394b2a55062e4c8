"""Where an operation goes: to one replica after another, then to the nodes that follow them, until one answers.

Any of them may: a write that no replica takes is kept for them by who takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node.codec import Address
from node.data import Traffic
from node.errors import BadValue, OutcomeUnknown, Overloaded, RingError, StoreFull, Unavailable
from node.eventual.placement import Placement
from node.identifiers import Identifier
from node.settings import Settings
from node.transport import A, Method, Q, Transport


class Seeker:
    """The side of one node that asks on behalf of clients."""

    def __init__(self, placement: Placement, transport: Transport, settings: Settings) -> None:
        self._placement = placement
        self._transport = transport
        self._settings = settings
        self._quiet: dict[Address, float] = {}
        """Nodes that did not answer, and until when they are asked last."""
        self.traffic = Traffic()

    async def ask(
        self,
        key: bytes,
        method: Method[Q, A],
        question: Q,
        here: Callable[[Q], Awaitable[A]],
        doubts: list[OutcomeUnknown] | None = None,
    ) -> A:
        """What one of the nodes answers; `here` does what this node is asked itself. `doubts` gets what leaves open
        whether a node did it. Raises Unavailable, and what the method does: BadValue and Overloaded at once, StoreFull
        if no other node answers."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        full: RingError | None = None
        failure: RingError = Unavailable("no node is known for this key")
        while True:
            for node in await self._candidates(key):
                left = deadline - loop.time()
                if left <= 0:
                    break
                try:
                    if node == self._placement.here:
                        self.traffic.straight += 1
                        return await here(question)
                    self.traffic.astray += 1
                    patience = min(left, self._settings.probe / 2)
                    return await method.ask(self._transport, node, question, deadline=patience)
                except (BadValue, Overloaded):
                    raise
                except StoreFull as error:
                    full = failure = error
                except RingError as error:
                    if doubts is not None and isinstance(error, OutcomeUnknown):
                        doubts.append(error)
                    failure = error
                    self._quiet[node] = loop.time() + self._settings.call
            if full is not None:
                raise full
            if loop.time() + self._settings.backoff >= deadline:
                raise Unavailable(f"no answer for this key within {self._settings.operation} s: {failure}")
            self._placement.forget()
            await asyncio.sleep(self._settings.backoff)

    async def _candidates(self, key: bytes) -> list[Address]:
        nodes = await self._placement.candidates(Identifier.of_key(key), self._settings.probe)
        now = asyncio.get_running_loop().time()
        self._quiet = {node: until for node, until in self._quiet.items() if until > now}
        replicas = nodes[: self._placement.replicas]
        near = sorted(replicas, key=lambda node: node != self._placement.here)
        return sorted([*near, *nodes[len(replicas) :]], key=lambda node: node in self._quiet)
