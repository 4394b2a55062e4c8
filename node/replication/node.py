"""A node of the ring without its wire: members on the ring, replicas in chains, and how the two come up and go.

The same object runs over RPyC on real hosts and over virtual time in simulation; it is given its address, a store, a
transport, a seeded Random and a clock that counts suspended time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Any

from node import __version__
from node.chain.keyspace import MAP, Keyspace
from node.chain.replicas import STATES
from node.chain.ring_map import Policy, Resident, RingMap
from node.chord.household import Household, soon
from node.chord.member import Member
from node.codec import Address, Contact, pack, unpack
from node.data import Data
from node.errors import (
    BadUsage,
    Definite,
    NotAMember,
    OutcomeUnknown,
    RingError,
    StoreFull,
    WrongRing,
)
from node.events import Event
from node.eventual.commons import Commons
from node.identifiers import EVERYTHING, Arc
from node.register.acceptor import NOTE as KEEPER
from node.register.acceptor import Acceptor
from node.register.keepers import NOTHING, Keepers
from node.register.messages import Record
from node.replication import messages
from node.replication.arrival import KNOWN, Arrival, StartOptions, hello_if_any, hello_of
from node.replication.identity import BOOT, IDENTITY, Identity, recognized, stopped_cleanly, take_life, trust_page_cache
from node.replication.repair import Repair
from node.settings import Settings
from node.store.interface import Batch, Store
from node.tasks import Tasks
from node.transport import Switchboard, Transport

log = logging.getLogger(__name__)


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
        wall: Callable[[], float],
        boot: bytes,
    ) -> None:
        self.address = address
        self.settings = settings
        self.store = store
        self.random = random
        self.transport = transport
        self._clock = clock
        self._wall = wall
        self._boot = boot
        self.tasks = Tasks()
        self._data_tasks = Tasks(self.tasks)
        self._zone = address.host
        self.household = Household(address, transport, settings, random, clock, self.tasks, self._ring_changed)
        self.residence = self.household.residence
        self.neighbours = self.household.neighbours
        self.identity = Identity(b"", b"", ())
        self.serving = False
        self.leaving = False
        self._since = clock()
        self._persisted: frozenset[Contact] = frozenset()
        self.receive = Switchboard()
        self.household.connect(self.receive)
        self.receive.connect(messages.HELLO, soon(lambda _: self._hello()))
        self.receive.connect(messages.ADOPT, self._adopted)
        self.repair = Repair(self)
        self.repair.connect(self.receive)
        self.keyspace: Keyspace
        self.data: Data
        """What holds this node's share: the keyspace, or the commons of an eventual ring."""

    @classmethod
    async def open(
        cls,
        address: Address,
        store: Store,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
        wall: Callable[[], float],
        boot: bytes,
    ) -> RingNode:
        """A node on what its store left. `clock` goes on while the host sleeps, `wall` tells the time of day; `boot` is
        another after each start of the machine."""
        node = cls(address, store, transport, settings, random, clock, wall, boot)
        node.identity = await recognized(store, boot, random)
        if not node.identity.ring:
            await node._forget()
        await node._open_keyspace()
        return node

    async def _open_keyspace(self) -> None:
        """The replicas and the acceptor of this life of the data directory."""
        life = self.identity.node
        self.acceptor = await Acceptor.load(self.store, life, self.settings, self._clock)
        known = await Keyspace.known_record(self.store)
        register = Keepers(self.transport, self.settings, self.random, self._clock, life, known or NOTHING)
        resident = Resident(life, self.address, self._zone)
        arguments = (resident, self.store, self.transport, self.settings, self.random, self._clock, self._wall)
        self.keyspace = Keyspace(*arguments, self._data_tasks, register)
        self.keyspace.cartography.generation = self.identity.generation
        self.keyspace.connect(self.receive)
        self.acceptor.connect(self.receive)
        if known is not None:
            await self.take_up(unpack(RingMap, known.value).policy)
            await self.keyspace.cartography.learn(known)

    async def take_up(self, policy: Policy) -> None:
        """Hold data as the ring does, on what the store left."""
        if policy.consistency == "chain":
            if policy.durability == "os":
                await trust_page_cache(self.store, self._boot)
            await self.keyspace.load()
            self.data = self.keyspace
            return
        self.store.wait_for_disk(policy.durability == "fsync")
        arguments = (self.household, self.store, self.transport, self.settings, self.random, self._wall, self.tasks)
        commons = await Commons.open(*arguments, policy.replicas, policy.siblings)
        commons.connect(self.receive)
        self.data = commons

    # -- coming up -----------------------------------------------------------------------------------------------

    async def start(self, options: StartOptions) -> None:
        """Found a ring, join one, or rejoin the one the store belongs to.

        Raises WrongRing, IdTaken, BadUsage, and RingErrors of the network if the first node does not answer.
        """
        if options.zone is not None:
            self._zone = options.zone
            self.keyspace.resident = Resident(self.identity.node, self.address, self._zone)
        comes_back = bool(self.identity.members)
        how = await Arrival(self, options).arrive()
        await self._remember()  # from here on others count on this life
        self._begin_rounds()
        await self._be_seated(patient=comes_back)
        await self._remember()
        Event.JOINED.tell(log, "%s, with the ids %s", how, " ".join(each.hex for each in self.identity.members))

    def _begin_rounds(self) -> None:
        self.data.begin()
        for rounds in (self._keep_acquainted, self._keep_known):
            self.tasks.spawn(rounds())
        self.serving = True

    def belong_to(self, ring: bytes, generation: int) -> None:
        """Be of this ring, in this generation of it."""
        self.neighbours.ring = ring
        self.identity = self.identity.joining(ring, generation)
        self.keyspace.cartography.generation = generation

    async def _be_seated(self, *, patient: bool) -> None:
        """Wait until the ring map has this node and it may answer. One that comes back does not wait for long: the
        keepers of the map may be coming back after it."""
        deadline = asyncio.get_running_loop().time() + (self.settings.call if patient else 2 * self.settings.operation)
        while True:
            try:
                await self.data.join(tuple(self.residence.members))
                if await self.data.serves():
                    return
                failure: RingError = NotAMember("the keepers of the ring map grant no lease yet")
            except (Definite, OutcomeUnknown) as error:
                if isinstance(error, BadUsage):
                    raise
                failure = error
            if asyncio.get_running_loop().time() > deadline:
                if not patient:
                    raise failure
                Event.UNSEATED.tell(log, "back in the ring, but not in its map yet: %s", failure)
                return
            await asyncio.sleep(self.settings.backoff)

    def _ring_changed(self, member: Member) -> None:
        """The pointers of a member of this node changed."""
        if self.serving:
            self.data.ring_changed()

    # -- rounds --------------------------------------------------------------------------------------------------

    async def _keep_acquainted(self) -> None:
        """Look for members that vanished, and hear what the map is from nodes that may know another one."""
        while True:
            await asyncio.sleep(self.settings.reunion_period * self.random.uniform(0.75, 1.25))
            await self.household.reunite()
            near = {each.address for m in self.residence.members.values() for each in m.state.successors}
            strangers = sorted(self.keyspace.strangers(near), key=str)
            hello = await hello_if_any(self, self.random.choice(strangers)) if strangers else None
            if hello is not None and hello.ring == self.identity.ring and hello.node != self.identity.node:
                try:
                    await self.keyspace.cartography.learn(hello.record)
                except StoreFull as error:
                    log.debug("%s; learning later", error)

    async def _keep_known(self) -> None:
        """Write down whom we know, so that a restart finds its ring."""
        while True:
            await asyncio.sleep(self.settings.stabilize_period)
            moved = await self.household.give_way()
            try:
                if moved:
                    await self.data.join(tuple(self.residence.members))
                if moved or frozenset(self.household.acquaintances.known()) != self._persisted:
                    await self._remember()
            except RingError as error:
                log.debug("%s; trying again later", error)

    async def _remember(self) -> None:
        known = self.household.acquaintances.known()
        self.identity = self.identity.housing(tuple(self.residence.members))
        batch = Batch()
        batch.note(IDENTITY, pack(self.identity))
        batch.note(KNOWN, pack(known))
        await self.store.commit(batch, to_disk=True)
        self._persisted = frozenset(known)

    # -- going ---------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Have others take everything over, say goodbye, stop. What nobody took stays in the store."""
        self.leaving = True
        Event.LEAVING.tell(log, "handing over")
        if self.serving and not self.residence.is_alone():
            try:
                async with asyncio.timeout(self.settings.leave):
                    await self._hand_over()
            except (TimeoutError, RingError) as error:
                Event.NOT_HANDED_OVER.tell(log, "what others did not take stays here: %s", error or "it took too long")
            await self.household.say_goodbye()
        await self.stop()
        try:
            await self._remember()
            await stopped_cleanly(self.store)
        except RingError as error:
            log.warning("not all that this node was told is on its disk: %s", error)

    async def _hand_over(self) -> None:
        """Have others take over all that is here, if any stay. Raises RingErrors, once they have lasted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.call
        while not self.residence.is_alone():
            try:
                if await self.data.part():
                    return
                break
            except RingError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(self.settings.backoff)
        log.info("nobody takes over: all other nodes leave too; the data stays here")

    async def stop(self) -> None:
        """End all rounds."""
        self.serving = False
        await self._data_tasks.stop()
        await self.tasks.stop()

    def health(self) -> tuple[tuple[str, Any], ...]:
        """What there is to know of this node at a glance, by name."""
        chart = self.keyspace.cartography.chart
        policy = chart.ring.policy if chart is not None else Policy()
        traffic = self.data.traffic
        return (
            ("serving", self.serving),
            ("version", __version__),
            ("address", str(self.address)),
            ("consistency", policy.consistency),
            ("durability", policy.durability),
            ("replicas", policy.replicas),
            ("uptime", self._clock() - self._since),
            ("keepers", 0 if chart is None else len(chart.record.configuration.keepers)),
            ("straight", traffic.straight),
            ("astray", traffic.astray),
        )

    # -- bringing others in --------------------------------------------------------------------------------------

    async def admit(self, address: Address) -> Contact:
        """Bring the node at `address`, a ring of its own, into this ring right after this node's first member.

        Returns its contact. Nothing happens if it is here already. Raises WrongRing if it has company elsewhere.
        """
        hello = await hello_of(self, address)
        if hello.ring == self.identity.ring:
            return hello.members[0]
        if not hello.alone:
            raise WrongRing(f"{address} is in another ring with other nodes: let it leave that one first")
        here = self.residence.first
        place = Arc(here.me.id, here.state.successor.id).middle()
        adoption = messages.Adoption(self.identity.ring, here.me, place, self._record())
        await messages.ADOPT.ask(self.transport, address, adoption, deadline=4 * self.settings.lookup)
        return Contact(place, address)

    def _record(self) -> Record:
        chart = self.keyspace.cartography.chart
        if chart is None:
            raise NotAMember(f"{self.address} does not know the ring map yet: try again in a moment")
        return chart.record

    async def _adopted(self, adoption: messages.Adoption) -> None:
        """Leave this ring of one and join another, as a new life of the data directory; be a ring of one like before if
        that fails."""
        if adoption.ring == self.identity.ring:
            return
        if not self.serving or not self.residence.is_alone() or self.leaving:
            raise WrongRing(f"{self.address} is not alone in its ring")
        policy, members = unpack(RingMap, self._record().value).policy, len(self.residence.members)
        self.serving = False
        try:
            await self._give_up_if_empty()
        except RingError:
            self.serving = True
            raise
        await self.stop()
        try:
            await self._begin_anew()
            arrival = Arrival(self, StartOptions(members=members))
            await arrival.join(adoption.ring, adoption.record, adoption.seed, adoption.id)
            await self._remember()
        except RingError:
            await self._begin_anew()
            await Arrival(self, StartOptions.like(policy, members)).found()
            await self._remember()
            raise
        finally:
            self._begin_rounds()
        await self._be_seated(patient=False)
        await self._remember()
        Event.JOINED.tell(log, "brought into another ring by %s", adoption.seed.address)

    async def _give_up_if_empty(self) -> None:
        """Hold nothing any more. Raises WrongRing, and goes on, if there are keys."""
        await self._check_empty()
        await self.data.close()
        try:
            await self._check_empty()
        except WrongRing:
            await self.data.reopen()
            raise

    async def _check_empty(self) -> None:
        if keys := await self.store.count(EVERYTHING):
            raise WrongRing(
                f"{self.address} holds {keys} keys of its own ring: put them into this one, then start it anew"
            )

    async def _begin_anew(self) -> None:
        """Forget all of the ring this node was in."""
        self.residence.members.clear()
        self.identity = Identity(b"", self.random.randbytes(16), ())
        await self._forget()
        await self._open_keyspace()

    async def _forget(self) -> None:
        """Be of no ring, on the disk too: what a start that broke off left there is of a life that nobody knows."""
        batch = Batch()
        for prefix in (STATES, "log/", "eventual/", MAP, KEEPER, IDENTITY, KNOWN, BOOT):
            batch.forget_all(prefix)
        await self.store.commit(batch)

    # -- repair by force -------------------------------------------------------------------------------------------

    async def begin_generation(self, number: int) -> None:
        """Go on as another life, whose register is yet to be founded; what is held stays, in no chain."""
        await self.acceptor.retire()
        await self.keyspace.held.close()
        await self._data_tasks.stop()
        self.identity = await take_life(self.store, self.identity.in_generation(number, self.random.randbytes(16)))
        await self._open_keyspace()
        self.keyspace.claim(self.residence.members)
        self.data.begin()

    async def found_register(self, record: Record) -> Record:
        """Keep the ring map, which begins with this record, alone until other keepers are chosen."""
        await self.acceptor.found(record)
        await self.keyspace.cartography.learn(record)
        return record

    # -- greetings -----------------------------------------------------------------------------------------------

    def _hello(self) -> messages.Hello:
        members = tuple(Contact(each, self.address) for each in self.residence.members or self.identity.members)
        alone = self.serving and self.residence.is_alone()
        chart = self.keyspace.cartography.chart
        record = chart.record if chart is not None else NOTHING
        return messages.Hello(self.identity.node, self.identity.ring, self.serving, members, alone, record)
