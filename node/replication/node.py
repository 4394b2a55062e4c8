"""A node of the ring without its wire: members, holder, router, and how they come up and go.

The same object runs over RPyC on real hosts and over virtual time in simulation; it is given its address, a store, a
transport, a seeded Random and a clock that counts suspended time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeVar

from node.chord.household import Household, soon
from node.chord.member import Member
from node.codec import Address, Contact, Message, pack, unpack
from node.errors import (
    BadUsage,
    Definite,
    NotAMember,
    OutcomeUnknown,
    RingError,
    WrongRing,
)
from node.identifiers import BITS, Arc, Identifier
from node.replication import messages as data
from node.replication.handover import Destination, Source
from node.replication.holder import Holder
from node.replication.holdings import Holdings, Piece
from node.replication.leases import Leases
from node.replication.router import Router
from node.replication.settle import Settlement
from node.settings import Settings
from node.store.interface import Batch, Store
from node.tasks import Tasks
from node.transport import Switchboard, Transport

log = logging.getLogger(__name__)

T = TypeVar("T")
IDENTITY = "identity"
KNOWN = "known"
REFUSALS = 4
"""How often an address may turn out to be unreachable before coming up is given up."""
EVERYTHING = Arc(Identifier(0), Identifier(0))


class Identity(Message, frozen=True):
    """Who this data directory is: the ring it belongs to, the id of this life of it, the ids of its members."""

    ring: bytes
    node: bytes
    members: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a node comes up."""

    members: int = 1
    id: Identifier | None = None
    first: Address | None = None
    alone: bool = False


