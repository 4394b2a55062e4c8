"""A fourth node joins a ring of three that holds much, while plain clients read and write: rate, errors, memory.

`python -m bench join [--megabytes N] [--value BYTES] [--clients N] [--rate N]`. In the same run a file of the same size
as what the newcomer takes over goes from one process to another over a socket, and to the disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import tempfile
import threading
import time
from bisect import bisect_left
from pathlib import Path

import rpyc
import uvloop

from bench.ring import Ring
from node.client.ring import AsyncRing
from node.identifiers import Identifier
from node.settings import MIB

SAMPLE = 40
BATCH = 2 * MIB
"""Bytes of values put at a time."""


def load(port: int, count: int, size: int) -> float:
    """Put so many values; seconds it took."""

    async def run() -> None:
        step = max(1, BATCH // size)
        async with await AsyncRing.connect(f"127.0.0.1:{port}", timeout=60.0) as ring:
            for first in range(0, count, step):
                numbers = range(first, min(first + step, count))
                await ring.put_many({f"key {n}": random.randbytes(size) for n in numbers})

    began = time.perf_counter()
    uvloop.run(run())
    return time.perf_counter() - began


class Client(threading.Thread):
    """A stock client that reads and writes keys of its own until it is told to stop."""

    def __init__(self, port: int, number: int, size: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._connection = rpyc.connect("127.0.0.1", port, config={"sync_request_timeout": 30})
        self._number = number
        self._value = random.randbytes(size)
        self._rate = rate
        self.taken: list[float] = []
        self.errors: list[str] = []
        self.going_on = True

    def run(self) -> None:
        root = self._connection.root
        n = 0
        while self.going_on:
            key = f"client {self._number} {n % 100}"
            began = time.perf_counter()
            try:
                root.put(key, self._value)
                if root.get(key) != self._value:
                    self.errors.append(f"{key} is not what was put")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is counted
                self.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
            self.taken.append(time.perf_counter() - began)
            n += 1
            time.sleep(max(0.0, 2 / self._rate - self.taken[-1]))


def whole(port: int, keys: list[str], nodes: int) -> bool:
    """Whether each of these keys is exactly on the three nodes from its place on clockwise."""
    connection = rpyc.connect("127.0.0.1", port, config={"sync_request_timeout": 30})
    try:
        infos = connection.root.get_conn_info()
        if len(infos) != nodes:
            return False
        places = [Identifier.from_hex(info[2]) for info in infos]
        for key in keys:
            at = bisect_left(places, Identifier.of_key(key.encode()))
            wanted = {infos[(at + step) % nodes][1] for step in range(3)}
            if {replica[1] for replica in connection.root.replicas(key)} != wanted:
                return False
        return True
    finally:
        connection.close()


def peak(pid: int) -> float:
    """The most memory that a process had so far, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def spent(pid: int) -> float:
    """Seconds of processor time that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _received(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as line, open(path, "wb") as file:
        while chunk := line.recv(MIB):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def plain_copy(directory: Path, size: int) -> float:
    """Bytes a second of a file that is read, sent to another process, and written to the disk there."""
    source = directory / "source"
    with source.open("wb") as file:
        for _ in range(size // MIB):
            file.write(random.randbytes(MIB))
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.perf_counter()
        receiver = multiprocessing.get_context("spawn").Process(
            target=_received, args=(server.getsockname()[1], str(directory / "copy"))
        )
        receiver.start()
        line, _ = server.accept()
        began = time.perf_counter()
        with line, source.open("rb") as file:
            line.sendfile(file)
        receiver.join()
    return size / (time.perf_counter() - began)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=200, help="what the ring holds, not counting replicas")
    options.add_argument("--value", type=int, default=10_000, help="bytes of a value")
    options.add_argument("--clients", type=int, default=4)
    options.add_argument("--rate", type=float, default=100, help="operations a second of each client")
    wanted = options.parse_args()
    count = wanted.megabytes * MIB // wanted.value
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ring = Ring(directory)
        try:
            ring.whole()
            print(f"{count:,} values of {wanted.value:,} bytes, loaded in {load(ring.port, count, wanted.value):.0f} s")
            loaded = [peak(process.pid) for process in ring.processes]
            clients = [Client(ring.port, n, wanted.value, wanted.rate) for n in range(wanted.clients)]
            for client in clients:
                client.start()
            time.sleep(1)
            sample = [f"key {n}" for n in random.sample(range(count), SAMPLE)]
            before = sum(spent(process.pid) for process in ring.processes)
            began = time.perf_counter()
            ring.add(directory)
            ready = time.perf_counter() - began
            while not whole(ring.port, sample, 4):
                time.sleep(0.2)
            taken = time.perf_counter() - began
            newcomer = spent(ring.processes[3].pid)
            others = sum(spent(process.pid) for process in ring.processes[:3]) - before
            for client in clients:
                client.going_on = False
            for client in clients:
                client.join()
            moved = 3 / 4 * count * wanted.value
            print(f"ready after {ready:.1f} s, all taken over after {taken:.1f} s: {moved / 1e6:,.0f} MB, ", end="")
            print(f"{moved / (taken - ready) / 1e6:.0f} MB/s")
            print(f"processor time: the newcomer {newcomer:.1f} s, the others together {others:.1f} s, clients served")
            times = sorted(each for client in clients for each in client.taken)
            errors = [error for client in clients for error in client.errors]
            p50, p99, most = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99, 1))
            print(f"clients: {2 * len(times):,} operations, {len(errors)} errors; ", end="")
            print(f"a put and a get together took {p50:.0f} ms (p99 {p99:.0f}, at most {most:.0f})")
            for error in sorted(set(errors))[:5]:
                print(f"  {error}")
            after = [peak(process.pid) for process in ring.processes]
            print("peak memory, MiB: " + ", ".join(f"{each:.0f}" for each in after), end="")
            print(" (after loading: " + ", ".join(f"{each:.0f}" for each in loaded) + ")")
        finally:
            ring.close()
        print(f"a plain file over a socket: {plain_copy(directory, int(moved)) / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
