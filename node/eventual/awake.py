"""How long a ring has been awake, which tells what it may have forgotten.

Tombstones go after the grace period. Who was away for longer may hold what was deleted meanwhile, and would bring it
back: it comes back empty. But where nobody is up nothing is deleted. A ring that rested lets no tombstone go before it
has been awake for the grace period, in which all who rested with it come back with what they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from node.chord.household import Household
from node.codec import Address, Message, pack, unpack
from node.errors import RingError, StoreFull
from node.eventual.agreed_time import MICROS, AgreedTime
from node.settings import Settings
from node.store.interface import Batch, Store
from node.transport import Method, Switchboard, Transport

log = logging.getLogger(__name__)

LIVED = "eventual/lived"
"""When this node was last up."""
KNOWN_AWAKE = "eventual/awake"


class Awake(Message, frozen=True):
    """What one node knows of that. Microseconds since 1970."""

    since: int
    """When the ring came up after it had been down, all of it, for longer than the grace period; 0 if it never was."""
    forgotten: int
    """Tombstones from before this may have gone before that."""


AWAKE: Method[None, Awake] = Method("eventual.awake", type(None), Awake)
"""With what may be gone by now."""


class Vigil:
    """That of one node, kept over its restarts. `lived`: when it was up before."""

    def __init__(
        self,
        household: Household,
        store: Store,
        transport: Transport,
        settings: Settings,
        time: AgreedTime,
        lived: int | None,
        awake: Awake,
    ) -> None:
        self._household = household
        self._store = store
        self._transport = transport
        self._settings = settings
        self._time = time
        self._lived = lived
        self._awake = awake
        self._grace = int(settings.grace * MICROS)

    @classmethod
    async def load(
        cls, household: Household, store: Store, transport: Transport, settings: Settings, time: AgreedTime
    ) -> Vigil:
        """On what the store left."""
        now, note = time.own(), await store.read_note(LIVED)
        lived = unpack(int, note) if note else None
        note = await store.read_note(KNOWN_AWAKE)
        awake = unpack(Awake, note) if note else Awake(now if lived is None else 0, 0)
        grace = int(settings.grace * MICROS)
        if lived is not None and now - lived > grace:
            awake = Awake(now, max(awake.forgotten, lived - grace))
        return cls(household, store, transport, settings, time, lived, awake)

    def connect(self, receive: Switchboard) -> None:
        """Answer others."""
        receive.connect(AWAKE, self._tell)

    def forgets(self) -> bool:
        """Whether tombstones may go."""
        return self._time.micros() - self._awake.since >= self._grace

    async def _tell(self, _: None) -> Awake:
        forgotten = self._awake.forgotten
        if self.forgets():
            forgotten = max(forgotten, self._time.micros() - self._grace)
        return Awake(self._awake.since, forgotten)

    async def meet(self, others: Iterable[Address]) -> bool:
        """Learn what these know; whether they may have forgotten what was deleted while this node was away."""
        met = await asyncio.gather(*map(self._told_by, others))
        known = (self._awake, *met)
        self._awake = Awake(min(each.since for each in known), max(each.forgotten for each in known))
        return self._lived is not None and any(each.forgotten > self._lived for each in met)

    async def _told_by(self, node: Address) -> Awake:
        """What a node knows of how long the ring has been awake: always, if it does not tell."""
        try:
            return await self._household.insisting(
                lambda: AWAKE.ask(self._transport, node, None, deadline=self._settings.call)
            )
        except RingError as error:
            log.warning("%s does not say how long it has been up: %s", node, error)
            return Awake(0, self._time.own() - self._grace)

    async def keep(self) -> None:
        """Note now and then that this node lives, for ever."""
        while True:
            batch = Batch()
            batch.note(LIVED, pack(self._time.micros()))
            batch.note(KNOWN_AWAKE, pack(self._awake))
            try:
                await self._store.commit(batch)
            except StoreFull as error:
                log.debug("%s; trying again", error)
            await asyncio.sleep(self._settings.lease_at_rest)