class RingNode:
    """One node. `receive` answers calls from the moment it is made; `start` returns once the node is in its ring."""

    def __init__(
        self,
        address: Address,
        store: Store,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
        holder: Holder,
    ) -> None:
        self.address = address
        self.settings = settings
        self.store = store
        self.random = random
        self.tasks = Tasks()
        self.household = Household(address, transport, settings, random, clock, self.tasks, self._ring_changed)
        self.residence = self.household.residence
        self.neighbours = self.household.neighbours
        self.holder = holder
        self.leases = Leases(self.residence, holder, clock)
        source = Source(holder, settings, random)
        destination = Destination(holder, transport, settings, address)
        self.settlement = Settlement(self.residence, self.neighbours, holder, self.leases, source, destination)
        self.router = Router(self.residence, holder, self.neighbours)
        self.identity = Identity(b"", random.randbytes(16), ())
        self.serving = False
        self._changed = asyncio.Event()
        self._persisted: frozenset[Contact] = frozenset()
        self.receive = Switchboard()
        self._connect_handlers(source)

    @classmethod
    async def open(
        cls,
        address: Address,
        store: Store,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
    ) -> RingNode:
        """A node on what its store left."""
        return cls(address, store, transport, settings, random, clock, await Holder.load(store, settings, clock))

    # -- coming up -----------------------------------------------------------------------------------------------

    async def start(self, options: StartOptions) -> None:
        """Found a ring, join one, or rejoin the one the store belongs to.

        Raises WrongRing, IdTaken, BadUsage, and RingErrors of the network if the first node does not answer.
        """
        if options.first == self.address:
            raise BadUsage(f"{options.first} is this node itself: give the address of another node of the ring")
        note = await self.store.read_note(IDENTITY)
        if note is None:
            await self._start_new(options)
        else:
            self.identity = unpack(Identity, note)
            self._check_ids(options)
            await self._start_again(options)
        self._begin_rounds()
        await self._integrated()

    def _begin_rounds(self) -> None:
        for rounds in (self._keep_leases, self.settlement.keep_settled, self._keep_acquainted, self._keep_known):
            self.tasks.spawn(rounds())
        self.serving = True

    def _check_ids(self, options: StartOptions) -> None:
        if options.id is not None and options.id not in self.identity.members:
            mine = ", ".join(member.hex for member in self.identity.members)
            raise BadUsage(f"this data directory has the id {mine}: leave --id out, or use another directory")

    async def _start_new(self, options: StartOptions) -> None:
        if options.first is None:
            self._belong_to(self.random.randbytes(16))
            self.household.found(options.id or Identifier(self.random.getrandbits(BITS)))
            await self.holder.change(self._whole_ring)
            through = self.residence.first.me
        else:
            hello = await self.household.insisting(partial(self._hello_of, options.first))
            self._belong_to(hello.ring)
            through = hello.members[0]
            await self.household.join(through, options.id)
        while len(self.residence.members) < options.members:
            await self.household.join(through, None)
        await self._remember()

    async def _start_again(self, options: StartOptions) -> None:
        """Rejoin: through a member that serves; or, if all of the ring is coming up again, together with the others."""
        self._belong_to(self.identity.ring)
        note = await self.store.read_note(KNOWN)
        known = unpack(tuple[Contact, ...], note) if note else ()
        self.household.acquaintances.met(known)
        for contact in known:  # until it is met again: others may have come up as a ring of their own
            self.household.acquaintances.lose(contact)
        named = [contact.address for contact in known] + ([options.first] if options.first else [])
        addresses = [address for address in dict.fromkeys(named) if address != self.address]
        through = None if options.alone or not addresses else await self._meet_again(addresses, options.first)
        ids = list(self.identity.members)
        if through is None:
            self.household.found(ids.pop(0))
            through = self.residence.first.me
        for each in ids:
            await self.household.join(through, each)
        while len(self.residence.members) < options.members:
            await self.household.join(through, None)
        await self._remember()

    async def _meet_again(self, addresses: list[Address], first: Address | None) -> Contact | None:
        """Someone of our ring who serves; None if this node is the one to begin, as the smallest of those coming up."""
        loop = asyncio.get_running_loop()
        company_since: float | None = None
        complained = loop.time()
        mine = min(self.identity.members)
        while True:
            answers = dict(zip(addresses, await asyncio.gather(*map(self._hello_if_any, addresses)), strict=True))
            if first is not None and (hello := answers.get(first)) and hello.ring != self.identity.ring:
                raise WrongRing(
                    f"{first} belongs to another ring than this data directory: use another directory, or its own ring"
                )
            ours = {
                a: h for a, h in answers.items() if h and h.ring == self.identity.ring and h.node != self.identity.node
            }
            for hello in ours.values():
                if hello.serving:
                    return hello.members[0]
            if ours:
                company_since = company_since or loop.time()
                patient = loop.time() - company_since < self.settings.regroup
                smallest = all(mine < min(c.id for c in hello.members) for hello in ours.values() if hello.members)
                if smallest and (len(ours) == len(addresses) or not patient):
                    return None
            if loop.time() - complained > 5:
                complained = loop.time()
                log.warning(
                    "waiting for the ring of this data directory: none of %s serves", ", ".join(map(str, addresses))
                )
            await asyncio.sleep(self.settings.regroup * self.random.uniform(0.1, 0.3))

    def _belong_to(self, ring: bytes) -> None:
        self.neighbours.ring = ring
        self.identity = Identity(ring, self.identity.node, self.identity.members)

    async def _integrated(self) -> None:
        """Wait until the members are in their neighbours' lists and the node may answer for its arcs."""
        try:
            async with asyncio.timeout(self.settings.lookup):
                while not self.holder.stands:
                    self._changed.set()
                    await asyncio.sleep(self.settings.backoff)
        except TimeoutError:
            log.warning("joined, but the successors do not confirm it yet")

    def _ring_changed(self, member: Member) -> None:
        """The pointers of a member of this node changed."""
        self.settlement.wanted.set()
        self._changed.set()

    @staticmethod
    def _whole_ring(holdings: Holdings) -> Holdings:
        return Holdings((Piece(EVERYTHING, 1),), holdings.prepared, holdings.released)

    # -- rounds --------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        while True:
            self._changed.clear()
            await self.leases.renew(self.neighbours)
            period = self.settings.lease / 4 if self.holder.stands else self.settings.backoff
            try:
                async with asyncio.timeout(period):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _keep_acquainted(self) -> None:
        """Look for members that vanished."""
        while True:
            await asyncio.sleep(self.settings.reunion_period * self.random.uniform(0.75, 1.25))
            await self.household.reunite()

    async def _keep_known(self) -> None:
        """Write down whom we know, so that a restart finds its ring."""
        while True:
            await asyncio.sleep(self.settings.stabilize_period)
            moved = await self.household.give_way()
            self.router.learn(*(c for m in self.residence.members.values() for c in m.known()))
            if moved or frozenset(self.household.acquaintances.known()) != self._persisted:
                await self._attempt(self._remember())

    async def _remember(self) -> None:
        known = self.household.acquaintances.known()
        self.identity = Identity(self.identity.ring, self.identity.node, tuple(self.residence.members))
        batch = Batch()
        batch.note(IDENTITY, pack(self.identity))
        batch.note(KNOWN, pack(known))
        await self.store.commit(batch)
        self._persisted = frozenset(known)

    async def _attempt(self, step: Awaitable[None]) -> None:
        try:
            await step
        except RingError as error:
            log.debug("%s; trying again later", error)

    # -- going ---------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Hand everything over, say goodbye, stop. What nobody took stays in the store."""
        if self.serving and not self.residence.is_alone():
            try:
                async with asyncio.timeout(self.settings.leave):
                    if not await self.settlement.hand_everything_over():
                        log.info("nobody takes over: all other nodes leave too, or do not answer; the data stays here")
            except TimeoutError:
                log.warning("not everything was handed over within %s s: the rest stays here", self.settings.leave)
            await self.household.say_goodbye()
        await self.stop()

    async def stop(self) -> None:
        """End all rounds."""
        self.serving = False
        await self.tasks.stop()

    # -- the ring as a whole -------------------------------------------------------------------------------------

    async def admit(self, address: Address) -> Contact:
        """Bring the node at `address`, a ring of its own, into this ring right after this node's first member.

        Returns its contact. Nothing happens if it is here already. Raises WrongRing if it has company elsewhere.
        """
        hello = await self._hello_of(address)
        if hello.ring == self.identity.ring:
            return hello.members[0]
        if not hello.alone:
            raise WrongRing(f"{address} is in another ring with other nodes: let it leave that one first")
        here = self.residence.first
        place = Arc(here.me.id, here.state.successor.id).middle()
        adoption = data.Adoption(self.identity.ring, here.me, place)
        await data.ADOPT.ask(self.neighbours.transport, address, adoption, deadline=2 * self.settings.lookup)
        return Contact(place, address)

    async def _adopted(self, adoption: data.Adoption) -> None:
        """Leave this ring of one and join another."""
        if not self.serving or not self.residence.is_alone() or self.settlement.leaving:
            raise WrongRing(f"{self.address} is not alone in its ring")
        if adoption.ring == self.identity.ring:
            return
        keys = await self.store.count(EVERYTHING)
        if keys:
            raise WrongRing(
                f"{self.address} holds {keys} keys of its own ring: put them into this one, then start it anew"
            )
        before, count = self.identity, len(self.residence.members)
        await self.stop()
        self.residence.members.clear()
        try:
            await self.holder.change(lambda holdings: Holdings())
            self._belong_to(adoption.ring)
            await self.household.join(adoption.seed, adoption.id)
            while len(self.residence.members) < count:
                await self.household.join(adoption.seed, None)
            await self._remember()
        except RingError:
            self.residence.members.clear()
            self._belong_to(before.ring)
            self.household.found(before.members[0])
            await self.holder.change(self._whole_ring)
            raise
        finally:
            self._begin_rounds()
        await self._integrated()

    # -- who answers what ----------------------------------------------------------------------------------------

    async def _hello_of(self, address: Address) -> data.Hello:
        """The greeting of a node that is in a ring. Raises NotAMember if it has not come up yet."""
        hello = await data.HELLO.ask(self.neighbours.transport, address, None, deadline=self.settings.call)
        if not (hello.serving and hello.members):
            raise NotAMember(f"{address} has not joined a ring yet: try again in a moment")
        return hello

    async def _hello_if_any(self, address: Address) -> data.Hello | None:
        try:
            return await data.HELLO.ask(self.neighbours.transport, address, None, deadline=self.settings.call)
        except (Definite, OutcomeUnknown):
            return None

    def _hello(self) -> data.Hello:
        members = tuple(Contact(each, self.address) for each in self.residence.members or self.identity.members)
        alone = self.serving and self.residence.is_alone()
        return data.Hello(self.identity.node, self.identity.ring, self.serving, members, alone)

    def _connect_handlers(self, source: Source) -> None:
        self.household.connect(self.receive)
        connect = self.receive.connect
        connect(data.GET, lambda q: self.holder.get(Identifier.of_key(q.key), q.key))
        connect(data.PUT, lambda q: self.holder.put(Identifier.of_key(q.key), q.key, q.value))
        connect(data.DELETE, lambda q: self.holder.delete(Identifier.of_key(q.key), q.key))
        connect(data.COUNT, self.store.count)
        connect(data.HELLO, soon(lambda _: self._hello()))
        connect(data.ADOPT, self._adopted)
        connect(data.LEASE, soon(self.leases.grant))
        connect(data.HOLDS, soon(lambda arc: self.holder.holdings.within(arc)))
        connect(data.OFFER, soon(self.settlement.offered))
        connect(data.BEGIN, source.begin)
        connect(data.PULL, source.pull)
        connect(data.DELTA, source.delta)
        connect(data.RELEASE, source.release)
        connect(data.CONFIRM, source.confirm)
