"""Us beside others that hold keys and values, in one run on this machine: `python -m bench rivals [--rounds N]`.

Each measurement is a batch of work done by every contender in turn, round after round, and the best round of each
counts: what else goes on here hits all alike. Rivals that are not installed are named and left out. Ours keeps what it
acknowledges in the page cache here (`--durability os`), as redis-server without its log keeps it in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import rpyc

from node import AsyncRing, Ring
from node.client.background import background

ROOT = Path(__file__).resolve().parents[1]
IN_FLIGHT = 16, 64
THREADS = 8
BATCH = 1_000
DATAGRAM = 8_000
"""Bytes of a value that `kademlia` takes at most."""
SIZES = {"100 B": 100, "10 kB": 10_000}

Work = Callable[[int], int]
"""Does one portion of work with values of so many bytes; how many operations that was."""


class Contender:
    """One store, ready to be asked. `works` by the name of the measurement."""

    def __init__(self, name: str, works: dict[str, Work]) -> None:
        self.name = name
        self.works = works


# -- us ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ours(name: str, nodes: int, replicas: int) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        port = 0
        for n in range(nodes):
            own = ["--replicas", str(replicas), "--durability", "os"]
            words = ["127.0.0.1", str(port), "0"] if n else ["--port", "0", *own]
            command = [sys.executable, str(ROOT / "server.py"), *words, "--data", f"{directory}/{n}"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            port = port or int(process.stdout.readline().split()[1].rsplit(":", 1)[1])
        ring = stack.enter_context(Ring.connect(f"127.0.0.1:{port}", timeout=30))
        while any(problem for *_, problem in ring.verify()):
            time.sleep(0.1)
        yield Contender(name, works_of(ring))


def works_of(ring: Ring) -> dict[str, Work]:
    asynchronous: AsyncRing = ring._ring
    threads = ThreadPoolExecutor(THREADS)

    def batch_put(size: int) -> int:
        value = os.urandom(size)
        ring.put_many({f"batch {n}": value for n in range(BATCH)})
        return BATCH

    def batch_get(size: int) -> int:
        return len(ring.get_many([f"batch {n}" for n in range(BATCH)]))

    return {
        **_single(lambda key, value: ring.put(key, value), ring.get),
        **_threaded(threads, lambda: (lambda key, value: ring.put(key, value), ring.get)),
        **_awaited(background().run, asynchronous.put, asynchronous.get),
        f"put {BATCH:,} in a batch": batch_put,
        f"get {BATCH:,} in a batch": batch_get,
    }


Put = Callable[[str, bytes], object]
Get = Callable[[str], object]


def _single(put: Put, get: Get) -> dict[str, Work]:
    """One after the other."""

    def puts(size: int) -> int:
        value = os.urandom(size)
        for n in range(100):
            put(f"one {n}", value)
        return 100

    def gets(size: int) -> int:
        for n in range(100):
            get(f"one {n}")
        return 100

    return {"put": puts, "get": gets}


def _threaded(threads: ThreadPoolExecutor, connected: Callable[[], tuple[Put, Get]]) -> dict[str, Work]:
    """From several threads at a time, each with what `connected` gives it."""
    own = threading.local()

    def share(number: int, value: bytes | None) -> None:
        if not hasattr(own, "calls"):
            own.calls = connected()
        put, get = own.calls
        for n in range(25):
            key = f"one {(number * 25 + n) % 100}"
            get(key) if value is None else put(key, value)

    def puts(size: int) -> int:
        list(threads.map(share, range(THREADS), [os.urandom(size)] * THREADS))
        return THREADS * 25

    def gets(size: int) -> int:
        list(threads.map(share, range(THREADS), [None] * THREADS))
        return THREADS * 25

    return {f"put, {THREADS} threads": puts, f"get, {THREADS} threads": gets}


def _awaited(
    run: Callable[[Coroutine[Any, Any, int]], int],
    put: Callable[[str, bytes], Awaitable[object]],
    get: Callable[[str], Awaitable[object]],
    in_flight: Iterable[int] = IN_FLIGHT,
    *,
    most: float = math.inf,
) -> dict[str, Work]:
    """In an event loop, one after the other and with many under way; those that fail do not count. `most`: bytes of a
    value at most."""

    async def several(caller: int, size: int, is_put: bool) -> int:
        value = os.urandom(size)
        done = 0
        for n in range(20):
            answer = await (put(f"awaited {caller} {n}", value) if is_put else get(f"awaited {caller} {n}"))
            done += answer is not None and answer is not False
        return done

    async def side_by_side(callers: int, size: int, is_put: bool) -> int:
        return sum(await asyncio.gather(*(several(caller, size, is_put) for caller in range(callers))))

    def work(callers: int, is_put: bool) -> Work:
        return lambda size: run(side_by_side(callers, size, is_put)) if size <= most else 0

    works: dict[str, Work] = {}
    for callers in (1, *in_flight):
        label = f"{callers} in flight" if callers > 1 else "awaited"
        works |= {f"put, {label}": work(callers, True), f"get, {label}": work(callers, False)}
    return works


# -- rivals --------------------------------------------------------------------------------------------------------

STOCK = """
import sys, rpyc
from rpyc.utils.server import ThreadedServer
class Dict(rpyc.Service):
    kept = {}
    def exposed_put(self, key, value): self.kept[key] = value
    def exposed_get(self, key): return self.kept.get(key)
