"""How a node comes into a ring: it founds one, joins one, or comes back to the one its store belongs to."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from node.chain.ring_map import Policy, RingMap
from node.codec import Address, Contact, pack, unpack
from node.errors import BadUsage, Definite, NotAMember, OutcomeUnknown, WrongRing
from node.events import Event
from node.identifiers import BITS, Identifier
from node.register.messages import Configuration, Keeper, Record
from node.replication import messages

if TYPE_CHECKING:
    from node.replication.node import RingNode

log = logging.getLogger(__name__)

KNOWN = "known"
"""The note of whom a node has met."""
POLICY = ("replicas", "consistency", "durability", "siblings")
"""What belongs to the ring; a node that joins may say it too, if it says the same."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a node comes up. What belongs to the ring may be said by its first node; None: as the ring has it."""

    members: int = 1
    id: Identifier | None = None
    first: Address | None = None
    alone: bool = False
    zone: str | None = None
    replicas: int | None = None
    consistency: str | None = None
    durability: str | None = None
    siblings: bool | None = None

    @classmethod
    def like(cls, policy: Policy, members: int) -> StartOptions:
        """So that a ring with this policy begins."""
        return cls(members, **{name: getattr(policy, name) for name in POLICY})


class Arrival:
    """One node's way into a ring."""

    def __init__(self, node: RingNode, options: StartOptions) -> None:
        self._node = node
        self._options = options
        self._met: list[Address] = []
        """Where others of the ring are that are up, or come up too."""

    async def arrive(self) -> str:
        """See `RingNode.start`. How it got there, in words."""
        first = self._options.first
        if first == self._node.address:
            raise BadUsage(f"{first} is this node itself: give the address of another node of the ring")
        if self._node.identity.ring:
            self._check_ids()
            await self._start_again()
            return "back in its ring"
        if first is None:
            await self.found()
            return "founded a ring"
        await self._join(first)
        return f"in the ring of {first}"

    def _check_ids(self) -> None:
        if self._options.id is not None and self._options.id not in self._node.identity.members:
            mine = ", ".join(member.hex for member in self._node.identity.members)
            raise BadUsage(f"this data directory has the id {mine}: leave --id out, or use another directory")

    async def found(self) -> None:
        """Be a ring of one, which holds everything and keeps its map itself."""
        node = self._node
        node.belong_to(node.random.randbytes(16), 0)
        node.household.found(self._options.id or Identifier(node.random.getrandbits(BITS)))
        policy = self._policy()
        await node.take_up(policy)
        chains = policy.consistency == "chain"
        ring = RingMap.founded(policy, node.keyspace.resident, node.residence.members) if chains else RingMap(policy)
        record = Record(1, b"", pack(ring), Configuration((Keeper(node.identity.node, node.address),)))
        await node.acceptor.found(record)
        if chains:
            await node.keyspace.found(ring)
        await node.keyspace.cartography.learn(record)
        await self._fill(node.residence.first.me)

    def _policy(self) -> Policy:
        """Of a ring that begins here. Raises BadUsage for what does not go together."""
        named = {name: value for name in POLICY if (value := getattr(self._options, name)) is not None}
        policy = Policy(**named)
        if policy.siblings and policy.consistency == "chain":
            raise BadUsage("--siblings needs --consistency eventual: in a chain no two values stand side by side")
        most = self._node.settings.successors
        if policy.consistency == "eventual" and policy.replicas > most:
            raise BadUsage(f"--replicas {policy.replicas} is too many for an eventual ring: {most}")
        return policy

    async def _join(self, first: Address) -> None:
        """Be part of the ring of another node."""
        hello = await self._node.household.insisting(partial(hello_of, self._node, first))
        await self.join(hello.ring, hello.record, hello.members[0], self._options.id)

    async def join(self, ring: bytes, record: Record, through: Contact, identifier: Identifier | None) -> None:
        """Be part of a ring with this map, by way of one of its members. Raises BadUsage if something else was asked of
        it than it is."""
        self._node.belong_to(ring, record.generation)
        await self._learn(record)
        await self._node.data.wake((through.address,))
        await self._node.household.join(through, identifier)
        await self._fill(through)

    async def _learn(self, record: Record) -> None:
        """Take the ring's map and what it says about the ring. Raises BadUsage if something else was asked for."""
        policy = unpack(RingMap, record.value).policy
        for name in POLICY:
            asked, there = getattr(self._options, name), getattr(policy, name)
            if asked is not None and asked != there:
                raise BadUsage(f"this ring has --{name} {there}, not {asked}: leave --{name} out")
        await self._node.take_up(policy)
        await self._node.keyspace.cartography.learn(record)

    async def _fill(self, through: Contact) -> None:
        while len(self._node.residence.members) < self._options.members:
            await self._node.household.join(through, None)

    async def _start_again(self) -> None:
        """Rejoin: through a member that serves; or, if all of the ring is coming up again, together with the others."""
        node, first = self._node, self._options.first
        node.neighbours.ring = node.identity.ring
        note = await node.store.read_note(KNOWN)
        known = unpack(tuple[Contact, ...], note) if note else ()
        node.household.acquaintances.met(known)
        for contact in known:  # until it is met again: others may have come up as a ring of their own
            node.household.acquaintances.lose(contact)
        others = self._others()
        named = [*(contact.address for contact in known), *([first] if first else []), *(others or ())]
        addresses = [address for address in dict.fromkeys(named) if address != node.address]
        wait = first is not None or others != []
        through = None
        if addresses and not self._options.alone:
            through = await self._meet_again(addresses, first, wait=wait)
        await node.data.wake(self._met)
        ids = list(node.identity.members)
        if through is None:
            node.household.found(ids.pop(0))
            through = node.residence.first.me
        for each in ids:
            await node.household.join(through, each)
        await self._fill(through)

    def _others(self) -> list[Address] | None:
        """The other nodes of the ring by the last map that is known here; None where no map tells."""
        ring = self._node.keyspace.cartography.ring
        if ring is None or ring.policy.consistency != "chain":
            return None
        return [resident.address for resident in ring.residents if resident.life != self._node.identity.node]

    async def _meet_again(self, addresses: list[Address], first: Address | None, *, wait: bool) -> Contact | None:
        """Someone of our ring who serves; None if this node is the one to begin: as the smallest of those coming up, or
        where there is nobody to `wait` for."""
        loop = asyncio.get_running_loop()
        company_since: float | None = None
        complained = loop.time()
        me = self._node.identity
        mine = min(me.members)
        while True:
            greetings = await asyncio.gather(*(hello_if_any(self._node, address) for address in addresses))
            answers = dict(zip(addresses, greetings, strict=True))
            if first is not None and (hello := answers.get(first)) and hello.ring != me.ring:
                raise WrongRing(
                    f"{first} belongs to another ring than this data directory: use another directory, or its own ring"
                )
            ours = {a: h for a, h in answers.items() if h and h.ring == me.ring and h.node != me.node}
            for hello in ours.values():
                await self._node.keyspace.cartography.learn(hello.record)
            self._met = list(ours)
            for hello in ours.values():
                if hello.serving:
                    return hello.members[0]
            if ours:
                company_since = company_since or loop.time()
                patient = loop.time() - company_since < self._node.settings.regroup
                smallest = all(mine < min(c.id for c in hello.members) for hello in ours.values() if hello.members)
                if smallest and (len(ours) == len(addresses) or not patient):
                    return None
            elif not wait:
                return None
            if loop.time() - complained > 5:
                complained = loop.time()
                Event.WAITING.tell(
                    log,
                    "waiting for the ring of this data directory: none of %s serves; start them, or go on without them "
                    "by --alone",
                    ", ".join(map(str, addresses)),
                )
            await asyncio.sleep(self._node.settings.regroup * self._node.random.uniform(0.1, 0.3))


async def hello_of(node: RingNode, address: Address) -> messages.Hello:
    """The greeting of a node that is in a ring. Raises NotAMember if it has not come up yet."""
    hello = await messages.HELLO.ask(node.neighbours.transport, address, None, deadline=node.settings.call)
    if not (hello.serving and hello.members):
        raise NotAMember(f"{address} has not joined a ring yet: try again in a moment")
    return hello


async def hello_if_any(node: RingNode, address: Address) -> messages.Hello | None:
    try:
        return await messages.HELLO.ask(node.neighbours.transport, address, None, deadline=node.settings.call)
    except (Definite, OutcomeUnknown):
        return None
