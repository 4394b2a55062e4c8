"""One tree of errors, in two branches: did the operation happen or not (after jepsen-io/maelstrom's table).

`Definite`: it did not happen, a retry is safe. `OutcomeUnknown`: it may have happened. Every message names what was
wrong and says what to do. The same classes are raised at both ends of a call; see `node.codec` for how they travel.
"""

from __future__ import annotations

from typing import Any

SHOWN = 80
"""Characters or bytes of something wrong that an error quotes."""


def shown(thing: Any) -> str:
    """As an error quotes what it was given: not all of it if it is large."""
    kind = type(thing)
    if kind in (str, bytes):
        return repr(thing) if len(thing) <= SHOWN else f"{thing[:SHOWN]!r}..."
    if kind is int and thing.bit_length() > 8 * SHOWN:
        return f"an integer of {thing.bit_length()} bits"
    return repr(thing) if kind in (int, float, bool, type(None)) else f"a {kind.__name__}"


class RingError(Exception):
    """Anything that went wrong in a ring, in one sentence that says what to do about it. More may stand behind it in
    `args`."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Definite(RingError):
    """The operation did not happen and will not: it is safe to try again."""


class OutcomeUnknown(RingError):
    """The request was sent and no answer came: it may or may not have been applied."""


# -- reaching others ---------------------------------------------------------------------------------------------


class Unreachable(Definite):
    """Nothing was sent: nobody listens there, or the connection could not be made within the deadline."""


class Overloaded(Definite):
    """A limit of the node (calls in flight, connections, queue) is reached: slow down and try again."""


class NotARing(Definite):
    """Something answers at that address, but it is not a node of ours."""


class NotTrusted(Unreachable):
    """One of the two ends could not prove that it belongs to the ring, or is revoked: nothing was sent."""


# -- membership --------------------------------------------------------------------------------------------------


class NotAMember(Definite):
    """The node called has no such member, or has not joined a ring yet."""


class WrongRing(Definite):
    """The node or data directory belongs to another ring."""


class IdTaken(Definite):
    """A live member elsewhere has this id already."""


class NotGranted(Definite):
    """An owner cannot give away the half arc a joiner asked for; `args[1]` is the widest it has, in points."""


# -- data --------------------------------------------------------------------------------------------------------


class BadValue(Definite, ValueError):
    """A key, value or argument of a kind or size that is not stored; the message says what to send instead."""


class Moved(Definite):
    """Another node answers for this key now; `args[1]` is (host, port) of the node to ask, or None if not known."""


class NotServing(Definite):
    """This node may not answer for its arc at the moment, and will again soon: try again."""


class Unavailable(Definite):
    """The node that holds what was asked for cannot answer now; the message says which to start or wait for."""


class VersionConflict(Definite):
    """The key has another version than the caller expects; `args[1]` is the one it has, None if it is absent."""


class StoreFull(Definite):
    """The disk is full: the write was refused; reads go on. Free space and write again."""


class NoSuchFile(Definite, FileNotFoundError):
    """The ring holds no file of this name."""


class Damaged(Definite):
    """A block of a file is missing, or not what was stored; `args[1]` is its number from 0, `args[2]` its SHA-256."""


class NoQuorum(Definite):
    """Too few of the nodes that keep the ring map answer; the message says which are needed and which were reached."""


class Conflict(Definite):
    """The register was changed by another node first: read it again."""


# -- starting ----------------------------------------------------------------------------------------------------


class BadUsage(Definite):
    """A mistake in what was typed or configured."""


class DirectoryInUse(BadUsage):
    """Another process works in this data directory."""


class DirectoryDamaged(BadUsage):
    """The data directory cannot be read as one of ours."""
