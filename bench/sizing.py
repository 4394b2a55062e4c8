"""What a node takes: memory, file descriptors, disk and processor, at rest, for its keys and for its clients.

`python -m bench sizing [--keys N] [--value BYTES] [--clients N]`: three nodes, each with a copy of every key. Memory is
what is resident after each step; processor time is of all three nodes together.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import rpyc

from bench.join import load, spent
from bench.ring import Ring

REST = 20.0
"""Seconds over which a ring at rest is watched."""


def resident(pid: int) -> float:
    """Memory that a process has now, in MB."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1000


def descriptors(pid: int) -> int:
    """Files and sockets that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def stored(directory: Path) -> float:
    """Bytes below a directory on the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keys", type=int, default=300_000)
    options.add_argument("--value", type=int, default=100)
    options.add_argument("--clients", type=int, default=500)
    wanted = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ring = Ring(directory)
        pids = [process.pid for process in ring.processes]

        def tell(what: str, *more: str) -> None:
            memory = "/".join(f"{resident(pid):.0f}" for pid in pids)
            files = "/".join(str(descriptors(pid)) for pid in pids)
            print(f"{what:34}{memory:>14} MB{files:>14} descriptors  {'; '.join(more)}", flush=True)

        try:
            ring.whole()
            before = sum(map(spent, pids))
            time.sleep(REST)
            tell("three nodes at rest", f"{(sum(map(spent, pids)) - before) / REST / 3:.2%} of a core each")
            began, before = stored(directory), sum(map(spent, pids))
            load(ring.port, wanted.keys, wanted.value)
            used = (sum(map(spent, pids)) - before) / wanted.keys
            disk = (stored(directory) - began) / 3 / wanted.keys
            what = f"{wanted.keys:,} keys of {wanted.value:,} bytes"
            tell(
                what, f"{disk:,.0f} bytes of disk a key and node", f"{used * 1e6:.0f} us of processor a put in batches"
            )
            clients = [rpyc.connect("127.0.0.1", ring.port) for _ in range(wanted.clients)]
            for client in clients:
                client.root.get("key 1")
            tell(f"{wanted.clients:,} clients of the first node")
            before = sum(map(spent, pids))
            calls = 2000
            for n in range(calls):
                clients[n % len(clients)].root.get(f"key {n}")
            used = (sum(map(spent, pids)) - before) / calls
            before = sum(map(spent, pids))
            for n in range(calls):
                clients[n % len(clients)].root.put(f"key {n}", b"x" * wanted.value)
            again = (sum(map(spent, pids)) - before) / calls
            tell("the same, after some calls", f"{used * 1e6:.0f} us a get, {again * 1e6:.0f} us a put, one at a time")
            for client in clients:
                client.close()
        finally:
            ring.close()


if __name__ == "__main__":
    main()
