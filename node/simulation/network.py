"""A simulated network between processes: calls with delay, loss, duplication, cuts and crashes, drawn from one seed.

What a caller sees is what node.transport promises: nothing sent is Unreachable, sent and unanswered is OutcomeUnknown,
and a RingError of the callee arrives as it would over a wire. A callee that raises anything else has a bug, which
fails the run. The network moves bytes only; it knows nothing of disks and of what the bytes mean.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from math import log
from random import Random
from zlib import crc32

from node.codec import Address, Failure, error_of, failure_of, pack, unpack
from node.errors import OutcomeUnknown, RingError, Unreachable
from node.simulation.clock import Clock
from node.simulation.cuts import Cuts
from node.simulation.faults import CALM, Faults
from node.simulation.loop import virtual_loop
from node.simulation.process import Process, current_process
from node.transport import Receiver, Transport

Answer = bytes | RingError


class ReceiverFailed(Exception):
    """A receiver raised something that is no RingError, or returned something that is not bytes: a bug in it."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One call on its way there and back."""

    caller: Address
    to: Address
    method: str
    payload: bytes
    answer: asyncio.Future[Answer]
    listener: Listener | None = None
    """Whom it was sent to; who listens there by the time it arrives may be another. None: nothing was sent."""


@dataclass(eq=False, slots=True)
class Listener:
    """What answers at an address, from listen to silence or crash."""

    receiver: Receiver
    process: Process | None
    serving: dict[Exchange, None] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Connection:
    """An open connection, as the caller sees it."""

    process: Process | None
    listener: Listener
    stuck_since: float | None = None


@dataclass(frozen=True, slots=True)
class SimulatedTransport:
    """The network as one address sees it: a node.transport.Transport."""

    network: Network
    address: Address

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> bytes:
        return await self.network.call(self.address, to, method, payload, deadline)


