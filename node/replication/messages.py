"""What nodes say to each other when they meet."""

from __future__ import annotations

from node.codec import Contact, Message
from node.identifiers import Identifier
from node.register.messages import Record
from node.transport import Method


class Hello(Message, frozen=True):
    """What a node says of itself to whoever asks."""

    node: bytes
    """The id of this life of its data directory."""
    ring: bytes
    serving: bool
    members: tuple[Contact, ...]
    alone: bool
    record: Record
    """The ring map as it knows it, and who keeps it."""


class Adoption(Message, frozen=True):
    """Leave your ring of one and join mine, with this id."""

    ring: bytes
    seed: Contact
    id: Identifier
    record: Record


HELLO: Method[None, Hello] = Method("ring.hello", type(None), Hello)
ADOPT: Method[Adoption, None] = Method("ring.adopt", Adoption, type(None))
