"""Which nodes seem to live: each is asked for its life again and again. A verdict here moves replicas, never safety."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from node.chain.cartography import Cartography
from node.chain.messages import ALIVE, Sign
from node.chain.ring_map import Life, Resident
from node.errors import RingError, StoreFull
from node.events import Event
from node.settings import Settings
from node.transport import Transport

log = logging.getLogger(__name__)

MISSES = 2
"""Answers in a row that must be missing before a node seems dead."""


class Pulse:
    """What one node thinks of others."""

    def __init__(self, cartography: Cartography, transport: Transport, settings: Settings, life: Life) -> None:
        self._cartography = cartography
        self._transport = transport
        self._settings = settings
        self._life = life
        self._missed: dict[Life, int] = {}
        self._silent_since: dict[Life, float] = {}

    async def feel(self, residents: Iterable[Resident]) -> None:
        """Ask all of these once; forget about all others."""
        asked = {resident.life: resident for resident in residents if resident.life != self._life}
        self._missed = {life: missed for life, missed in self._missed.items() if life in asked}
        self._silent_since = {life: since for life, since in self._silent_since.items() if life in asked}
        await asyncio.gather(*(self._ask(resident) for resident in asked.values()))

    async def _ask(self, resident: Resident) -> None:
        life = resident.life
        began = asyncio.get_running_loop().time()
        revision = self._cartography.revision
        try:
            sign = await ALIVE.ask(self._transport, resident.address, revision, deadline=self._settings.probe)
        except RingError:
            sign = Sign(b"", None)
        if sign.news is not None:
            try:
                await self._cartography.learn(sign.news)
            except StoreFull as error:
                log.debug("a newer map was not noted: %s", error)
        if sign.life == life:
            if not self.seems_alive(life):
                Event.NODE_ANSWERS.tell(log, "%s answers again", resident.address)
            self._missed.pop(life, None)
            self._silent_since.pop(life, None)
        else:
            self._missed[life] = self._missed.get(life, 0) + 1
            self._silent_since.setdefault(life, began)
            if self._missed[life] == MISSES:
                Event.NODE_SILENT.tell(log, "%s does not answer: others do its work", resident.address)

    @property
    def doubts(self) -> bool:
        """Whether a node may be dead that is not known to be: it should be asked again soon."""
        return any(missed < MISSES for missed in self._missed.values())

    def seems_alive(self, life: Life) -> bool:
        """Whether it answered lately; this node always does."""
        return self._missed.get(life, 0) < MISSES

    def silent_for(self, life: Life) -> float:
        """Seconds since it first missed an answer; 0 if it seems alive."""
        since = self._silent_since.get(life)
        return 0.0 if since is None or self.seems_alive(life) else asyncio.get_running_loop().time() - since
