"""A node of the ring without its wire: members on the ring, replicas in chains, and how the two come up and go.

The same object runs over RPyC on real hosts and over virtual time in simulation; it is given its address, a store, a
transport, a seeded Random and a clock that counts suspended time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from node.identifiers import BITS, EVERYTHING, Arc, Identifier
from node.register.acceptor import NOTE as KEEPER
from node.register.acceptor import Acceptor
from node.register.keepers import NOTHING, Keepers
from node.register.messages import Configuration, Keeper, Record
from node.replication import messages
from node.replication.identity import BOOT, IDENTITY, Identity, recognized, stopped_cleanly, take_life, trust_page_cache
from node.replication.repair import Repair
from node.settings import Settings
from node.store.interface import Batch, Store
from node.tasks import Tasks
from node.transport import Switchboard, Transport

log = logging.getLogger(__name__)

KNOWN = "known"
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
        await node._open_keyspace()
        return node

    async def _open_keyspace(self) -> None:
        """The replicas and the acceptor of this life of the data directory."""
        life = self.identity.node
        self._acceptor = await Acceptor.load(self.store, life, self.settings, self._clock)
        known = await Keyspace.known_record(self.store)
        register = Keepers(self.transport, self.settings, self.random, self._clock, life, known or NOTHING)
        resident = Resident(life, self.address, self._zone)
        arguments = (resident, self.store, self.transport, self.settings, self.random, self._clock, self._wall)
        self.keyspace = Keyspace(*arguments, self._data_tasks, register)
        self.keyspace.cartography.generation = self.identity.generation
        self.keyspace.connect(self.receive)
        self._acceptor.connect(self.receive)
        if known is not None:
            await self._take_up(unpack(RingMap, known.value).policy)

    async def _take_up(self, policy: Policy) -> None:
        """Hold data as the ring does, on what the store left."""
        if policy.consistency == "chain":
            if policy.durability == "os":
                await trust_page_cache(self.store, self._boot)
            await self.keyspace.load()
            self.data = self.keyspace
            return
        self.store.wait_for_disk(policy.durability == "fsync")
        arguments = (self.household, self.store, self.transport, self.settings, self.random, self._wall, self.tasks)
        commons = await Commons.open(*arguments, self.identity.node, policy.replicas, policy.siblings)
        commons.connect(self.receive)
        self.data = commons

    # -- coming up -----------------------------------------------------------------------------------------------

    async def start(self, options: StartOptions) -> None:
        """Found a ring, join one, or rejoin the one the store belongs to.

        Raises WrongRing, IdTaken, BadUsage, and RingErrors of the network if the first node does not answer.
        """
        if options.first == self.address:
            raise BadUsage(f"{options.first} is this node itself: give the address of another node of the ring")
        if options.zone is not None:
            self._zone = options.zone
            self.keyspace.resident = Resident(self.identity.node, self.address, self._zone)
        if self.identity.ring:
            self._check_ids(options)
            await self._start_again(options)
            how = "back in its ring"
        elif options.first is None:
            await self._found(options)
            how = "founded a ring"
        else:
            await self._join(options, options.first)
            how = f"in the ring of {options.first}"
        self._begin_rounds()
        await self._be_seated(patient=bool(self.identity.members))
        await self._remember()
        Event.JOINED.tell(log, "%s, with the ids %s", how, " ".join(each.hex for each in self.identity.members))

    def _begin_rounds(self) -> None:
        self.data.begin()
        for rounds in (self._keep_acquainted, self._keep_known):
            self.tasks.spawn(rounds())
        self.serving = True

    def _check_ids(self, options: StartOptions) -> None:
        if options.id is not None and options.id not in self.identity.members:
            mine = ", ".join(member.hex for member in self.identity.members)
            raise BadUsage(f"this data directory has the id {mine}: leave --id out, or use another directory")

    async def _found(self, options: StartOptions) -> None:
        """Be a ring of one, which holds everything and keeps its map itself."""
        self._belong_to(self.random.randbytes(16), 0)
        self.household.found(options.id or Identifier(self.random.getrandbits(BITS)))
        policy = self._policy(options)
        await self._take_up(policy)
        chains = policy.consistency == "chain"
        ring = RingMap.founded(policy, self.keyspace.resident, self.residence.members) if chains else RingMap(policy)
        record = Record(1, b"", pack(ring), Configuration((Keeper(self.identity.node, self.address),)))
        await self._acceptor.found(record)
        if chains:
            await self.keyspace.found(ring)
        await self.keyspace.cartography.learn(record)
        await self._fill(self.residence.first.me, options)

    def _policy(self, options: StartOptions) -> Policy:
        """Of a ring that begins here. Raises BadUsage for what does not go together."""
        named = {name: value for name in POLICY if (value := getattr(options, name)) is not None}
        policy = Policy(**named)
        if policy.siblings and policy.consistency == "chain":
            raise BadUsage("--siblings needs --consistency eventual: in a chain no two values stand side by side")
        if policy.consistency == "eventual" and policy.replicas > self.settings.successors:
            raise BadUsage(f"--replicas {policy.replicas} is too many for an eventual ring: {self.settings.successors}")
        return policy

    async def _join(self, options: StartOptions, first: Address) -> None:
        """Be part of the ring of another node."""
        hello = await self.household.insisting(partial(self._hello_of, first))
        self._belong_to(hello.ring, hello.record.generation)
        await self._learn(hello.record, options)
        await self.household.join(hello.members[0], options.id)
        await self._fill(hello.members[0], options)

    async def _learn(self, record: Record, options: StartOptions) -> None:
        """Take the ring's map and what it says about the ring. Raises BadUsage if something else was asked for."""
        policy = unpack(RingMap, record.value).policy
        for name in POLICY:
            asked, there = getattr(options, name), getattr(policy, name)
            if asked is not None and asked != there:
                raise BadUsage(f"this ring has --{name} {there}, not {asked}: leave --{name} out")
        await self._take_up(policy)
        await self.keyspace.cartography.learn(record)

    async def _fill(self, through: Contact, options: StartOptions) -> None:
        while len(self.residence.members) < options.members:
            await self.household.join(through, None)

    async def _start_again(self, options: StartOptions) -> None:
        """Rejoin: through a member that serves; or, if all of the ring is coming up again, together with the others."""
        self.neighbours.ring = self.identity.ring
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
        await self._fill(through, options)

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
                await self.keyspace.cartography.learn(hello.record)
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
                Event.WAITING.tell(
                    log,
                    "waiting for the ring of this data directory: none of %s serves",
                    ", ".join(map(str, addresses)),
                )
            await asyncio.sleep(self.settings.regroup * self.random.uniform(0.1, 0.3))

    def _belong_to(self, ring: bytes, generation: int) -> None:
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
            hello = await self._hello_if_any(self.random.choice(strangers)) if strangers else None
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
        hello = await self._hello_of(address)
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
        """Leave this ring of one and join another, as a new life of the data directory."""
        if adoption.ring == self.identity.ring:
            return
        if not self.serving or not self.residence.is_alone() or self.leaving:
            raise WrongRing(f"{self.address} is not alone in its ring")
        keys = await self.store.count(EVERYTHING)
        if keys:
            raise WrongRing(
                f"{self.address} holds {keys} keys of its own ring: put them into this one, then start it anew"
            )
        options = StartOptions(members=len(self.residence.members))
        await self.stop()
        try:
            await self._begin_anew()
            self._belong_to(adoption.ring, adoption.record.generation)
            await self._learn(adoption.record, options)
            await self.household.join(adoption.seed, adoption.id)
            await self._fill(adoption.seed, options)
        except RingError:
            await self._begin_anew()
            await self._found(options)
            raise
        finally:
            self._begin_rounds()
        await self._be_seated(patient=False)
        await self._remember()
        Event.JOINED.tell(log, "brought into another ring by %s", adoption.seed.address)

    async def _begin_anew(self) -> None:
        """Forget all of the ring this node was in."""
        self.residence.members.clear()
        self.identity = Identity(b"", self.random.randbytes(16), ())
        batch = Batch()
        for prefix in (STATES, "log/", "eventual/", MAP, KEEPER, IDENTITY, KNOWN, BOOT):
            batch.forget_all(prefix)
        await self.store.commit(batch)
        await self._open_keyspace()

    # -- repair by force -------------------------------------------------------------------------------------------

    async def begin_generation(self, number: int) -> None:
        """Go on as another life, whose register is yet to be founded; what is held stays, in no chain."""
        await self._acceptor.retire()
        await self.keyspace.held.close()
        await self._data_tasks.stop()
        self.identity = await take_life(self.store, self.identity.in_generation(number, self.random.randbytes(16)))
        await self._open_keyspace()
        self.keyspace.claim(self.residence.members)
        self.data.begin()

    async def found_register(self, record: Record) -> Record:
        """Keep the ring map, which begins with this record, alone until other keepers are chosen."""
        await self._acceptor.found(record)
        await self.keyspace.cartography.learn(record)
        return record

    # -- greetings -----------------------------------------------------------------------------------------------

    async def _hello_of(self, address: Address) -> messages.Hello:
        """The greeting of a node that is in a ring. Raises NotAMember if it has not come up yet."""
        hello = await messages.HELLO.ask(self.neighbours.transport, address, None, deadline=self.settings.call)
        if not (hello.serving and hello.members):
            raise NotAMember(f"{address} has not joined a ring yet: try again in a moment")
        return hello

    async def _hello_if_any(self, address: Address) -> messages.Hello | None:
        try:
            return await messages.HELLO.ask(self.neighbours.transport, address, None, deadline=self.settings.call)
        except (Definite, OutcomeUnknown):
            return None

    def _hello(self) -> messages.Hello:
        members = tuple(Contact(each, self.address) for each in self.residence.members or self.identity.members)
        alone = self.serving and self.residence.is_alone()
        chart = self.keyspace.cartography.chart
        record = chart.record if chart is not None else NOTHING
        return messages.Hello(self.identity.node, self.identity.ring, self.serving, members, alone, record)
