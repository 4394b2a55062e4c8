"""Plain RPyC clients that try again, in threads, until standard input ends; then what they saw, as JSON."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

import rpyc

PATIENCE = 30.0
THOUGHT = 0.02
"""Seconds between two calls: the hosts of a test share one machine, which has more to do than to serve them."""


class Client:
    """One connection at a time, to any of the nodes; a call that fails is made again through another."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = nodes
        self._connection: Any = None

    def call(self, name: str, *arguments: Any) -> Any:
        """Raises what the last try raised, after PATIENCE."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self._connection is None:
                    host, port = random.choice(self._nodes).split(":")
                    self._connection = rpyc.connect(host, int(port), config={"sync_request_timeout": 10})
                return getattr(self._connection.root, name)(*arguments)
            except Exception:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def main() -> None:
    """Write and read back own keys in each thread; at the end read them all once more."""
    threads, nodes = int(sys.argv[1]), sys.argv[2:]
    ended = threading.Event()
    written: list[dict[str, int]] = [{} for _ in range(threads)]
    errors: list[str] = []

    def work(number: int) -> None:
        client, turn = Client(nodes), 0
        while not ended.is_set():
            key, turn = f"load/{number}/{turn % 20}", turn + 1
            try:
                client.call("put", key, turn)
                written[number][key] = turn
                time.sleep(THOUGHT)
                if (got := client.call("get", key)) != turn:
                    errors.append(f"{key} is {got}, not {turn}")
            except Exception as error:
                errors.append(f"{key}: {error!r}"[:300])

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in running:
        thread.join()
    last = Client(nodes)
    lost = [key for keys in written for key, value in keys.items() if last.call("get", key) != value]
    print(json.dumps({"errors": errors, "lost": lost, "keys": sum(map(len, written))}))


if __name__ == "__main__":
    main()
