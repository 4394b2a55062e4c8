"""Every time-out, period and limit in one place, with its unit and reason, in profiles for three kinds of network.

`Settings.profile("local")` is for processes of one machine, "lan" for one site, "wan" for far-apart hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, cast

from node.errors import BadUsage

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is tuned by. Times in seconds, sizes in bytes."""

    # -- the ring (Chord) --
    successors: int = 8
    """Length r of successor lists. A ring survives r - 1 adjacent deaths between two rounds."""
    stabilize_period: float = 0.4
    """Between two stabilize rounds of a member, +-25 % jitter. Half of it is the mean time until a death is seen."""
    fingers_period: float = 1.0
    """Between two finger look-ups; a ring of n needs about log2 n of them for a whole table."""
    probe: float = 0.8
    """Least deadline of a probe. Deadlines adapt to the peer (mean + 4 deviations) between this and `call`."""
    indirect_probes: int = 3
    """How many others are asked to probe a member that did not answer us, before it is declared dead (SWIM)."""
    call: float = 2.0
    """Longest deadline of one protocol call. Large messages that are on their way may take until `operation`."""
    forget_after: float = 7 * 24 * 3600.0
    """How long a member that vanished is remembered and probed, so that rings cut apart find each other again."""
    reunion_period: float = 2.0
    """Between two probes of a remembered member."""
    regroup: float = 1.0
    """How long a restarting node waits for more of its ring to come up once one other has answered."""
    lookup: float = 3.0
    """Deadline of a whole look-up."""

    # -- who answers for an arc --
    lease: float = 1.6
    """How long a keeper of the ring map lets a node answer for its replicas. What a dead node answered for comes back
    when its lease has run out."""
    lease_margin: float = 0.3
    """How much shorter the node itself takes its lease to be, for clocks that run at different speeds."""
    lease_at_rest: float = 5.0
    """Between two renewals while nobody asks the node anything."""
    evict: float = 10.0
    """How long a node must have been silent before the ring does without it and others take its replicas over."""
    settle_period: float = 0.75
    """Between two looks at which arcs should be fetched, given away or taken over, and whether their nodes answer. A
    quarter of it while one does not."""
    freeze: float = 2.0
    """Longest time writes to an arc wait for the last step of its hand-over."""
    chunk: int = 1 * MIB
    """Size of one piece of an arc in transfer."""
    operation: float = 5.0
    """Deadline of a put, get or delete, retries included."""
    watch: float = 5.0
    """How long a node waits for something to tell to who watches keys."""
    sweep_period: float = 30.0
    """Between two looks for records whose time to live is over, while there are any that expire."""
    leave: float = 60.0
    """Longest time a graceful leave may take to hand everything over."""

    # -- eventual rings --
    max_future: float = 5.0
    """Stamps further ahead of our time are refused: one wrong clock must not win every conflict for years. Far above
    what synchronized clocks differ by."""
    grace: float = 3 * 24 * 3600.0
    """How long tombstones stay after all replicas have them. A node the others lived without for longer comes back
    empty: what it holds may have been deleted. Above any outage that people repair."""
    compare_period: float = 3.0
    """Between two comparisons of an arc with its other replicas, +-25 % jitter. One call each if nothing differs."""
    reminders: int = 100_000
    """Names of own records remembered for one node that is away. Beyond it they are forgotten, and the comparison of
    arcs finds what that node lacks."""
    most_siblings: int = 64
    """Concurrent values of one key at which a write that adds another is refused."""

    # -- trust --
    certificate: float = 30 * 24 * 3600.0
    """How long a certificate is good. It is renewed when a third of that is left."""
    token: float = 24 * 3600.0
    """How long a token is good unless something else is said."""
    trust_period: float = 2.0
    """Between two looks at who is revoked, +-25 % jitter, and whether the own certificate is to be renewed."""

    # -- the wire --
    connect: float = 1.0
    """Deadline of a TCP connect."""
    handshake: float = 60.0
    """A new connection must have sent one whole frame within this."""
    half_frame: float = 10.0
    """A frame that has begun must be whole within this, or make progress of `half_frame_bytes`."""
    half_frame_bytes: int = 64 * KIB
    """Progress within `half_frame` that a frame on a slow line must make to be waited for."""
    idle: float = 0.0
    """Connections without a frame for so long are closed; 0: never (a plain client may sit still)."""
    user_timeout: float = 4.0
    """TCP_USER_TIMEOUT: unacknowledged data ends the connection after this."""
    backoff: float = 0.05
    """First wait before reconnecting; doubles with jitter up to `backoff_limit`."""
    backoff_limit: float = 1.0
    max_frame: int = 8 * MIB
    """Largest frame taken in. A larger request is skipped and refused; see `max_skip`."""
    max_skip: int = 256 * MIB
    """A frame that declares more than this costs its sender the connection."""
    max_in_flight: int = 1024
    """Requests of one connection being worked on; beyond it we stop reading from that connection."""
    max_in_work: int = 32 * MIB
    """Bytes of requests of one connection being worked on; beyond it we stop reading from that connection."""
    max_unfinished: int = 256 * MIB
    """Bytes of frames that are not whole yet, and of answers that peers do not read, of all connections taken in
    together; beyond it the connection that holds most of them is ended."""
    max_connections: int = 4096
    """Connections taken in; further ones are closed at once."""
    write_high: int = 4 * MIB
    """Unsent bytes of a connection at which we stop reading from it."""
    write_limit: int = 64 * MIB
    """Unsent bytes at which a connection whose peer does not read is closed."""

    # -- data --
    max_key: int = 4 * KIB
    max_value: int = 4 * MIB

    @classmethod
    def profile(cls, name: str) -> Settings:
        """The settings for "local", "lan" or "wan". Raises BadUsage for another name."""
        try:
            return PROFILES[name]
        except KeyError:
            raise BadUsage(f"no profile {name!r}: use one of {', '.join(PROFILES)}") from None

    def adopt(self, newer: Settings) -> tuple[tuple[str, object, object], ...]:
        """Become as `newer` is, for all who hold this object: the one way in which settings change. What did: names,
        old and new values. Not for those of `profile`, which all share: `replace` makes some of one's own."""
        changes = differences(self, newer)
        for name, _, new in changes:
            object.__setattr__(self, name, new)
        return changes


def differences(one: object, other: object) -> tuple[tuple[str, object, object], ...]:
    """In which fields two dataclass objects of one kind differ, and what each has there."""
    names = [field.name for field in fields(cast(Any, one))]
    return tuple((n, mine, yours) for n in names if (mine := getattr(one, n)) != (yours := getattr(other, n)))


_LOCAL = Settings()
PROFILES = {
    "local": _LOCAL,
    "lan": replace(
        _LOCAL,
        stabilize_period=1.0,
        fingers_period=2.0,
        probe=1.0,
        call=3.0,
        lookup=6.0,
        lease=6.0,
        lease_at_rest=15.0,
        compare_period=10.0,
        evict=60.0,
        operation=10.0,
        connect=2.0,
        regroup=3.0,
        reunion_period=5.0,
    ),
    "wan": replace(
        _LOCAL,
        stabilize_period=2.0,
        fingers_period=5.0,
        probe=2.0,
        call=8.0,
        lookup=20.0,
        lease=20.0,
        lease_at_rest=60.0,
        compare_period=60.0,
        evict=300.0,
        lease_margin=2.0,
        operation=30.0,
        connect=5.0,
        handshake=15.0,
        regroup=10.0,
        reunion_period=15.0,
        user_timeout=15.0,
    ),
}
