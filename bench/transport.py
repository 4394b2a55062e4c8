"""What a call costs: RPyC as it comes, our transport, a bare TCP echo, side by side. Run `python -m bench.transport`.

Servers run in processes of their own, ours on uvloop. The candidates take turns, round after round, and the best round
of each counts: machines are noisy, the ratios to the first line hold.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import rpyc
import uvloop
from rpyc.utils.server import ThreadedServer

from node.remote.listener import Listener
from node.remote.pool import connect
from node.settings import Settings

HOST = "127.0.0.1"
VALUE = b"v" * 100
KEY = b"k" * 16
IN_FLIGHT = 64
TICK = os.sysconf("SC_CLK_TCK")


class Stock(rpyc.Service):
    def exposed_get(self, key: bytes) -> bytes:
        return VALUE


class Ours:
    async def exposed_get(self, key: bytes) -> bytes:
        return VALUE


def stock_server(pipe: Pipe) -> None:
    server = ThreadedServer(Stock, hostname=HOST, port=0)
    pipe.send(server.port)
    server.start()


def our_server(pipe: Pipe) -> None:
    async def serve() -> None:
        async with Listener(Settings(), HOST, 0, Ours()) as listener:
            pipe.send(listener.port)
            await asyncio.Event().wait()

    uvloop.run(serve())


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def echo_server(pipe: Pipe) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, HOST, 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def stock_client(port: int, calls: int) -> None:
    connection = rpyc.connect(HOST, port)
    get = connection.root.get
    for _ in range(calls):
        get(KEY)
    del get
    connection.close()


def echo_client(port: int, calls: int) -> None:
    with socket.create_connection((HOST, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(calls):
            sock.sendall(VALUE)
            sock.recv(4096)


def our_client(port: int, calls: int, in_flight: int) -> None:
    async def one_after_another(connection: Any, count: int) -> None:
        for _ in range(count):
            await connection.call("get", KEY, deadline=5.0)

    async def run() -> None:
        connection = await connect(HOST, port, Settings(), deadline=5.0)
        await asyncio.gather(*(one_after_another(connection, calls // in_flight) for _ in range(in_flight)))
        connection.close()

    uvloop.run(run())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=25)
    options.add_argument("--calls", type=int, default=1500, help="one at a time, a round; in flight four times as many")
    wanted = options.parse_args()
    calls, many = wanted.calls, 4 * wanted.calls

    context = multiprocessing.get_context("spawn")
    processes, ports = [], []
    for server in (stock_server, our_server, echo_server):
        ours, theirs = context.Pipe()
        process = context.Process(target=server, args=(theirs,), daemon=True)
        process.start()
        processes.append(process)
        ports.append(ours.recv())
    stock, our, echo = ports
    candidates: list[tuple[str, int, int, Callable[[], None]]] = [
        ("stock server, stock client, one at a time", 0, calls, lambda: stock_client(stock, calls)),
        ("our server, stock client, one at a time", 1, calls, lambda: stock_client(our, calls)),
        ("our server, awaited, one at a time", 1, calls, lambda: our_client(our, calls, 1)),
        (f"our server, awaited, {IN_FLIGHT} in flight", 1, many, lambda: our_client(our, many, IN_FLIGHT)),
        ("plain TCP echo, one at a time", 2, calls, lambda: echo_client(echo, calls)),
    ]
    rates = [0.0] * len(candidates)
    costs = [float("inf")] * len(candidates)
    for _ in range(wanted.rounds):
        for i, (_, server, count, run) in enumerate(candidates):
            pid = processes[server].pid or 0
            used, began = cpu_seconds(pid), time.perf_counter()
            run()
            rates[i] = max(rates[i], count / (time.perf_counter() - began))
            costs[i] = min(costs[i], (cpu_seconds(pid) - used) / count)
    for process in processes:
        process.terminate()

    print(f"{'':44}{'calls/s':>10}{'ratio':>8}{'server CPU':>12}")
    for (name, _, _, _), rate, cost in zip(candidates, rates, costs, strict=True):
        print(f"{name:44}{rate:>10,.0f}{rate / rates[0]:>8.2f}{cost * 1e6:>9.1f} us")


if __name__ == "__main__":
    main()
