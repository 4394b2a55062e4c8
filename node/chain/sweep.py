"""Removing records whose time to live is over. Readers do not see them any more anyway; this gives the room back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from node.chain.replica import Replica
from node.chain.replicas import Replicas
from node.chain.router import Router
from node.codec import unpack
from node.data import Stored
from node.errors import RingError
from node.identifiers import Name, key_in
from node.settings import Settings

log = logging.getLogger(__name__)


class Sweep:
    """The rounds of one node, over the arcs that it is the head of."""

    def __init__(
        self, replicas: Replicas, operations: Router, settings: Settings, random: Random, wall: Callable[[], float]
    ) -> None:
        self._replicas = replicas
        self._operations = operations
        self._settings = settings
        self._random = random
        self._wall = wall

    async def keep(self) -> None:
        """Round after round, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.sweep_period * self._random.uniform(0.75, 1.25))
            for replica in list(self._replicas):
                if replica.is_head and replica.lasting != replica.state.epoch:
                    try:
                        await self._sweep(replica)
                    except RingError as error:
                        log.debug("%s: %s; trying again later", replica, error)

    async def _sweep(self, replica: Replica) -> None:
        """Delete what has expired; if nothing ever will, note that until something is written that does."""
        replica.lasting = epoch = replica.state.epoch
        after: Name | None = None
        while not replica.gone:
            snapshot = await self._replicas.store.snapshot()
            try:
                records, after = await snapshot.scan(replica.arc, after, self._settings.chunk)
            finally:
                await snapshot.close()
            for record in records:
                stored = unpack(Stored, record.body)
                if stored.expires:
                    replica.lasting = 0
                    if stored.expires <= 1000 * self._wall():
                        await self._operations.delete_if(key_in(record.name), stored.version)
            if after is None or replica.state.epoch != epoch:
                return
            await asyncio.sleep(self._settings.backoff)
