"""A node of the ring without its wire: members, holder, router, and how they come up and go.

The same object runs over RPyC on real hosts and over virtual time in simulation; it is given its address, a store, a
transport, a seeded Random and a clock that counts suspended time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

from node.chord import messages as chord
from node.chord.census import census
from node.chord.lookup import Found
from node.chord.member import Member
from node.chord.neighbours import Acquaintances, Neighbours
from node.chord.placement import bisect_widest
from node.codec import Address, Contact, Message, pack, unpack
from node.errors import (
    BadUsage,
    Definite,
    IdTaken,
    NotAMember,
    NotGranted,
    OutcomeUnknown,
    RingError,
    Unavailable,
    Unreachable,
    WrongRing,
)
from node.identifiers import BITS, Arc, Identifier
from node.replication import messages as data
from node.replication.handover import Destination, Source
from node.replication.holder import Holder
from node.replication.holdings import Holdings, Piece
from node.replication.leases import Leases
from node.replication.residence import Residence
from node.replication.router import Router
from node.replication.settle import Settlement
from node.settings import Settings
from node.store.interface import Batch, Store
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
        self.residence = Residence(address)
        self.neighbours = Neighbours(transport, settings, random, b"")
        self.acquaintances = Acquaintances(clock, settings.forget_after)
        self.holder = holder
        self.leases = Leases(self.residence, holder, clock)
        source = Source(holder, settings, random)
        destination = Destination(holder, transport, settings, address)
        self.settlement = Settlement(self.residence, self.neighbours, holder, self.leases, source, destination)
        self.router = Router(self.residence, holder, self.neighbours)
        self.identity = Identity(b"", random.randbytes(16), ())
        self.serving = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rounds: dict[Identifier, list[asyncio.Task[None]]] = {}
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
            self._spawn(rounds())
        self.serving = True

    def _check_ids(self, options: StartOptions) -> None:
        if options.id is not None and options.id not in self.identity.members:
            mine = ", ".join(member.hex for member in self.identity.members)
            raise BadUsage(f"this data directory has the id {mine}: leave --id out, or use another directory")

    async def _start_new(self, options: StartOptions) -> None:
        if options.first is None:
            self._belong_to(self.random.randbytes(16))
            await self._found(options.id or Identifier(self.random.getrandbits(BITS)))
            await self.holder.change(self._whole_ring)
            through = self.residence.first.me
        else:
            hello = await self._insisting(partial(self._hello_of, options.first))
            self._belong_to(hello.ring)
            through = hello.members[0]
            await self._join(through, options.id)
        while len(self.residence.members) < options.members:
            await self._join(through, None)
        await self._remember()

    async def _start_again(self, options: StartOptions) -> None:
        """Rejoin: through a member that serves; or, if all of the ring is coming up again, together with the others."""
        self._belong_to(self.identity.ring)
        note = await self.store.read_note(KNOWN)
        known = unpack(tuple[Contact, ...], note) if note else ()
        self.acquaintances.met(known)
        for contact in known:  # until it is met again: others may have come up as a ring of their own
            self.acquaintances.lose(contact)
        named = [contact.address for contact in known] + ([options.first] if options.first else [])
        addresses = [address for address in dict.fromkeys(named) if address != self.address]
        through = None if options.alone or not addresses else await self._meet_again(addresses, options.first)
        ids = list(self.identity.members)
        if through is None:
            await self._found(ids.pop(0))
            through = self.residence.first.me
        for each in ids:
            await self._join(through, each)
        while len(self.residence.members) < options.members:
            await self._join(through, None)
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

    async def _found(self, identifier: Identifier) -> None:
        """Be a ring of one."""
        self._settle_in(Member(Contact(identifier, self.address), self.neighbours, self.acquaintances))

    async def _join(self, through: Contact, wanted: Identifier | None) -> None:
        """Bring one member into the ring, at the id wanted or where the widest arc is."""
        for _ in range(8):
            identifier = wanted if wanted is not None else await self._insisting(partial(self._place, through))
            member = Member(Contact(identifier, self.address), self.neighbours, self.acquaintances)
            try:
                await self._insisting(partial(self._join_as, member, through))
            except IdTaken:
                if wanted is not None:
                    raise
                continue
            return
        raise Unavailable("no place in the ring stayed free long enough to join: try again")

    async def _join_as(self, member: Member, through: Contact) -> None:
        await member.enter(through)
        self._settle_in(member)
        await member.integrate()

    async def _insisting(self, step: Callable[[], Awaitable[T]]) -> T:
        """A step of coming up, tried again while messages are lost or the other side is not ready, within the time of
        four look-ups; a dead address is given up sooner."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 4 * self.settings.lookup
        refusals = 0
        while True:
            try:
                return await step()
            except (Unreachable, OutcomeUnknown, NotAMember, Unavailable) as error:
                refusals += isinstance(error, Unreachable)
                if refusals > REFUSALS or loop.time() > deadline:
                    raise
                log.debug("coming up: %s; trying again", error)
            await asyncio.sleep(self.settings.backoff * self.random.uniform(1, 4))

    async def _place(self, through: Contact) -> Identifier:
        """An id that bisects the widest arc."""
        contacts: dict[Identifier, Contact] = {}

        async def survey() -> dict[Identifier, int]:
            views = await census(self.neighbours, await self._insisting(partial(self.neighbours.view, through)))
            self.acquaintances.met(view.me for view in views if view.me.address != self.address)
            contacts.update({view.me.id: view.me for view in views})
            ids = [view.me.id for view in views]
            return {end: Arc(start, end).width for start, end in zip([ids[-1], *ids[:-1]], ids, strict=True)}

        async def admit(owner: Identifier, width: int) -> Identifier:
            request = chord.Admission(owner, width.to_bytes(21, "big"))
            try:
                return await self.neighbours.ask(chord.ADMIT, contacts[owner], request)
            except (NotAMember, OutcomeUnknown, Unreachable) as error:
                raise NotGranted(f"{contacts[owner]} does not admit yet: {error}", bytes(21)) from None

        return await bisect_widest(survey, admit, self.random, self.settings.backoff)

    def _settle_in(self, member: Member) -> None:
        self.residence.members[member.me.id] = member
        member.on_change = self._ring_changed
        self._rounds[member.me.id] = [self._spawn(member.keep_stable()), self._spawn(member.keep_fingers())]

    async def _integrated(self) -> None:
        """Wait until the members are in their neighbours' lists and the node may answer for its arcs."""
        try:
            async with asyncio.timeout(self.settings.lookup):
                while not self.holder.stands:
                    self._changed.set()
                    await asyncio.sleep(self.settings.backoff)
        except TimeoutError:
            log.warning("joined, but the successors do not confirm it yet")

    def _ring_changed(self) -> None:
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
        """Look for members that vanished: after a partition they are another ring, to be merged with this one."""
        while True:
            await asyncio.sleep(self.settings.reunion_period * self.random.uniform(0.75, 1.25))
            lost = self.acquaintances.lost()
            if not lost:
                continue
            contact = self.random.choice(lost)
            if await self.neighbours.view_if_alive(contact) is not None:
                self.acquaintances.met([contact])
                for member in list(self.residence.members.values()):
                    await self._attempt(member.reunite(contact))

    async def _keep_known(self) -> None:
        """Write down whom we know, so that a restart finds its ring."""
        while True:
            await asyncio.sleep(self.settings.stabilize_period)
            for member in [m for m in self.residence.members.values() if m.twin is not None]:
                await self._attempt(self._move(member))
            self.router.learn(*(c for m in self.residence.members.values() for c in m.known()))
            if frozenset(self.acquaintances.known()) != self._persisted:
                await self._attempt(self._remember())

    async def _move(self, member: Member) -> None:
        """Give an id up to the other member that has it, and join anew where there is room."""
        twin, through = member.twin, member.state.successor
        if twin is None or not await self.neighbours.answers(twin):
            member.twin = None
            return
        log.warning("%s has the same id as %s: moving to another place", member.me, twin)
        for task in self._rounds.pop(member.me.id):
            task.cancel()
        del self.residence.members[member.me.id]
        while True:
            try:
                await self._join(through, None)
                break
            except RingError as error:
                log.warning("%s found no other place yet: %s", member.me, error)
                through = self.random.choice([through, *self.acquaintances.known()])
        await self._remember()

    async def _remember(self) -> None:
        known = self.acquaintances.known()
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Rounds run until they are cancelled; one that ends by itself is a bug and ends the node."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

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
            views = await self.census()
            for member in list(self.residence.members.values()):
                await member.leave(view.me for view in views if view.me.address != self.address)
        await self.stop()

    async def stop(self) -> None:
        """End all rounds."""
        self.serving = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the ring as a whole -------------------------------------------------------------------------------------

    async def census(self) -> tuple[chord.View, ...]:
        """The views of all live members, from the smallest id on."""
        views = await census(self.neighbours, self.residence.first.view())
        return tuple(sorted(views, key=lambda view: view.me.id))

    async def find_successor(self, point: Identifier) -> Found:
        """A cold look-up through fingers."""
        return await self.residence.first.find_successor(point)

    async def update_numbers(self) -> None:
        """Number all members 0..n-1 clockwise from the smallest id; returns when each knows its number."""
        views = await self.census()

        async def tell(number: int, to: Contact) -> None:
            await self.neighbours.ask(chord.NUMBER, to, chord.Numbering(to.id, number, len(views) - 1))

        await self._everyone(tell(number, view.me) for number, view in enumerate(views))

    async def update_finger_table(self) -> None:
        """Have every member look up all its fingers; returns when all have."""
        views = await self.census()

        async def tell(to: Contact) -> None:
            deadline = self.settings.operation
            await self.neighbours.ask(chord.FIX_FINGERS, to, chord.ToMember(to.id), deadline=deadline)

        await self._everyone(tell(view.me) for view in views)

    async def _everyone(self, calls: Any) -> None:
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

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
            await self._join(adoption.seed, adoption.id)
            while len(self.residence.members) < count:
                await self._join(adoption.seed, None)
            await self._remember()
        except RingError:
            self.residence.members.clear()
            self._belong_to(before.ring)
            await self._found(before.members[0])
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
        connect, member = self.receive.connect, self.residence.member
        connect(chord.PING, _soon(lambda q: (member(q.to), self.identity.ring)[1]))
        connect(chord.VIEW, _soon(lambda q: member(q.to).view()))
        connect(chord.NOTIFY, _soon(lambda q: member(q.to).notified(q)))
        connect(chord.INTRODUCE, _soon(lambda q: member(q.to).introduced(q)))
        connect(chord.PROBE, lambda q: self.neighbours.answers(q.contact))
        connect(chord.DEPART, _soon(lambda q: member(q.to).departed(q)))
        connect(chord.ROUTE, _soon(lambda q: member(q.to).route(q)))
        connect(chord.ADMIT, _soon(lambda q: member(q.to).admit(q)))
        connect(chord.GRANTS, _soon(lambda q: member(q.to).granted()))
        connect(chord.NUMBER, _soon(lambda q: member(q.to).numbered(q)))
        connect(chord.FIX_FINGERS, lambda q: member(q.to).fingers_fixed())
        connect(chord.REPORT, _soon(lambda q: member(q.to).report()))
        connect(data.GET, lambda q: self.holder.get(Identifier.of_key(q.key), q.key))
        connect(data.PUT, lambda q: self.holder.put(Identifier.of_key(q.key), q.key, q.value))
        connect(data.DELETE, lambda q: self.holder.delete(Identifier.of_key(q.key), q.key))
        connect(data.COUNT, self.store.count)
        connect(data.HELLO, _soon(lambda _: self._hello()))
        connect(data.ADOPT, self._adopted)
        connect(data.LEASE, _soon(self.leases.grant))
        connect(data.HOLDS, _soon(lambda arc: self.holder.holdings.within(arc)))
        connect(data.OFFER, _soon(self.settlement.offered))
        connect(data.BEGIN, source.begin)
        connect(data.PULL, source.pull)
        connect(data.DELTA, source.delta)
        connect(data.RELEASE, source.release)
        connect(data.CONFIRM, source.confirm)


def _soon(handler: Callable[[Any], T]) -> Callable[[Any], Awaitable[T]]:
    """An immediate answer as an awaitable one."""

    async def answer(question: Any) -> T:
        return handler(question)

    return answer
