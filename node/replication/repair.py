"""Repair by force: what is left of a ring goes on without what is lost for good, in another *generation* of the ring.

That takes a person once most keepers of the ring map are lost, or all replicas of an arc, or all their disks forgot
what they acknowledged: nobody else knows that they do not come back.

    survey      who answers, and what each holds
    generation  each survivor takes a new life, so that nobody of before counts on it: not the old keepers, should they
                come back, nor old members of chains. It has promised nothing to anybody any more
    restore     the best of what is left of each arc is made a full member of its next chain
    found       a new register with a map of the survivors, whose revisions are beyond all that the old one can reach
    tell        the survivors. They learn it too from whomever they meet

Who meets a map of a later generation than his own was given up: he says so and ends. Nothing here is done without a
person who was told what may be lost. It can be broken off and begun again at any step.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.chain import salvage
from node.chain.cartography import Chart
from node.chain.messages import NEWS
from node.chain.ring_map import Life, Resident, RingMap
from node.chain.salvage import Finding, Generation, Holdings, Restore
from node.codec import Address, pack, unpack
from node.errors import BadUsage, Conflict, NoQuorum, OutcomeUnknown, RingError, Unavailable, Unreachable, WrongRing
from node.events import Event
from node.register.messages import GENERATION, Configuration, Keeper, Record
from node.transport import A, Method, Q, Switchboard

if TYPE_CHECKING:
    from node.replication.node import RingNode

log = logging.getLogger(__name__)

LOOKS = 3
"""How often a node is asked what it holds before it counts as lost."""
ATTEMPTS = 5
"""How often a survivor is asked for one step. All can be repeated."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a repair would give up and go on with; `token` confirms it."""

    token: str
    lost: tuple[Address, ...]
    arcs: tuple[tuple[Finding, tuple[Address, ...], int], ...]
    """Each with the nodes it goes on with, and how many keys the first one has."""


