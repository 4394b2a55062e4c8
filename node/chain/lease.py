"""The right of a node to answer for its replicas: for a short time, from a majority of keepers, under the newest map.

    in use     somebody asked something lately: it is renewed well before it runs out
    at rest    nobody did: it runs out; who asks next waits for the keepers' answer once

A node at rest still asks now and then, since the answer tells it of a newer map.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from node.chain.cartography import Cartography, Register
from node.chain.ring_map import Life
from node.errors import NoQuorum, RingError
from node.events import Event
from node.settings import Settings

log = logging.getLogger(__name__)

USE = 2.0
"""How long a lease is kept up after the last question, in times of its length."""


class Lease:
    """One node's lease."""

    def __init__(
        self,
        register: Register,
        cartography: Cartography,
        settings: Settings,
        clock: Callable[[], float],
        life: Life,
    ) -> None:
        self._register = register
        self._cartography = cartography
        self._settings = settings
        self._clock = clock
        self._life = life
        self._until = float("-inf")
        self._has_quorum = True
        """As far as was told."""
        self._lacking: float | None = None
        """Since when too few keepers were reached."""
        self._used_at = clock()
        self._wanted = asyncio.Event()
        self._renewed = asyncio.Event()

    def holds(self) -> bool:
        """Whether it holds at this moment."""
        return self._clock() < self._until

    def use(self) -> bool:
        """Use it, so that it is kept up; whether it holds at this moment."""
        self._used_at = self._clock()
        return self.holds()

    async def obtain(self) -> None:
        """Use it; if it does not hold, wait until the keepers were asked. Look at `holds` afterwards."""
        if not self.use():
            renewed = self._renewed
            self._wanted.set()
            try:
                async with asyncio.timeout(self._settings.call):
                    await renewed.wait()
            except TimeoutError:
                return

    def renew(self) -> None:
        """Ask for it anew: the map has changed."""
        self._wanted.set()

    async def keep(self) -> None:
        """Round after round, until cancelled."""
        while True:
            self._wanted.clear()
            await self._ask()
            self._renewed.set()
            self._renewed = asyncio.Event()
            try:
                async with asyncio.timeout(self._period()):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    def _period(self) -> float:
        if self._clock() - self._used_at > USE * self._settings.lease:
            return self._settings.lease_at_rest
        return self._settings.lease / 3 if self.holds() else self._settings.backoff

    async def _ask(self) -> None:
        try:
            until = await self._register.lease(self._life, self._cartography.revision)
            if until is None:
                await self._cartography.current()
            else:
                self._until = until
            self._note_quorum(None)
        except NoQuorum as error:
            self._note_quorum(error)
        except RingError as error:
            log.debug("no lease: %s", error)

    def _note_quorum(self, lack: NoQuorum | None) -> None:
        """Tell when most keepers are out of reach, and when they are there again."""
        now = self._clock()
        if lack is None:
            if not self._has_quorum:
                Event.QUORUM_REGAINED.tell(log, "most keepers of the ring map answer again")
            self._has_quorum, self._lacking = True, None
            return
        self._lacking = now if self._lacking is None else self._lacking
        if self._has_quorum and now - self._lacking >= self._settings.call:  # nodes come up one after the other
            Event.QUORUM_LOST.tell(log, "%s", lack)
            self._has_quorum = False
