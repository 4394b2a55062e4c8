"""RPyC's protocol on an asyncio loop: one connection, both directions, any number of calls at once.

Everything we rely on inside RPyC 6.0 is in this file and `exposure`; `tests/remote/test_internals.py` fails if it moves.
No synchronous request is ever made here, no netref built, nothing of the peer's run. Exposed methods may be `async`; the
answer goes out when it is ready. Outgoing calls are awaited with a deadline; when the connection ends all fail at once.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from rpyc.core import brine, consts, vinegar

from node.codec import Failure, error_of
from node.errors import BadValue, NotARing, OutcomeUnknown, RingError, Unreachable
from node.remote.exposure import Exposure, parts, plain
from node.remote.framing import Garbage, Splitter, TooLarge, frame
from node.settings import Settings

log = logging.getLogger(__name__)

REQUEST, REPLY, EXCEPTION = (brine.I1.pack(m) for m in (consts.MSG_REQUEST, consts.MSG_REPLY, consts.MSG_EXCEPTION))
NOTHING = (consts.LABEL_VALUE, ())
MAX_PING = 64 * 1024


class Connection(asyncio.Protocol):
    """One connection. It speaks RPyC's protocol with RPyC's own encoders and has none of the stock class's I/O."""

    def __init__(self, settings: Settings, exposure: Exposure | None, on_end: Callable[[Connection], None] | None = None) -> None:
        self._settings = settings
        self._exposure = exposure
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter(settings.max_frame, settings.max_skip)
        self._transport: asyncio.Transport | None = None
        self._seqs = itertools.count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._peer_root: Any = None
        self._closed = False
        self.ended = asyncio.Event()
        self.began = self.last_frame = self.last_data = self._loop.time()
        self.proven = False
        """Whether the peer has ever sent a whole frame."""

    # -- the socket ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        transport.set_write_buffer_limits(high=self._settings.write_high)
        _tune(transport.get_extra_info("socket"), self._settings)

    def data_received(self, data: bytes) -> None:
        self.last_data = self._loop.time()
        self._splitter.feed(data)
        self._take_in()

    def _take_in(self) -> None:
        """Handle what is whole, as far as the limit of requests in flight lets us."""
        try:
            for payload in self._splitter.payloads():
                self.last_frame = self._loop.time()
                if isinstance(payload, TooLarge):
                    self._refuse(payload)
                else:
                    self.proven = True
                    self._dispatch(payload)
                if self._closed or not self._may_read():
                    break
        except (Garbage, ValueError, TypeError, KeyError, IndexError, EOFError, RecursionError, AttributeError) as error:
            log.info("connection closed: %s", error)
            self.abort()

    def _may_read(self) -> bool:
        """Stop or go on reading, by the requests in flight and the bytes the peer has not taken."""
        may = len(self._working) < self._settings.max_in_flight and self._writable.is_set()
        if may != self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = may
            if may:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
        return may

    def pause_writing(self) -> None:
        self._writable.clear()
        self._may_read()

    def resume_writing(self) -> None:
        self._writable.set()
        if self._may_read():
            self._take_in()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._writable.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(OutcomeUnknown("the connection ended before the answer came"))
        self._pending.clear()
        for task in self._working:
            task.cancel()
        self.ended.set()
        if self._on_end is not None:
            self._on_end(self)

    def _write(self, payload: bytes) -> None:
        """Send a payload; all of one turn of the loop go out in one write."""
        if self._closed:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame(payload))

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing or self._closed or self._transport is None:
            return
        self._transport.write(b"".join(outgoing) if len(outgoing) > 1 else outgoing[0])
        if self._transport.get_write_buffer_size() > self._settings.write_limit:
            log.info("connection closed: its peer does not read")
            self.abort()

    # -- being called --------------------------------------------------------------------------------------------

    def _dispatch(self, payload: bytes) -> None:
        kind, (seq, content) = payload[:1], brine.load(payload[1:])
        if kind == REQUEST:
            self._request(seq, *content)
            return
        future = self._pending.pop(seq, None)
        if future is None or future.done():
            return
        if kind == REPLY:
            future.set_result(content)
        elif kind == EXCEPTION:
            future.set_exception(_translated(content))
        else:
            raise Garbage(f"message type {kind!r}")

    def _request(self, seq: int, handler: Any, package: Any) -> None:
        try:
            answer = self._answer(handler, package)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the peer, as the answer to its request
            self._fail(seq, error)
            return
        if inspect.iscoroutine(answer):
            task = self._loop.create_task(self._answer_later(seq, answer))
            self._working.add(task)
            task.add_done_callback(self._worked)
        else:
            self._reply(seq, answer)

    def _answer(self, handler: Any, package: Any) -> Any:
        """The boxed answer to a request, or a coroutine that returns a plain one."""
        exposed = self._exposure
        if handler == consts.HANDLE_PING:
            (data,) = map(plain, parts(package, 1, "ping"))
            if type(data) not in (str, bytes) or len(data) > MAX_PING:
                raise BadValue(f"a ping carries text of at most {MAX_PING} bytes")
            return (consts.LABEL_VALUE, data)
        if handler == consts.HANDLE_CLOSE:
            self._loop.call_soon(self.close)
            return (consts.LABEL_VALUE, None)
        if handler == consts.HANDLE_DEL:
            return (consts.LABEL_VALUE, None)
        if exposed is None:
            raise AttributeError("nothing is exposed here")
        if handler == consts.HANDLE_GETROOT:
            return (consts.LABEL_REMOTE_REF, exposed.root_pack)
        if handler == consts.HANDLE_INSPECT:
            (pack,) = map(plain, parts(package, 1, "inspect"))
            return (consts.LABEL_VALUE, exposed.described(pack))
        if handler == consts.HANDLE_CALLATTR:
            target, name, arguments, *keywords = parts(package, 4, "callattr")
            self._on_root(target)
            return self._called(exposed.method(plain(name)), arguments, keywords)
        if handler == consts.HANDLE_CALL:
            target, arguments, *keywords = parts(package, 3, "call")
            return self._called(exposed.referred(target), arguments, keywords)
        if handler == consts.HANDLE_GETATTR:
            target, name = parts(package, 2, "getattr")
            self._on_root(target)
            return (consts.LABEL_REMOTE_REF, exposed.pack_of(exposed.method(plain(name))))
        raise AttributeError("only exposed methods can be called here, nothing else of RPyC's is open")

    def _on_root(self, target: Any) -> None:
        if self._exposure is None or not self._exposure.is_root(target):
            raise AttributeError("only the root has methods here")

    @staticmethod
    def _called(method: Callable[..., Any], arguments: Any, keywords: list[Any]) -> Any:
        named = dict(plain(keywords[0])) if keywords else {}
        result = method(*plain(arguments), **named)
        return result if inspect.iscoroutine(result) else (consts.LABEL_VALUE, result)

    async def _answer_later(self, seq: int, work: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await work
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the peer, as the answer to its request
            self._fail(seq, error)
        else:
            self._reply(seq, (consts.LABEL_VALUE, result))

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not self._closed and not self._reading and self._may_read():
            self._take_in()

    def _reply(self, seq: int, boxed: Any) -> None:
        try:
            payload = REPLY + brine.dump((seq, boxed))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            self._fail(seq, BadValue(f"the answer cannot be sent to a plain RPyC client: {error}"))
        else:
            self._write(payload)

    def _fail(self, seq: int, error: Exception) -> None:
        if not isinstance(error, (RingError, AttributeError, TypeError)):
            log.error("an exposed method failed", exc_info=error)
        dumped = vinegar.dump(type(error), error, None, include_local_traceback=False, include_local_version=False)
        try:
            self._write(EXCEPTION + brine.dump((seq, dumped)))
        except (ValueError, KeyError, TypeError, RecursionError):
            self._fail(seq, RingError(f"a {type(error).__name__} that cannot be sent"))

    def _refuse(self, skipped: TooLarge) -> None:
        """Answer the request in a frame that was too large, if its number can be read."""
        if skipped.head[:1] != REQUEST:
            raise Garbage(f"a frame of {skipped.size} bytes")
        seq = _first_of(skipped.head[1:])
        limit = self._settings.max_frame
        self.proven = True
        self._fail(seq, BadValue(f"the request is larger than the limit of {limit} bytes: send less at a time"))

    # -- calling -------------------------------------------------------------------------------------------------

    async def handshake(self, deadline: float) -> None:
        """Learn how the peer refers to its root. Raises NotARing, OutcomeUnknown."""
        boxed = await self._ask(consts.HANDLE_GETROOT, NOTHING, deadline)
        if type(boxed) is not tuple or len(boxed) != 2 or boxed[0] != consts.LABEL_REMOTE_REF:
            raise NotARing("the peer speaks RPyC but shows no root object")
        self._peer_root = (consts.LABEL_LOCAL_REF, boxed[1])

    async def call(self, name: str, *arguments: Any, deadline: float) -> Any:
        """Call an exposed method of the peer's root with plain values, within `deadline` seconds.

        Raises Unreachable if nothing was sent, OutcomeUnknown if it was sent and no answer came, else the peer's error.
        """
        package = (
            consts.LABEL_TUPLE,
            (self._peer_root, (consts.LABEL_VALUE, name), (consts.LABEL_VALUE, arguments), NOTHING),
        )
        return plain(await self._ask(consts.HANDLE_CALLATTR, package, deadline))

    async def _ask(self, handler: int, package: Any, deadline: float) -> Any:
        if not self._writable.is_set():
            await self._wait_until_writable(deadline)
        if self._closed:
            raise Unreachable("the connection has ended")
        seq = next(self._seqs)
        try:
            payload = REQUEST + brine.dump((seq, (handler, package)))
        except (ValueError, KeyError, TypeError) as error:
            raise BadValue(f"an argument is no plain value: {error}") from None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[seq] = future
        timer = self._loop.call_later(deadline, _expire, future, deadline)
        self._write(payload)
        try:
            return await future
        finally:
            timer.cancel()
            self._pending.pop(seq, None)

    async def _wait_until_writable(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline):
                await self._writable.wait()
        except TimeoutError:
            raise Unreachable("the peer does not take what was sent to it before") from None

    # -- ending --------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether calls are under way in either direction."""
        return bool(self._pending or self._working)

    def close(self) -> None:
        """Send what is waiting, then end the connection. Never blocks."""
        if self._outgoing:
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def midway(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return self._splitter.midway


def _expire(future: asyncio.Future[Any], deadline: float) -> None:
    if not future.done():
        future.set_exception(OutcomeUnknown(f"no answer within {deadline:.3g} s"))


def _first_of(head: bytes) -> Any:
    """The first item of a brine two-tuple whose end is missing: the number of a request."""
    if head[:1] != brine.TAG_TUP2:
        raise Garbage("no request")
    return brine.load(brine.TAG_TUP1 + head[1:])[0]


def _translated(dumped: Any) -> RingError:
    """The peer's exception as one of ours: our own come as they are, everything else is told, never raised as itself."""
    try:
        (module, name), arguments, _attributes, _text = dumped
    except (TypeError, ValueError):
        return RingError(f"the peer failed: {str(dumped)[:200]}")
    if module == "node.errors":
        return error_of(Failure(str(name), tuple(arguments)))
    if name == "AttributeError":
        return NotARing(f"the peer has no such method: {arguments}")
    return RingError(f"the peer failed: {name}: {', '.join(map(str, arguments))[:500]}")


def _tune(sock: Any, settings: Settings) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.user_timeout * 1000))
