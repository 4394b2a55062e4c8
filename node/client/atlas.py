"""The ring map as a client knows it: learnt from any node of the ring, anew when it turns out to be old."""

from __future__ import annotations

from collections.abc import Iterable

from node.chain.messages import CHART
from node.chain.ring_map import RingMap
from node.codec import Address, unpack
from node.errors import NoQuorum, RingError, Unreachable
from node.register.messages import Record
from node.settings import Settings
from node.transport import Transport


class Atlas:
    """The `Charts` of a router that is on no node."""

    def __init__(self, record: Record, seeds: Iterable[Address], transport: Transport, settings: Settings) -> None:
        self._seeds = tuple(seeds)
        self._transport = transport
        self._settings = settings
        self._turned = 0
        self._take(record)

    def _take(self, record: Record) -> None:
        self._revision = record.revision
        self._ring = unpack(RingMap, record.value)

    @property
    def ring(self) -> RingMap:
        """The latest map known."""
        return self._ring

    @property
    def nodes(self) -> list[Address]:
        """Those that are in it, and those the client began with."""
        return list(dict.fromkeys([*(resident.address for resident in self._ring.residents), *self._seeds]))

    async def current(self) -> None:
        """Learn the map as it is now from a node, each time beginning with another. Raises NoQuorum if those that
        answer cannot tell, Unreachable if none answers."""
        nodes = self.nodes
        self._turned += 1
        failure: RingError = Unreachable("no node of the ring is known")
        for n in range(len(nodes)):
            node = nodes[(self._turned + n) % len(nodes)]
            try:
                record = await CHART.ask(self._transport, node, self._revision, deadline=self._settings.probe)
            except RingError as error:
                failure = error if not isinstance(failure, NoQuorum) else failure
                continue
            if record.revision > self._revision:
                self._take(record)
            return
        raise failure
