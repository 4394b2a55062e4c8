"""How replicas come to agree: what was written is passed on at once, and whole arcs are compared again and again.

reminders   names of records that a node lacks as far as we know; kept while it is away
comparison  sums of an arc, then of its parts, then keys: only what differs travels
strays      records that this node holds and should not, taken for nodes that were away: compared with all who should
            hold them, then dropped here
burial      tombstones past the grace period go once the owner of an arc has compared it with all its replicas
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from random import Random

from node.batches import portions
from node.codec import Address, pack
from node.errors import NotServing, RingError, Unavailable
from node.eventual.agreed_time import MICROS, AgreedTime
from node.eventual.awake import Vigil
from node.eventual.cells import Cell
from node.eventual.messages import (
    BURY,
    CLOCK,
    COMPARE,
    FETCH,
    GIVE,
    SUMS,
    Burial,
    Cells,
    Differences,
    Listing,
    Sum,
)
from node.eventual.placement import Placement, before
from node.eventual.shelf import Shelf, divided, print_of
from node.identifiers import RING, Arc, Identifier, name_of
from node.settings import Settings
from node.tasks import Tasks
from node.transport import A, Method, Q, Switchboard, Transport

log = logging.getLogger(__name__)

BATCH = 500
"""Names looked at together."""
STRAYS = 5_000
"""Records handed over together."""
LEAF = 256
"""Records of an arc up to which its keys are listed instead of dividing it further."""


class Exchange:
    """The side of one node that gives and takes."""

    def __init__(
        self,
        shelf: Shelf,
        placement: Placement,
        time: AgreedTime,
        transport: Transport,
        settings: Settings,
        random: Random,
        tasks: Tasks,
        vigil: Vigil,
    ) -> None:
        self._shelf = shelf
        self._placement = placement
        self._time = time
        self._transport = transport
        self._settings = settings
        self._random = random
        self._tasks = tasks
        self._vigil = vigil
        self._owed: dict[Address, dict[bytes, None]] = {}
        self._settled: list[Arc] = []
        self._buried_at = 0
        self.wanted = asyncio.Event()
        self.closing = False
        """This node gives away all it has, and takes nothing any more."""

    def connect(self, receive: Switchboard) -> None:
        """Answer others."""
        receive.connect(SUMS, self._summed)
        receive.connect(COMPARE, self._compared)
        receive.connect(FETCH, self._fetched)
        receive.connect(GIVE, self._given)
        receive.connect(BURY, self._bury)
        receive.connect(CLOCK, self._clock)

    def is_settled(self, point: Identifier) -> bool:
        """Whether this node has what others had of a point when it came to own it."""
        return any(point in arc for arc in self._settled)

    # -- passing on ---------------------------------------------------------------------------------------------------

    async def pass_on(self, key: bytes) -> None:
        """Bring a record to all its replicas in the background."""
        for node in await self._placement.replicas_at(Identifier.of_key(key)):
            if node != self._placement.here:
                self._owe(node, key)

    def _owe(self, node: Address, key: bytes) -> None:
        owed = self._owed.get(node)
        if owed is None:
            owed = self._owed[node] = {}
            self._tasks.spawn(self._deliver(node, owed))
        owed[key] = None
        if len(owed) > self._settings.reminders:
            del owed[next(iter(owed))]

    async def _deliver(self, node: Address, owed: dict[bytes, None]) -> None:
        """Bring a node what it lacks, until nothing is left or it is no replica of anything any more."""
        pause = self._settings.backoff
        while owed:
            keys = list(owed)[:BATCH]
            for key in keys:
                del owed[key]  # what is written from now on is owed again
            try:
                await self._give(node, keys)
            except RingError as error:
                for key in keys:
                    self._owe(node, key)
                log.debug("%s is owed %d records: %s", node, len(owed), error)
                await self._attempt(self._excuse(node, owed, keys))
                await asyncio.sleep(pause * self._random.uniform(0.5, 1))
                pause = min(2 * pause, self._settings.backoff_limit)
            else:
                pause = self._settings.backoff
        del self._owed[node]

    async def _excuse(self, node: Address, owed: dict[bytes, None], keys: Iterable[bytes]) -> None:
        """What a node should not hold any more it is not owed any more."""
        for key in keys:
            if node not in await self._placement.replicas_at(Identifier.of_key(key)):
                owed.pop(key, None)

    async def repair(self, key: bytes) -> None:
        """Compare one record with another replica of it: somebody reads it."""
        nodes = await self._placement.replicas_at(Identifier.of_key(key))
        others = [node for node in nodes if node != self._placement.here]
        if others:
            (cell,) = await self._shelf.read([key])
            await self._exchange(self._random.choice(others), None, {key: print_of(name_of(key), cell)})

    # -- comparing ----------------------------------------------------------------------------------------------------

    async def compare(self, arc: Arc, node: Address, *, give: bool = True) -> None:
        """Have the same as another node in an arc; without `give`, have what it has. Raises RingErrors of the network,
        StoreFull."""
        arcs: tuple[Arc, ...] = (arc,)
        while arcs:
            theirs = await self._ask(SUMS, node, arcs)
            mine = await self._sums(arcs)
            parts: list[Arc] = []
            for each, one, other in zip(arcs, mine, theirs, strict=True):
                if one.total != other.total:
                    pieces = divided(each)
                    if len(pieces) == 1 or one.records + other.records <= LEAF:
                        await self._exchange(node, each, await self._shelf.listing(each, self._horizon()), give=give)
                    else:
                        parts += pieces
            arcs = tuple(parts)

    async def _exchange(
        self, node: Address, arc: Arc | None, listing: dict[bytes, bytes], *, give: bool = True
    ) -> None:
        differences = await self._ask(COMPARE, node, Listing(arc, tuple(listing.items())))
        keys, wanted = differences.other, dict.fromkeys(differences.wanted)
        while keys:
            fetched = (await self._ask(FETCH, node, keys[:BATCH])).cells
            merged = await self._shelf.merge(fetched, self._time.micros())
            if not fetched:
                raise Unavailable(f"{node} gave nothing of {len(keys)} records: try again")
            keys = keys[len(fetched) :]
            pairs = zip(merged, fetched, strict=True)
            wanted |= {key: None for (key, now), (_, theirs) in pairs if now != theirs}  # what is buried was not listed
        lacking = list(wanted) if give else []
        for at in range(0, len(lacking), BATCH):
            await self._give(node, lacking[at : at + BATCH])

    async def _give(self, node: Address, keys: Iterable[bytes]) -> None:
        keys = list(keys)
        while keys:
            cells = await self._some(keys)
            keys = keys[len(cells) :]
            answer = await self._ask(GIVE, node, Cells(tuple((key, cell) for key, cell in cells if cell)))
            await self._shelf.merge(answer.cells, self._time.micros())

    async def _some(self, keys: list[bytes]) -> list[tuple[bytes, Cell]]:
        """The records of the first of these keys, as many as make up one message, at least one."""
        chosen: list[tuple[bytes, Cell]] = []
        size = 0
        for key, cell in zip(keys, await self._shelf.read(keys), strict=True):
            size += len(pack((key, cell)))
            if chosen and size > self._settings.chunk:
                break
            chosen.append((key, cell))
        return chosen

    async def _ask(self, method: Method[Q, A], node: Address, question: Q) -> A:
        return await method.ask(self._transport, node, question, deadline=self._settings.call)

    # -- answering ----------------------------------------------------------------------------------------------------

    async def _summed(self, arcs: tuple[Arc, ...]) -> tuple[Sum, ...]:
        self.check_open()
        return await self._sums(arcs)

    async def _sums(self, arcs: tuple[Arc, ...]) -> tuple[Sum, ...]:
        return tuple([await self._shelf.sum(arc) for arc in arcs])

    async def _compared(self, question: Listing) -> Differences:
        self.check_open()
        theirs = dict(question.records)
        if question.arc is not None:
            mine = await self._shelf.listing(question.arc, self._horizon())
        else:
            cells = zip(theirs, await self._shelf.read(theirs), strict=True)
            mine = {key: print_of(name_of(key), cell) for key, cell in cells}
        differing = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        held = dict(zip(differing, await self._shelf.read(differing), strict=True))
        return Differences(
            tuple(key for key in differing if held[key]), tuple(key for key in differing if key in theirs)
        )

    async def _fetched(self, keys: tuple[bytes, ...]) -> Cells:
        return Cells(tuple(await self._some(list(keys))))

    def check_open(self) -> None:
        """Raises NotServing once this node leaves."""
        if self.closing:
            raise NotServing(f"{self._placement.here} leaves the ring: ask another node")

    async def _given(self, question: Cells) -> Cells:
        self.check_open()
        merged = await self._shelf.merge(question.cells, self._time.micros())
        return Cells(tuple(now for now, given in zip(merged, question.cells, strict=True) if now != given))

    async def _bury(self, burial: Burial) -> None:
        await self._shelf.bury(burial)

    async def _clock(self, _: None) -> int:
        return self._time.own()

    def _horizon(self) -> int:
        return self._time.micros() - self._shelf.grace

    # -- rounds -------------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Round after round, until cancelled; at once when the ring has changed."""
        while True:
            self.wanted.clear()
            settled = await self.round()
            period = self._settings.compare_period if settled else self._settings.stabilize_period
            try:
                async with asyncio.timeout(period * self._random.uniform(0.75, 1.25)):
                    await self.wanted.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(self._settings.stabilize_period / 4)  # changes come in flocks

    async def round(self) -> bool:
        """Compare all that is held here with those who should hold it; whether that was done."""
        now = self._time.micros()
        burying = self._vigil.forgets() and now - self._buried_at > self._shelf.grace // 10
        if burying:
            self._buried_at = now
        done = [await self._tend(arc, others, burying) for arc, others in self._placement.own()]
        self._settled = [arc for arc, _ in self._placement.own() if self._covered(arc)]
        return all(done) and await self._hand_over_strays()

    def _covered(self, arc: Arc) -> bool:
        left = [arc]
        for settled in self._settled:
            left = [piece for part in left for piece in part.minus(settled)]
        return not left

    async def _tend(self, arc: Arc, others: list[Address], burying: bool) -> bool:
        """Compare an arc of our own with its other replicas; one that is new to us also with who had it before. Then
        all of them have the same tombstones, and old ones may go."""
        share = self._placement.replicas - 1
        former = [] if self._covered(arc) else others[share:]
        began = self._time.micros()
        steps = [self._compare_in_time(arc, node) for node in others[:share]]
        steps += [self.compare(arc, node, give=False) for node in former]
        done = all(await asyncio.gather(*map(self._attempt, steps)))
        if done:
            self._settled.append(arc)
            if burying:
                await self._attempt(self._forget_tombstones(arc, others[:share], began))
        return done

    async def _compare_in_time(self, arc: Arc, node: Address) -> None:
        asked = asyncio.get_running_loop().time()
        self._time.sampled(node, await self._ask(CLOCK, node, None), asked)
        await self.compare(arc, node)

    async def _forget_tombstones(self, arc: Arc, others: list[Address], compared: int) -> None:
        """Let go of what is old and was here before the comparison that began then: by more than clocks differ, and
        commits take."""
        burial = Burial(arc, compared - self._shelf.grace, compared - 2 * int(self._settings.max_future * MICROS))
        await self._shelf.bury(burial)
        for node in others:  # one may have got here what it lacked after all others had let go of theirs
            await self._ask(BURY, node, burial)

    async def _hand_over_strays(self) -> bool:
        done = True
        try:
            async for arc, nodes in self._held_arcs():
                replicas = nodes[: self._placement.replicas]
                if self._placement.here not in replicas:
                    done = await self._attempt(self._hand_over(arc, replicas)) and done
        except RingError as error:
            log.debug("%s; trying again", error)
            return False
        return done

    async def _held_arcs(self) -> AsyncIterator[tuple[Arc, list[Address]]]:
        """Where anything is held: arcs of one owner each, which do not pass zero, and the nodes that follow."""
        point = self._shelf.next_held(0)
        while point is not None:
            end, _ = await self._placement.owner(Identifier(point))
            last = int(end) if end >= point else RING - 1
            yield Arc(before(point), Identifier(last)), await self._placement.at(Identifier(point))
            point = self._shelf.next_held(last + 1) if last + 1 < RING else None

    async def _hand_over(self, arc: Arc, nodes: Iterable[Address]) -> None:
        """Have nodes hold these records of ours, and let go of them. Only those are compared: this node wants no
        others of the arc."""
        listing = await self._shelf.listing(arc, 0)
        for some in portions(listing.items(), lambda listed: len(listed[0]) + len(listed[1]), most=STRAYS):
            for node in nodes:
                await self._exchange(node, None, dict(some))
            await self._shelf.drop(some)

    async def part(self) -> None:
        """Take nothing more, and give others all that is here. Raises RingErrors of the network: try again."""
        self.closing = True
        async for arc, nodes in self._held_arcs():
            await self._give_to_some(arc, [node for node in nodes if node != self._placement.here])

    async def _give_to_some(self, arc: Arc, nodes: list[Address]) -> None:
        """Have as many of these nodes hold all of an arc as should; those that leave too are passed by."""
        missing = self._placement.replicas
        failure: RingError | None = None
        for node in nodes:
            try:
                await self.compare(arc, node)
            except RingError as error:
                failure = error
            else:
                missing -= 1
                if not missing:
                    return
        if failure is not None and missing == self._placement.replicas:
            raise failure

    async def _attempt(self, step: Awaitable[None]) -> bool:
        try:
            await step
        except RingError as error:
            log.debug("%s; trying again", error)
            return False
        return True