server = ThreadedServer(Dict, hostname="127.0.0.1", port=0)
print(server.port, flush=True)
server.start()
"""


@contextlib.contextmanager
def stock_rpyc() -> Iterator[Contender]:
    """A dict behind RPyC's own server and client."""
    process = subprocess.Popen([sys.executable, "-c", STOCK], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def connected() -> tuple[Put, Get]:
            deadline = time.monotonic() + 10
            while True:  # its port is known before it listens
                try:
                    root = rpyc.connect("127.0.0.1", port).root
                except ConnectionRefusedError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                else:
                    return root.put, root.get

        threads = ThreadPoolExecutor(THREADS)
        yield Contender("stock RPyC dict", {**_single(*connected()), **_threaded(threads, connected)})
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def redis_server() -> Iterator[Contender]:
    """redis-server in memory, through redis-py."""
    import redis
    import redis.asyncio

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(port=port)
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
            yield Contender("redis-py", _redis(client, redis.asyncio.Redis(port=port, max_connections=max(IN_FLIGHT))))
        finally:
            process.kill()
            process.wait()


def _redis(client: Any, asynchronous: Any) -> dict[str, Work]:
    loop = asyncio.new_event_loop()
    threads = ThreadPoolExecutor(THREADS)

    def batch(size: int, put: bool) -> int:
        value = os.urandom(size)
        pipeline = client.pipeline(transaction=False)
        for n in range(BATCH):
            pipeline.set(f"batch {n}", value) if put else pipeline.get(f"batch {n}")
        return len(pipeline.execute())

    return {
        **_single(client.set, client.get),
        **_threaded(threads, lambda: (client.set, client.get)),
        **_awaited(loop.run_until_complete, asynchronous.set, asynchronous.get),
        f"put {BATCH:,} in a batch": lambda size: batch(size, True),
        f"get {BATCH:,} in a batch": lambda size: batch(size, False),
    }


KADEMLIA = """
import asyncio, sys
from kademlia.network import Server
async def main():
    server = Server()
    await server.listen(0, "127.0.0.1")
    if len(sys.argv) > 1:
        await server.bootstrap([("127.0.0.1", int(sys.argv[1]))])
    print(server.transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.contextmanager
def kademlia_package() -> Iterator[Contender]:
    """The package `kademlia`, five nodes: four processes and the one that asks, which keeps nothing itself, as our
    client keeps nothing: what it holds it would read from its own memory. Values go in datagrams: small ones only, and
    few at a time: of 64 so many get lost that its nodes take each other for dead."""
    from kademlia.network import Server
    from kademlia.storage import ForgetfulStorage

    class Nothing(ForgetfulStorage):
        def __setitem__(self, key: object, value: object) -> None:
            pass

    loop = asyncio.new_event_loop()
    processes: list[subprocess.Popen[str]] = []
    try:
        port = 0
        for _ in range(4):
            words = [str(port)] if port else []
            process = subprocess.Popen([sys.executable, "-c", KADEMLIA, *words], stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None
            port = int(process.stdout.readline())
        server = Server(storage=Nothing())
        loop.run_until_complete(server.listen(0, "127.0.0.1"))
        loop.run_until_complete(server.bootstrap([("127.0.0.1", port)]))

        works = _awaited(loop.run_until_complete, server.set, server.get, IN_FLIGHT[:1], most=DATAGRAM)
        yield Contender("kademlia, 5 nodes", works)
        server.stop()
    finally:
        for process in processes:
            process.kill()
            process.wait()
        loop.close()


# -- the run -------------------------------------------------------------------------------------------------------


def rate(work: Work, size: int, seconds: float) -> float:
    """Operations a second."""
    done, began = 0, time.perf_counter()
    while (lasted := time.perf_counter() - began) < seconds:
        portion = work(size)
        if not portion:
            return 0.0
        done += portion
    return done / lasted


def contenders(stack: contextlib.ExitStack) -> list[Contender]:
    found = [
        stack.enter_context(ours("ours, 1 node", 1, 1)),
        stack.enter_context(ours("ours, 3 nodes, k = 3", 3, 3)),
        stack.enter_context(stock_rpyc()),
    ]
    if shutil.which("redis-server"):
        found.append(stack.enter_context(redis_server()))
    else:
        print("redis-server is not installed: left out")
    try:
        found.append(stack.enter_context(kademlia_package()))
    except ImportError:
        print("the package kademlia is not installed: left out")
    if not shutil.which("etcd"):
        print("etcd is not installed: left out")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=0.3, help="of each measurement in each round")
    options.add_argument("--plot", type=Path, default=Path("build/rivals.png"), help="where to draw it")
    wanted = options.parse_args()
    best: dict[tuple[str, str], dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        found = contenders(stack)
        for _ in range(wanted.rounds):
            for label, size in SIZES.items():
                for name in found[0].works:
                    for contender in found:
                        if name in contender.works:
                            measured = rate(contender.works[name], size, wanted.seconds)
                            row = best.setdefault((name, label), {})
                            row[contender.name] = max(row.get(contender.name, 0.0), measured)
    names = [contender.name for contender in found]
    print(
        f"{os.cpu_count()} cores; best of {wanted.rounds} rounds; operations a second, and ours (1 node) to each rival"
    )
    print(f"{'':34}" + "".join(f"{name:>22}" for name in names))
    for (name, label), row in best.items():
        cells = ""
        for contender in names:
            each = row.get(contender, 0.0)
            ratio = f" {row[names[0]] / each:6.2f}x" if each and contender != names[0] else " " * 8
            cells += f"{each:>13,.0f}{ratio} " if each else f"{'-':>22}"
        print(f"{name:24}{label:>10}{cells}")
    _plot(best, names, wanted.plot)


def _plot(best: dict[tuple[str, str], dict[str, float]], names: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(best)
    figure, axes = plt.subplots(figsize=(11, 0.5 * len(rows) + 2))
    height = 0.8 / len(names)
    for at, name in enumerate(names):
        places = [row + at * height for row in range(len(rows))]
        axes.barh(places, [best[row].get(name, 0.0) for row in rows], height=height, label=name)
    axes.set_yticks([row + 0.4 for row in range(len(rows))], [f"{name}, {label}" for name, label in rows])
    axes.set_xscale("log")
    axes.set_xlabel("operations a second")
    axes.invert_yaxis()
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