class Repair:
    """Repairs as one node takes part in them, or leads them."""

    def __init__(self, node: RingNode) -> None:
        self._node = node
        self._one = asyncio.Lock()
        self._begun = b""
        """The repair in which this life was taken."""

    def connect(self, receive: Switchboard) -> None:
        """Answer whoever leads one."""
        receive.connect(salvage.SURVEY, self._survey)
        receive.connect(salvage.BEGIN_GENERATION, self._begin_generation)
        receive.connect(salvage.RESTORE, self._restore)
        receive.connect(salvage.COUNT, self._node.store.count)

    # -- taking part -------------------------------------------------------------------------------------------------

    async def _survey(self, _: None) -> Holdings:
        node, chart = self._node, self._node.keyspace.cartography.chart
        if chart is None or not node.serving:
            raise Unavailable(f"{node.address} has not come up yet: try again in a moment")
        identity = node.identity
        members = tuple(node.residence.members)
        held = tuple(node.keyspace.held.surveyed(identity.former, sound=not identity.doubtful))
        return Holdings(identity.ring, identity.generation, node.keyspace.resident, members, chart.record, held)

    async def _begin_generation(self, question: Generation) -> Holdings:
        async with self._one:
            identity = self._node.identity
            if question.ring != identity.ring:
                raise WrongRing(f"{self._node.address} is in another ring")
            if question.name != self._begun:
                if question.number <= identity.generation:
                    raise Conflict(f"{self._node.address} takes part in another repair: look again")
                await self._node.begin_generation(question.number)
                self._begun = question.name
            return await self._survey(None)

    async def _restore(self, question: Restore) -> None:
        async with self._one:
            if question.life != self._node.identity.node:
                raise Conflict(f"{self._node.address} takes part in another repair: look again")
            for arc in question.held:
                await self._node.keyspace.held.restore(arc, question.epoch)
            for arc in question.empty:
                await self._node.keyspace.held.begin_empty(arc, question.epoch)

    # -- leading -----------------------------------------------------------------------------------------------------

    async def prospect(self) -> Prospect:
        """What a repair would come to. Raises BadUsage where none is needed."""
        return await self._prospect(await self._survivors())

    async def carry_out(self, token: str) -> Prospect:
        """Do what the token stands for; what came of it. Raises BadUsage if that has changed, and RingErrors if it
        broke off, after which it can be begun again."""
        survivors = await self._survivors()
        if (await self._prospect(survivors)).token != token:
            raise BadUsage("what would be lost is not what was confirmed any more: look again, then confirm that")
        number = max(each.generation for each in survivors.values()) + 1
        Event.FORCED_REPAIR.tell(log, "generation %s of the ring begins with %s nodes", number, len(survivors))
        question = Generation(self._node.identity.ring, number, self._node.random.randbytes(16))
        begin = (self._ask(each.resident, salvage.BEGIN_GENERATION, question) for each in survivors.values())
        reborn = {each.resident.life: each for each in await asyncio.gather(*begin)}
        ring = unpack(RingMap, salvage.latest_map(reborn.values()).value)
        found = salvage.findings(ring, reborn)
        epoch = salvage.last_epoch(ring, reborn.values())
        await asyncio.gather(*(self._restored(each.resident, found, epoch) for each in reborn.values()))
        await asyncio.sleep(self._node.settings.lease)  # nobody's lease of before runs any more
        after = salvage.rebuilt(ring, reborn, found, epoch)
        me = self._node.keyspace.resident
        keeper = Configuration((Keeper(me.life, me.address),))
        record = await self._node.found_register(Record(number * GENERATION + 1, b"", pack(after), keeper))
        tellings = (self._ask(each.resident, NEWS, record) for each in reborn.values())
        for error in await asyncio.gather(*tellings, return_exceptions=True):
            if isinstance(error, BaseException):
                log.warning("repair: a node will learn of the new map later: %s", error)
        return await self._prospect_of(ring, reborn, found)

    async def _survivors(self) -> dict[Life, Holdings]:
        """Who answers. Raises BadUsage if most keepers do, and some of every chain: then nothing is to be given up."""
        node = self._node
        if node.data is not node.keyspace:
            raise BadUsage("an eventual ring has no keepers: it goes on with whoever is left by itself")
        try:
            kept: Chart | None = await node.keyspace.cartography.current()
        except NoQuorum:
            kept = None
        chart = node.keyspace.cartography.chart
        named = {resident.address for resident in chart.ring.residents} if chart is not None else set()
        named |= {contact.address for contact in node.household.acquaintances.known()}
        answers = await asyncio.gather(*(self._asked(address) for address in sorted(named | {node.address}, key=str)))
        mine = [each for each in answers if each is not None and each.ring == node.identity.ring]
        survivors = {each.resident.life: each for each in mine}
        if kept is not None and all(set(entry.chain) & set(survivors) for entry in kept.ring.entries):
            raise BadUsage("most keepers of the ring map answer, and a replica of every arc: the ring mends itself")
        return survivors

    async def _asked(self, address: Address) -> Holdings | None:
        node = self._node
        for _ in range(LOOKS):
            try:
                return await salvage.SURVEY.ask(node.transport, address, None, deadline=node.settings.call)
            except RingError as error:
                log.info("repair: %s: %s", address, error)
        return None

    async def _prospect(self, survivors: dict[Life, Holdings]) -> Prospect:
        ring = unpack(RingMap, salvage.latest_map(survivors.values()).value)
        return await self._prospect_of(ring, survivors, salvage.findings(ring, survivors))

    async def _prospect_of(
        self, ring: RingMap, survivors: dict[Life, Holdings], found: tuple[Finding, ...]
    ) -> Prospect:
        there = {each.resident.address for each in survivors.values()}
        lost = [resident for resident in ring.residents if resident.address not in there]
        residents = [[survivors[life].resident for life in each.chain] for each in found]
        counts = await asyncio.gather(*(self._count(each, at[0]) for each, at in zip(found, residents, strict=True)))
        where = (tuple(resident.address for resident in each) for each in residents)
        arcs = tuple(zip(found, where, counts, strict=True))
        return Prospect(salvage.token(lost, found), tuple(dict.fromkeys(each.address for each in lost)), arcs)

    async def _count(self, finding: Finding, at: Resident) -> int:
        return 0 if finding.problem == salvage.LOST else await self._ask(at, salvage.COUNT, finding.arc)

    async def _restored(self, resident: Resident, found: tuple[Finding, ...], epoch: int) -> None:
        mine = [each for each in found if resident.life in each.chain]
        held = tuple(each.arc for each in mine if each.problem != salvage.LOST)
        empty = tuple(each.arc for each in mine if each.problem == salvage.LOST)
        await self._ask(resident, salvage.RESTORE, Restore(resident.life, epoch, held, empty))

    async def _ask(self, resident: Resident, method: Method[Q, A], question: Q) -> A:
        """One step of one survivor. Raises what it raises, and RingErrors of the network once they have lasted."""
        node = self._node
        for attempt in range(ATTEMPTS):
            try:
                return await method.ask(node.transport, resident.address, question, deadline=node.settings.leave)
            except (OutcomeUnknown, Unreachable) as error:
                log.info("repair: %s: %s", resident.address, error)
                if attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(node.settings.backoff * 2**attempt)
        raise AssertionError("not reached")
