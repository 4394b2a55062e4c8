"""The seam between the protocols and whatever carries their calls: RPyC on real hosts, virtual time in simulation.

Protocol code sees a `Transport` and is seen as a `Receiver`; it knows nothing else of the network. What two nodes can
say to each other is a set of `Method`s; a `Switchboard` is a Receiver made of their handlers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from node.codec import Address, Packed, pack, unpack
from node.errors import BadValue, shown

Receiver = Callable[[str, bytes], Awaitable[bytes]]
"""What answers calls: (method, packed arguments) to packed result. It may raise any RingError."""

Q = TypeVar("Q")
A = TypeVar("A")


class Transport(Protocol):
    """Carries calls to other nodes."""

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> Packed:
        """Call `method` of the node at `to` and return its packed result, within `deadline` seconds from now.

        Raises Unreachable if nothing was sent, OutcomeUnknown if it was sent and no answer came in time or the
        connection ended first, and otherwise the very RingError that the callee raised.
        """
        ...


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One thing a node can be asked: its name on the wire, the type of the question and of the answer."""

    name: str
    question: type[Q]
    answer: type[A]

    async def ask(self, transport: Transport, to: Address, question: Q, *, deadline: float) -> A:
        """Ask the node at `to`; see `Transport.call` for deadline and errors."""
        return unpack(self.answer, await transport.call(to, self.name, pack(question), deadline=deadline))


class Switchboard:
    """A Receiver: hands each call to the handler of its method."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]] = {}
        self._quick: dict[str, tuple[Any, Callable[[Any], Any]]] = {}

    def connect(
        self,
        method: Method[Q, A],
        handler: Callable[[Q], Awaitable[A]],
        at_once: Callable[[Q], A | None] | None = None,
    ) -> None:
        """From now on `handler` answers `method`. `at_once` gives the same answer, or raises the same, where nothing
        has to be waited for, and None where something has."""
        self._handlers[method.name] = (method.question, handler)
        if at_once is not None:
            self._quick[method.name] = (method.question, at_once)

    def at_once(self, method: str, payload: bytes) -> bytes | None:
        """The packed result if it is there without waiting, else None. Raises as a Receiver does."""
        if method not in self._quick:
            return None
        question, handler = self._quick[method]
        answer = handler(unpack(question, payload))
        return pack(answer) if answer is not None else None

    async def __call__(self, method: str, payload: bytes) -> bytes:
        try:
            question, handler = self._handlers[method]
        except KeyError:
            raise BadValue(f"no method {shown(method)}: the nodes of this ring run different versions?") from None
        return pack(await handler(unpack(question, payload)))
