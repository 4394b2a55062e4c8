"""Both ends of connections for tests: a root with methods of every kind, raw sockets, the frames they send."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import rpyc
import uvloop
from rpyc.core import brine, consts
from rpyc.utils.server import ThreadedServer

from node.errors import BadValue, RingError
from node.settings import Settings

T = TypeVar("T")
HOST = "127.0.0.1"
PATIENCE = 15.0
"""Seconds a test waits for what should take a moment."""
SETTINGS = Settings()
LOOP = ["asyncio"]
"""The kind of loop tests run on, see `conftest.loops`."""
ROOT_PACK = ("rpychord.Node", 1, 1)


class Root:
    """Exposed methods of every kind."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.finished = 0
        self.most = 0

    def exposed_add(self, a: Any, b: Any = 2) -> Any:
        """The sum."""
        return a + b

    async def exposed_echo(self, value: Any) -> Any:
        return value

    def exposed_future(self, value: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, value)
        return future

    async def exposed_wait(self, value: Any = None) -> Any:
        """The value, once the gate is open."""
        self.begun += 1
        self.most = max(self.most, self.begun - self.finished)
        await self.gate.wait()
        self.finished += 1
        return value

    async def exposed_open(self) -> None:
        self.gate.set()

    def exposed_refuse(self) -> None:
        raise BadValue("send something else", 7)

    def exposed_quote(self, value: Any) -> None:
        raise BadValue(f"not {value!r}")

    async def exposed_fail(self) -> None:
        raise ZeroDivisionError("secret detail")

    async def exposed_timeout(self) -> None:
        raise TimeoutError("of the callee")

    async def exposed_cancelled(self) -> None:
        raise asyncio.CancelledError

    def exposed_give(self, what: str) -> Any:
        return {
            "surrogate": "\ud800",
            "huge": 10**5000,
            "list": [1],
            "object": object(),
            "inside": (1, (2, [3])),
            "large": bytes(2 * 1024 * 1024),
        }[what]

    def exposed_types(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        return tuple(type(value).__name__ for value in (*args, *kwargs.values()))

    def hidden(self) -> str:
        return "secret"


class StockService(rpyc.Service):
    """A service of the stock library, with methods of its own."""

    def exposed_add(self, a: int, b: int) -> int:
        return a + b

    def exposed_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def exposed_list(self) -> list[int]:
        return [1, 2]

    def exposed_raise(self, name: str) -> None:
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "timeout": TimeoutError, "value": ValueError}[name](
            "x"
        )

    def exposed_raise_ours(self) -> None:
        raise BadValue("no", 3)

    def exposed_complex(self) -> complex:
        return 1j


@contextmanager
def stock_server(service: type[rpyc.Service] = StockService) -> Iterator[int]:
    """A stock ThreadedServer in a thread; its port."""
    server = ThreadedServer(service, hostname=HOST, port=0, protocol_config={"allow_public_attrs": False})
    thread = threading.Thread(target=server.start, daemon=True)
    thread.start()
    until(lambda: server.active)
    try:
        yield server.port
        until(lambda: not server.clients)
    finally:
        server.close()
        thread.join(PATIENCE)


def until(condition: Callable[[], Any]) -> None:
    """Wait, without a loop, until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(0.005)


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a test on a loop; nothing in it may take for ever."""

    async def bounded() -> T:
        async with asyncio.timeout(2 * PATIENCE):
            return await test

    return uvloop.run(bounded()) if LOOP[0] == "uvloop" else asyncio.run(bounded())


async def eventually(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until a condition holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {PATIENCE} s: {what or condition}"
        await asyncio.sleep(0.005)


async def failure_of(work: Coroutine[Any, Any, Any]) -> RingError:
    """The error of our tree that awaiting it raises."""
    try:
        result = await work
    except RingError as error:
        return error
    raise AssertionError(f"nothing was raised: {result!r}")


def settings(**changes: Any) -> Settings:
    return replace(SETTINGS, **changes)


def framed(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack("!LB", len(payload), compressed) + payload + b"\n"


def request(seq: int, handler: int, package: Any) -> bytes:
    """A request as a frame; the package is boxed already."""
    return framed(b"\x01" + brine.dump((seq, (handler, package))))


def call(seq: int, name: str, *args: Any) -> bytes:
    """A call of one of the root's methods, as a frame."""
    boxed = ((3, ROOT_PACK), (1, name), (1, args), (1, ()))
    return request(seq, consts.HANDLE_CALLATTR, (2, boxed))


class Raw:
    """A peer that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, host: str = HOST) -> Raw:
        return cls(*await asyncio.open_connection(host, port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def message(self) -> tuple[int, int, Any]:
        """(kind, number, content) of the next message that comes."""
        length, compressed = struct.unpack("!LB", await self.reader.readexactly(5))
        assert not compressed
        payload = (await self.reader.readexactly(length + 1))[:-1]
        seq, content = brine.load(payload[1:])
        return payload[0], seq, content

    async def refusal(self) -> tuple[int, str, tuple[Any, ...]]:
        """(number, class, arguments) of the next message, which is an exception."""
        kind, seq, content = await self.message()
        assert kind == consts.MSG_EXCEPTION, content
        return seq, content[0][1], content[1]

    async def ended(self) -> bool:
        """Wait for the other side to end the connection."""
        try:
            while await self.reader.read(1 << 20):
                pass
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        self.writer.transport.abort()


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
