"""RPyC's protocol on an asyncio loop: one connection, both directions, any number of calls at once.

Everything we rely on inside RPyC 6.0 is in this file, `plain` and `translation`; `tests/remote/test_internals.py` fails
if it moves. No synchronous request is ever made here, no netref built, nothing of the peer's run; what the stock class
does so is closed off. Exposed methods may return an awaitable; the answer goes out when it is ready. Outgoing calls are
awaited with a deadline; when the connection ends all fail at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from rpyc.core import brine, consts, protocol

from node.errors import BadUsage, BadValue, NotARing, NotTrusted, RingError, Unreachable
from node.remote import relay
from node.remote.calls import Calls
from node.remote.exposure import ROOT, Exposed, Exposure
from node.remote.framing import Garbage, TooLarge
from node.remote.plain import WHAT_TO_SEND, first_of_pair, read
from node.remote.requests import EXCEPTION, MARGIN, Requests
from node.remote.translation import internal, translated
from node.remote.wire import Wire
from node.settings import Settings
from node.trust.party import Party

REQUEST, REPLY = (brine.I1.pack(kind) for kind in (consts.MSG_REQUEST, consts.MSG_REPLY))
Gate = Callable[[Any], tuple[Party, Exposure]]
"""Of a certificate that a peer has proved, as `ssl` tells it: who that is and what it may reach. Raises NotTrusted."""
PAIR, FOUR = brine.TAG_TUP2, brine.TAG_TUP4
TUPLE = brine.IMM_INTS[consts.LABEL_TUPLE]
RELAYS = (consts.LABEL_LOCAL_REF, ROOT)
"""How a node refers to its root."""
MAX_PING = 64 * 1024
CLOSED_OFF = {
    "allow_safe_attrs": False,
    "allow_exposed_attrs": False,
    "allow_getattr": False,
    "include_local_traceback": False,
    "bind_threads": False,
}
BY_REFERENCE = f"came as a reference to an object of the client: {WHAT_TO_SEND}; lists and dicts go through node.Ring"


class Connection(protocol.Connection):  # type: ignore[misc]
    """One connection: RPyC's messages, handlers and numbers, none of the stock class's I/O."""

    def __init__(
        self,
        settings: Settings,
        exposure: Exposure,
        on_end: Callable[[Connection], None] | None = None,
        gate: Gate | None = None,
        on_swell: Callable[[int], None] | None = None,
    ) -> None:
        self.wire = Wire(self, settings)
        super().__init__(exposure, self.wire, CLOSED_OFF)
        self._settings = settings
        self._exposure = exposure
        self._on_end = on_end
        self._gate = gate
        self._on_swell = on_swell
        self.unfinished = 0
        """Bytes of a frame that is not whole yet."""
        self.proved: Party | None = None
        """Who the peer is, where there is a gate."""
        self.distrust = ""
        """Why the peer was not let through the gate."""
        self._loop = asyncio.get_running_loop()
        self._calls = Calls(lambda: self.peer, self.wire.moved, settings)
        self._requests = Requests(self.wire, settings, self._end_if_done)
        self._heads: dict[str, bytes] = {}
        self._peer_root: Any = None
        self._leaving = False

    # -- what the wire asks of us --------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether as much is in work as may be."""
        return self._requests.full

    def begun(self, certificate: Any) -> None:
        """The peer is there and has proved this certificate to be its own. Raises NotTrusted."""
        if self._gate is None:
            return
        try:
            self.proved, self._exposure = self._gate(certificate)
        except NotTrusted as error:
            self.distrust = str(error)
            raise

    def is_request(self, payload: bytes) -> bool:
        """Whether a message asks for something."""
        return payload.startswith(REQUEST)

    def take(self, payload: bytes) -> None:
        if (answer := relay.replied(payload)) is not None:
            seq, content = answer
            self._calls.answered(seq, (consts.LABEL_VALUE, content))
        elif (request := relay.requested(payload)) is not None:
            root = self._exposure.root
            self._requests.do(request[0], len(payload), self._handle_callattr, root, relay.NAME, request[1:])
        else:
            self._dispatch(payload)

    def swelled(self, size: int) -> None:
        """So much is kept here for the peer: of a frame that is not whole yet, and of what it does not read."""
        if size != self.unfinished:
            change, self.unfinished = size - self.unfinished, size
            if self._on_swell is not None:
                self._on_swell(change)

    def refuse(self, skipped: TooLarge) -> None:
        """Say to the caller of a skipped request, or to our own of a skipped answer, that it was too large."""
        limit = f"larger than the limit of {self._settings.max_frame} bytes"
        seq = _number_of(skipped.head)
        if skipped.head[:1] == REQUEST:
            self._requests.fail(seq, BadValue(f"the request is {limit}: send less at a time"))
        else:
            self._calls.failed(seq, RingError(f"the answer of {self.peer} is {limit}: ask for less at a time"))

    def lost(self, reason: str) -> None:
        """The connection has ended: calls that wait for an answer fail. Requests in work run to their end."""
        self._calls.end(self.wire.sent, reason)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self.closed and not self._requests and self._on_end is not None:
            self._on_end(self)

    # -- being called --------------------------------------------------------------------------------------------

    def _dispatch(self, data: bytes) -> None:
        """One message: the number of a request, and the request or what came of it."""
        kind = data[:1]
        try:
            seq, content = read(data, 1)
            if type(seq) is not int or type(content) not in (tuple, str, int):
                raise BadValue("not a message")
        except (BadValue, TypeError, ValueError) as error:
            self._unreadable(data, error)
            return
        if kind == REQUEST:
            self._dispatch_request(seq, content, len(data))
        elif kind == REPLY:
            self._calls.answered(seq, content)
        elif kind == EXCEPTION:
            if seq in self._calls:
                self._calls.failed(seq, translated(content, self.peer))
        else:
            raise Garbage("neither a request nor an answer")

    def _unreadable(self, data: bytes, error: Exception) -> None:
        seq = _number_of(data)
        if self.is_request(data):
            self._requests.fail(seq, error if isinstance(error, BadValue) else BadValue("not a request"))
        else:
            self._calls.failed(seq, RingError(f"the answer of {self.peer} cannot be read: {error}"))

    def _dispatch_request(self, seq: int, raw_args: Any, size: int) -> None:
        try:
            handler, package = raw_args
            handle = self._HANDLERS.get(handler) if type(handler) is int else None
            if handle is None:
                raise BadUsage("only exposed methods can be called here: nothing else of RPyC's is open")
            arguments = self._unbox(package)
            _check_tuple(arguments)
        except (RingError, AttributeError, TypeError, ValueError) as error:
            self._requests.fail(seq, error)
        else:
            self._requests.do(seq, size, handle, self, *arguments)

    # -- RPyC's handlers: no others are open ---------------------------------------------------------------------

    @classmethod
    def _request_handlers(cls) -> dict[int, Callable[..., Any]]:
        return {
            consts.HANDLE_PING: cls._handle_ping,
            consts.HANDLE_CLOSE: cls._handle_close,
            consts.HANDLE_GETROOT: cls._handle_getroot,
            consts.HANDLE_GETATTR: cls._handle_getattr,
            consts.HANDLE_CALL: cls._handle_call,
            consts.HANDLE_CALLATTR: cls._handle_callattr,
            consts.HANDLE_DEL: cls._handle_del,
            consts.HANDLE_INSPECT: cls._handle_inspect,
        }

    def _handle_ping(self, data: Any) -> Any:
        if type(data) not in (str, bytes) or len(data) > MAX_PING:
            raise BadValue(f"a ping carries text of at most {MAX_PING} bytes")
        return data

    def _handle_close(self) -> None:
        self._loop.call_soon(self.close)

    def _handle_getroot(self) -> Exposed:
        return self._exposure.root

    def _handle_getattr(self, obj: Any, name: Any) -> Exposed:
        return self._exposure.method(obj, name)

    def _handle_callattr(self, obj: Any, name: Any, args: Any, kwargs: Any = ()) -> Any:
        return self._handle_call(self._exposure.method(obj, name), args, kwargs)

    def _handle_call(self, obj: Any, args: Any, kwargs: Any = ()) -> Any:
        """Run an exposed method; an awaitable if it returned one. What it raises unexpectedly is not told."""
        method = obj.method if type(obj) is Exposed else None
        if method is None:
            raise AttributeError("only exposed methods can be called")
        _check_tuple(args)
        _check_tuple(kwargs)
        named = dict(kwargs)
        if self._leaving:
            raise Unreachable("the node is shutting down and takes no more requests: ask another")
        try:
            return method(*args, **named)
        except RingError:
            raise
        except Exception as error:
            took_other_arguments = isinstance(error, TypeError) and error.__traceback__.tb_next is None  # type: ignore[union-attr]
            if took_other_arguments:
                raise
            raise internal(error) from None

    def _handle_del(self, obj: Any, count: Any = 1) -> None:
        """Nothing is counted, see `exposure`."""

    def _handle_inspect(self, id_pack: Any) -> Any:
        return self._exposure.described(id_pack)

    def _unbox(self, package: Any, inside: bool = False) -> Any:
        """The boxed arguments of a handler. The first may refer to one of ours, which is looked up; anywhere else a
        reference is refused, and one to the peer's is never followed."""
        label, value = package
        if label == consts.LABEL_VALUE:
            return value
        if label == consts.LABEL_TUPLE:
            _check_tuple(value)
            if inside:
                return tuple([self._unbox(item, inside) for item in value])
            target, *others = value
            target_label, pack = target
            of_ours = target_label == consts.LABEL_LOCAL_REF
            first = self._exposure.referred(pack) if of_ours else self._unbox(target, True)
            return (first, *[self._unbox(item, True) for item in others])
        raise BadValue(f"an argument {BY_REFERENCE}")

    # -- calling -------------------------------------------------------------------------------------------------

    async def handshake(self, deadline: float) -> None:
        """Learn how the peer refers to its root. Raises NotARing, OutcomeUnknown, Unreachable."""
        package = brine.dump((consts.HANDLE_GETROOT, (consts.LABEL_VALUE, ())))
        label, pack = _pair(await self._ask(deadline, package))
        if label != consts.LABEL_REMOTE_REF:
            raise NotARing(f"{self.peer} speaks RPyC but shows no root object")
        self._peer_root = (consts.LABEL_LOCAL_REF, pack)

    async def call(self, name: str, *arguments: Any, deadline: float) -> Any:
        """Call an exposed method of the peer's root with plain values, within `deadline` seconds.

        Raises Unreachable if nothing was sent, OutcomeUnknown if it was sent and no answer came, NotARing if the peer
        has no such method, BadValue for an argument that does not travel, else the peer's error.
        """
        head = self._heads.get(name) or self._head(name)
        try:
            package = (head, brine.dump(arguments), relay.NO_KEYWORDS)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadValue(f"an argument of {name} does not travel ({error}): {WHAT_TO_SEND}") from None
        label, value = _pair(await self._ask(deadline, *package))
        if label == consts.LABEL_VALUE:
            return bytes(value) if type(value) is memoryview else value
        raise RingError(f"{name} of {self.peer} answered with a reference to an object: only plain values are taken")

    async def relay(self, method: str, payload: bytes, deadline: float) -> Any:
        """What `call("call", method, payload)` does."""
        if self._peer_root != RELAYS:
            return await self.call(relay.NAME, method, payload, deadline=deadline)
        label, value = _pair(await self._ask(deadline, *relay.package(method, payload)))
        return value if label == consts.LABEL_VALUE else None

    def _head(self, name: str) -> bytes:
        """A call of that method, up to the boxed arguments."""
        if self._peer_root is None:
            raise BadUsage("shake hands before calling")
        root, boxed_name = brine.dump(self._peer_root), brine.dump((consts.LABEL_VALUE, name))
        handler = brine.IMM_INTS[consts.HANDLE_CALLATTR]
        head = b"".join((PAIR, handler, PAIR, TUPLE, FOUR, root, boxed_name, relay.VALUE))
        if len(self._heads) < 256:
            self._heads[name] = head
        return head

    async def _ask(self, deadline: float, *package: bytes) -> Any:
        """Send a request, what follows its number in parts; its boxed answer."""
        wire = self.wire
        if sum(map(len, package)) + MARGIN > self._settings.max_frame:
            raise BadValue(
                f"the request is larger than the limit of {self._settings.max_frame} bytes: send less at a time"
            )
        if not wire.writable:
            deadline = await wire.until_writable(deadline)
        if wire.closed or deadline <= 0:
            raise Unreachable(
                f"nothing was sent to {self.peer}: " + ("no time is left" if deadline <= 0 else "it is gone")
            )
        seq = self._get_seq_id()
        ticket = wire.send(relay.REQUEST, relay.dumped_number(seq), *package)
        return await self._calls.answer(seq, ticket, deadline)

    # -- ending --------------------------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Who is at the other end, for messages."""
        return self.wire.peer

    @property
    def closed(self) -> bool:
        """Whether the connection has ended or is about to."""
        return bool(self.wire.closed)

    @property
    def refused(self) -> str:
        """Why the peer is none that we talk to; empty if it is not that which ended the connection."""
        return self.distrust or self.wire.garbage

    @property
    def busy(self) -> bool:
        """Whether calls are under way in either direction."""
        return bool(self._calls or self._requests)

    def leave(self) -> None:
        """Refuse new requests from now on; those in work are answered."""
        self._leaving = True

    def close(self) -> None:
        """Send what is waiting, then end the connection. Never blocks, unlike the stock one."""
        self.wire.close()

    def end_if(self, whom: Callable[[Party], str]) -> None:
        """End it at once if there is a reason to distrust the peer."""
        if self.proved is not None and not self.closed and (reason := whom(self.proved)):
            self.wire.fail(f"{self.proved} {reason}")

    def abort(self) -> None:
        """End the connection at once."""
        self.wire.fail("")

    def cancel(self) -> list[asyncio.Task[None]]:
        """Break off the requests in work; their tasks, for waiting until they have ended."""
        return self._requests.cancel()

    def __del__(self) -> None:
        """The stock one would make a synchronous request."""

    def _cleanup(self, _anyway: bool = True) -> None:
        self.close()

    def _closed_off(self, *_: Any, **__: Any) -> NoReturn:
        raise BadUsage(
            "nothing of RPyC's that waits or builds references works on the loop: await connection.call(...)"
        )

    sync_request = async_request = serve = serve_all = serve_threaded = poll = poll_all = _closed_off
    _async_request = _netref_factory = _box = _send = ping = fileno = _closed_off
    root = property(_closed_off)


def _number_of(data: bytes) -> Any:
    """The number of the message that begins so. Raises Garbage if it cannot be told."""
    try:
        if data[:1] in (REQUEST, REPLY, EXCEPTION) and type(seq := first_of_pair(data, 1)) is int:
            return seq
    except BadValue:
        pass
    raise Garbage("no message")


def _check_tuple(value: Any) -> None:
    """Raises BadValue for what else could be unpacked: megabytes of text or bytes would become as many values."""
    if type(value) is not tuple:
        raise BadValue("arguments come as a tuple")


def _pair(package: Any) -> tuple[Any, Any]:
    if type(package) is tuple and len(package) == 2:
        return package
    raise NotARing("what answered is no node of a ring")
