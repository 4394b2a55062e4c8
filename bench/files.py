"""A large file into a ring of three nodes and out again, beside a plain copy over a socket in the same run.

`python -m bench files [--size MB] [--replicas K] [--durability fsync|os]`. The copy reads a file, sends it to another
process, which writes it to a file: what a transfer costs that cuts, hashes and keeps nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import uvloop

from bench.ring import Ring
from bench.transport import cpu_seconds
from node import AsyncRing

MB = 1_000_000
PIECE = 1 << 20


def receive(pipe: Pipe, path: str) -> None:
    """Write what one connection brings to a file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
        buffer = bytearray(PIECE)
        with connection, open(path, "wb", buffering=0) as file:
            while count := connection.recv_into(buffer):
                file.write(memoryview(buffer)[:count])
    pipe.send("done")


def plain_copy(source: Path, target: Path) -> float:
    """Seconds that a copy over a socket takes."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=receive, args=(theirs, str(target)))
    process.start()
    with socket.create_connection(("127.0.0.1", ours.recv())) as connection, source.open("rb", buffering=0) as file:
        began = time.perf_counter()
        while data := file.read(PIECE):
            connection.sendall(data)
    ours.recv()
    taken = time.perf_counter() - began
    process.join()
    return taken


def most_memory(pid: int) -> int:
    """The most a process has had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1000


def make(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for at in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - at)))


async def measure(ring: Ring, source: Path, target: Path) -> None:
    size = source.stat().st_size
    pids = [process.pid for process in ring.processes]

    def said(what: str, began: float, before: tuple[float, float]) -> None:
        taken = time.perf_counter() - began
        client = time.process_time() - before[0]
        nodes = sum(map(cpu_seconds, pids)) - before[1]
        print(f"{what:28}{size / taken / MB:>8,.0f}{client:>14.1f}{nodes:>13.1f}", flush=True)

    def now() -> tuple[float, tuple[float, float]]:
        return time.perf_counter(), (time.process_time(), sum(map(cpu_seconds, pids)))

    async with await AsyncRing.connect(f"127.0.0.1:{ring.port}") as client:
        began, before = now()
        await client.files.put(source, "file")
        said("put", began, before)
        began, before = now()
        await client.files.get("file", target)
        said("get", began, before)
        began, before = now()
        await client.files.put(source, "again")
        said("put what is there", began, before)
    assert target.stat().st_size == size


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=300, help="MB")
    options.add_argument("--replicas", type=int, default=1)
    options.add_argument("--durability", default="os")
    wanted = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        make(source, wanted.size * MB)
        print(f"{os.cpu_count()} cores; {wanted.size:,} MB; three nodes, k={wanted.replicas}, {wanted.durability}")
        print(f"{'':28}{'MB/s':>8}{'client CPU s':>14}{'nodes CPU s':>13}")
        ring = Ring(Path(directory), "--replicas", str(wanted.replicas), "--durability", wanted.durability)
        try:
            ring.whole()
            copy = plain_copy(source, Path(directory) / "copy")
            print(f"{'plain copy over a socket':28}{wanted.size / copy:>8,.0f}")
            uvloop.run(measure(ring, source, target))
            client = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
            if target.read_bytes() != source.read_bytes():
                raise SystemExit("what came out is not what went in")
            nodes = ", ".join(str(most_memory(process.pid)) for process in ring.processes)
            print(f"most memory: client {client} MB, nodes {nodes} MB")
        finally:
            ring.close()


if __name__ == "__main__":
    main()
