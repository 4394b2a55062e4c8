"""The links of chains: everything durable here goes to the next one down, in order, several messages under way.

A link asks the next one how far it is and streams from there on. A first message goes even if nothing is lacking: its
answer tells when the rest of the chain has everything. Whatever goes wrong, it asks again; what arrives twice is known
by its version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from node.chain.messages import APPEND, LINK, Append, Link
from node.chain.replica import Replica
from node.chain.ring_map import Life
from node.codec import Address
from node.errors import NotServing, RingError
from node.settings import Settings
from node.tasks import Tasks
from node.transport import Transport

log = logging.getLogger(__name__)

DEPTH = 8
"""Messages of one link that are under way at a time."""


class Links:
    """The links from all replicas of a node to those after them."""

    def __init__(
        self, transport: Transport, settings: Settings, tasks: Tasks, address_of: Callable[[Life], Address | None]
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._tasks = tasks
        self._address_of = address_of

    def follow(self, replica: Replica) -> None:
        """Link a replica, which begins a new epoch, to the one after it."""
        replica.hindered(None)
        if replica.is_tail:
            replica.make_stable(replica.position)
        elif replica.follows:
            self._tasks.spawn(self._keep(replica, replica.state.epoch))

    async def _keep(self, replica: Replica, epoch: int) -> None:
        """Hold the link until the epoch ends."""
        attempt = 0
        while _lasts(replica, epoch):
            began = asyncio.get_running_loop().time()
            try:
                await self._stream(replica, epoch)
            except RingError as error:
                log.debug("%s: link: %s; trying again", replica, error)
                if _lasts(replica, epoch):
                    replica.hindered(error)
            lasted = asyncio.get_running_loop().time() - began
            attempt = 0 if lasted > self._settings.call else min(attempt + 1, 6)
            await asyncio.sleep(min(self._settings.backoff * 2**attempt, self._settings.backoff_limit) / 4)

    async def _stream(self, replica: Replica, epoch: int) -> None:
        after = replica.entry.after(replica.life)
        to = self._address_of(after) if after is not None else None
        if to is None:
            raise NotServing(f"no address is known for the node after this one in {replica.arc}")
        question = Link(replica.entry, replica.life)
        linked = await LINK.ask(self._transport, to, question, deadline=self._settings.call)
        replica.make_stable(min(linked.stable, replica.position))
        missing = await replica.commands_after(linked.position, self._settings.chunk)
        first = Append(replica.arc, epoch, replica.life, linked.position, missing)
        sent = max(first.last, replica.stable)
        under_way = {self._sending(replica, to, first)}
        try:
            while _lasts(replica, epoch):
                failed = _first_failure(under_way)
                if failed is not None:
                    try:
                        raise failed
                    finally:
                        del failed  # or it and this frame, with what is under way, would hold each other
                under_way = {task for task in under_way if not task.done()}
                if len(under_way) >= DEPTH or replica.position <= sent:
                    await replica.changes()
                    continue
                commands = await replica.commands_after(sent, self._settings.chunk)
                message = Append(replica.arc, epoch, replica.life, sent, commands)
                under_way.add(self._sending(replica, to, message))
                sent = commands[-1].version
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def _sending(self, replica: Replica, to: Address, message: Append) -> asyncio.Task[None]:
        task = asyncio.create_task(self._send(replica, to, message))
        task.add_done_callback(lambda _: replica.stir())
        return task

    async def _send(self, replica: Replica, to: Address, message: Append) -> None:
        await APPEND.ask(self._transport, to, message, deadline=self._settings.call)
        if _lasts(replica, message.epoch):
            replica.hindered(None)
            replica.make_stable(min(message.last, replica.position))


def _lasts(replica: Replica, epoch: int) -> bool:
    return replica.follows and replica.state.epoch == epoch


def _first_failure(tasks: set[asyncio.Task[None]]) -> BaseException | None:
    return next((failure for task in tasks if task.done() and (failure := task.exception()) is not None), None)
