"""Peers that were not let in, told to whoever operates the node: each host once in a while, with how often it was."""

from __future__ import annotations

import logging
from collections import Counter

from node.events import Event

log = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds in which one host is told of once."""
HOSTS = 1000
"""That are told apart within that time; of others it is not said any more that they come, or came again."""


class Refusals:
    """Those of one node."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._since: Counter[str] = Counter()

    def tell(self, peer: str, reason: str, now: float) -> None:
        """A peer at HOST:PORT is refused."""
        host = peer.rpartition(":")[0] or peer
        if now - self._told.get(host, float("-inf")) < PERIOD or (host not in self._told and len(self._told) >= HOSTS):
            if host in self._told:
                self._since[host] += 1
            if len(self._since) > HOSTS:  # whoever has many addresses is not remembered for ever by each
                del self._since[next(iter(self._since))]
            return
        before = self._since.pop(host, 0)
        self._told = {each: at for each, at in self._told.items() if now - at < PERIOD} | {host: now}
        again = f", and {before} times more before" if before else ""
        Event.PEER_REFUSED.tell(log, "%s is refused%s: %s", peer, again, reason)
