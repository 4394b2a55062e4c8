"""Clients of a ring until standard input ends; then their history in a file, and on standard output what they met.

`python -m tests.deploy.load HISTORY COUNT HOST:PORT ...`: COUNT stock clients of RPyC and COUNT of our own.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rpyc

from tests.ring.clients import Client, PlainClient, Recorder, RingClient

THOUGHT = 0.02
"""Seconds between two calls: the hosts of a test share one machine, which has more to do than to serve them."""


@dataclass(frozen=True)
class Place:
    """Where a node listens."""

    host: str
    port: int

    def connect(self) -> Any:
        """A stock client."""
        return rpyc.connect(self.host, self.port, config={"sync_request_timeout": 10})


def main() -> None:
    """Ask and record."""
    file, count, nodes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    places = [Place(host, int(port)) for host, port in (node.split(":") for node in nodes)]
    recorder = Recorder()
    plain = [PlainClient(f"plain {number}", recorder, places, THOUGHT) for number in range(count)]
    ours = [RingClient(f"ring {number}", recorder, nodes, THOUGHT) for number in range(count)]
    clients: list[Client] = [*plain, *ours]
    for client in clients:
        client.start()
    sys.stdin.read()
    for client in clients:
        client.going_on = False
    for client in clients:
        client.join(60)
    recorder.history.dump(file)
    seen = {
        "broken": [f"{client.name}: {client.error!r}" for client in clients if client.error or client.is_alive()],
        "plain": sum((client.told for client in plain), Counter()),
        "ours": sum((client.told for client in ours), Counter()),
        "errors": [error for client in ours for error in client.errors],
        "longest": max(client.longest for client in clients),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