class Network:
    """Carries the calls of one simulation. Make it inside of the running loop; `faults` may be replaced at any time."""

    def __init__(self, random: Random, faults: Faults = CALM, *, trace: bool = False) -> None:
        self.faults = faults
        self.fingerprint = 0
        """A hash of every message that arrived and when: equal runs have equal ones."""
        self.trace: list[str] | None = [] if trace else None
        """Every message that arrived, in words."""
        self.served: Counter[str] = Counter()
        """How many requests of each method arrived."""
        self._loop = virtual_loop()
        self._random = random
        self._outside = Context()
        self._listeners: dict[Address, Listener] = {}
        self._connections: dict[tuple[Address, Address], Connection] = {}
        self._clocks: dict[Address, Clock] = {}
        self._cuts = Cuts()
        self._stranded: list[tuple[Address, Address, Callable[[Exchange], None], Exchange]] = []

    # -- what nodes use ------------------------------------------------------------------------------------------

    def transport(self, address: Address) -> Transport:
        """How the node at `address` calls others."""
        return SimulatedTransport(self, address)

    def listen(self, address: Address, receiver: Receiver) -> None:
        """Answer calls to `address`, in the process that calls this."""
        if address in self._listeners:
            raise OSError(f"{address} is in use")
        self._listeners[address] = Listener(receiver, current_process())

    def silence(self, address: Address) -> None:
        """Listen no longer: new calls are refused, those being served are answered."""
        self._listeners.pop(address, None)
        self._disconnect(address)

    def clock(self, address: Address) -> Clock:
        """The wall clock of the host at `address`; it outlives the process."""
        if address not in self._clocks:
            drift, offset = (self._random.uniform(-most, most) for most in (self.faults.drift, self.faults.offset))
            self._clocks[address] = Clock(self._loop, drift=drift, offset=offset)
        return self._clocks[address]

    # -- what tests do to them -----------------------------------------------------------------------------------

    def crash(self, address: Address) -> None:
        """The process at `address` is gone: its connections are reset, so those who wait for it learn of it soon."""
        listener = self._listeners.pop(address, None)
        self._disconnect(address)
        for exchange in listener.serving if listener else ():
            self._carry(address, exchange.caller, self._reset, exchange)

    def unplug(self, address: Address) -> None:
        """The host is gone: nobody there says even no, callers run into their deadlines."""
        self._cuts.isolate(address)

    def plug(self, address: Address) -> None:
        """The host is back."""
        self._cuts.rejoin(address)
        self._release()

    def partition(self, *groups: Iterable[Address]) -> None:
        """Only members of one group reach each other; those named in no group are one more. Replaces the partition
        before it."""
        self._cuts.partition(groups)
        self._release()

    def cut(self, sender: Address, receiver: Address) -> None:
        """Nothing gets from `sender` to `receiver`; the way back stays as it is."""
        self._cuts.cut(sender, receiver)

    def mend(self, sender: Address, receiver: Address) -> None:
        """Undo `cut`."""
        self._cuts.mend(sender, receiver)
        self._release()

    def heal(self) -> None:
        """Undo every partition and cut; hosts that are unplugged stay so."""
        self._cuts.heal()
        self._release()

    # -- a call --------------------------------------------------------------------------------------------------

    async def call(self, caller: Address, to: Address, method: str, payload: bytes, deadline: float) -> bytes:
        """See node.transport.Transport.call."""
        assert type(payload) is bytes, f"{method}: the payload is a {type(payload).__name__}, not bytes"
        process = current_process()
        if process is not None and not process.alive:
            raise Unreachable(f"the process at {caller} is dead and calls nobody")
        exchange = Exchange(caller, to, method, payload, self._loop.create_future())
        expiry = self._loop.call_later(deadline, self._expire, exchange, deadline)
        self._send(exchange, process)
        try:
            answer = await exchange.answer
        finally:
            expiry.cancel()
        if isinstance(answer, RingError):
            raise answer
        return answer

    def _send(self, exchange: Exchange, process: Process | None) -> None:
        caller, to, faults = exchange.caller, exchange.to, self.faults
        exchange.listener = self._connect(exchange, process)
        if exchange.listener is None:
            return
        if caller != to and self._strikes(faults.lose_request):
            if self._strikes(faults.reset):
                self._carry(to, caller, self._reset, exchange)
            return
        self._carry(caller, to, self._arrive, exchange)
        if caller != to and self._strikes(faults.duplicate):
            self._carry(caller, to, self._arrive, exchange)

    def _connect(self, exchange: Exchange, process: Process | None) -> Listener | None:
        """The other end of the connection to send on, made now if need be; None if none can be made."""
        caller, to = exchange.caller, exchange.to
        connection = self._connections.get((caller, to))
        if connection is not None and connection.process is process:
            stuck = connection.stuck_since
            if stuck is None or self._loop.time() - stuck < self.faults.user_timeout:
                return connection.listener
            del self._connections[caller, to]
        if self._cuts.severs(caller, to) or self._cuts.severs(to, caller):
            return None
        listener = self._listeners.get(to)
        if listener is None or (caller != to and self._strikes(self.faults.refuse)):
            self._loop.call_later(2 * self._delay(), self._refuse, exchange, context=self._outside)
            return None
        self._connections[caller, to] = Connection(process, listener)
        return listener

    def _arrive(self, exchange: Exchange) -> None:
        listener = self._listeners.get(exchange.to)
        if listener is None or listener is not exchange.listener:
            self._carry(exchange.to, exchange.caller, self._reset, exchange)
            return
        self.served[exchange.method] += 1
        self._note(">", exchange, exchange.payload)
        listener.serving[exchange] = None
        context = self._outside.copy() if listener.process is None else listener.process.context()
        self._loop.create_task(self._serve(listener, exchange), context=context)

    async def _serve(self, listener: Listener, exchange: Exchange) -> None:
        try:
            answer: Answer = await listener.receiver(exchange.method, exchange.payload)
            if type(answer) is not bytes:
                raise TypeError(f"the answer is a {type(answer).__name__}, not bytes")
        except RingError as error:
            answer = self._travelled(error)
        except Exception as error:  # noqa: BLE001 - a bug in the receiver, which fails the run
            failure = ReceiverFailed(f"{exchange.method} at {exchange.to}: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._loop.fail(failure)
            return
        listener.serving.pop(exchange, None)
        if listener.process is not None and not listener.process.alive:
            return
        if exchange.caller != exchange.to and self._strikes(self.faults.lose_reply):
            if self._strikes(self.faults.reset):
                self._carry(exchange.to, exchange.caller, self._reset, exchange)
            return
        self._carry(exchange.to, exchange.caller, lambda exchange: self._reply(exchange, answer), exchange)

    def _travelled(self, error: RingError) -> RingError:
        """The error as the caller gets it. One that does not travel whole fails the run."""
        try:
            arrived = error_of(unpack(Failure, pack(failure_of(error))))
        except Exception as slip:  # noqa: BLE001 - a type that does not travel, which fails the run
            arrived = RingError(f"{type(slip).__name__}: {slip}")
        if type(arrived) is not type(error):
            failure = ReceiverFailed(f"{type(error).__name__}{error.args} does not travel: it arrives as {arrived!r}")
            failure.__cause__ = error
            self._loop.fail(failure)
        return arrived

    # -- how a call ends -----------------------------------------------------------------------------------------

    def _reply(self, exchange: Exchange, answer: Answer) -> None:
        self._note("<", exchange, answer if isinstance(answer, bytes) else type(answer).__name__.encode())
        self._end(exchange, answer)

    def _reset(self, exchange: Exchange) -> None:
        self._connections.pop((exchange.caller, exchange.to), None)
        self._end(exchange, OutcomeUnknown(f"{exchange.to}: the connection ended before it answered {exchange.method}"))

    def _refuse(self, exchange: Exchange) -> None:
        self._end(exchange, Unreachable(f"{exchange.to}: nobody listens there, or it takes no connections"))

    def _expire(self, exchange: Exchange, deadline: float) -> None:
        if exchange.listener is not None:
            error: RingError = OutcomeUnknown(f"{exchange.to}: {exchange.method} not answered within {deadline:g} s")
        else:
            error = Unreachable(f"{exchange.to}: no connection within {deadline:g} s")
        self._end(exchange, error)

    def _end(self, exchange: Exchange, answer: Answer) -> None:
        if not exchange.answer.done():
            exchange.answer.set_result(answer)

    # -- one message ---------------------------------------------------------------------------------------------

    def _carry(self, sender: Address, receiver: Address, land: Callable[[Exchange], None], exchange: Exchange) -> None:
        """Bring a message of the exchange over; `land` is called when it is there."""
        delay = self._delay() if sender != receiver else self.faults.least_delay
        self._loop.call_later(delay, self._land, sender, receiver, land, exchange, context=self._outside)

    def _land(self, sender: Address, receiver: Address, land: Callable[[Exchange], None], exchange: Exchange) -> None:
        connection = self._connections.get((exchange.caller, exchange.to))
        if self._cuts.severs(sender, receiver):
            if connection is not None and connection.stuck_since is None:
                connection.stuck_since = self._loop.time()
            if self._strikes(self.faults.late):
                self._stranded.append((sender, receiver, land, exchange))
            return
        if connection is not None:
            connection.stuck_since = None
        land(exchange)

    def _release(self) -> None:
        """Messages caught by a cut that is gone are sent again."""
        caught, self._stranded = self._stranded, []
        for message in caught:
            if self._cuts.severs(message[0], message[1]):
                self._stranded.append(message)
            else:
                self._carry(*message)

    def _disconnect(self, address: Address) -> None:
        """End the connections of a process that is gone; callers cut off from it do not learn of it."""
        for caller, to in list(self._connections):
            if caller == address or (to == address and not self._cuts.severs(to, caller)):
                del self._connections[caller, to]

    def _delay(self) -> float:
        faults, random = self.faults, self._random
        delay = faults.least_delay
        if faults.delay:
            delay -= faults.delay * log(1.0 - random.random())
        if faults.slow and random.random() < faults.slow:
            delay += random.uniform(0.0, faults.slow_by)
        return delay

    def _strikes(self, rate: float) -> bool:
        return rate > 0.0 and self._random.random() < rate

    def _note(self, way: str, exchange: Exchange, content: bytes) -> None:
        now = self._loop.time()
        self.fingerprint = hash((self.fingerprint, now, crc32(content)))
        if self.trace is not None:
            ends = f"{exchange.caller} {way} {exchange.to}"
            self.trace.append(f"{now:.6f} {ends} {exchange.method} {crc32(content):08x}")
