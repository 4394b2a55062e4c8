"""All replicas of one node: loading them, and every step in which their arcs or epochs change.

Each step is one batch of the store, and what it gives up it gives up before the batch, what it gains it gains after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count

from msgspec.structs import replace

from node.chain.history import log_name, log_prefix
from node.chain.messages import Logged, Operation, ReplicaState, Sealed, marks
from node.chain.recent import Recent
from node.chain.replica import Replica, Spawn
from node.chain.ring_map import Entry, Life, RingMap
from node.chain.salvage import Held
from node.codec import pack, unpack
from node.data import Version
from node.errors import Moved, RingError, StoreFull
from node.identifiers import EVERYTHING, Arc, Identifier, Name, position_of
from node.store.interface import Batch, Store

log = logging.getLogger(__name__)

STATES = "replica/"


class Replicas:
    """The replicas of one node, none overlapping another."""

    def __init__(self, store: Store, spawn: Spawn, clock: Callable[[], float], life: Life) -> None:
        self.store = store
        self.life = life
        self._spawn = spawn
        self._clock = clock
        self._all: list[Replica] = []
        self._uids = count(1)
        self._one_step = asyncio.Lock()
        self._ring: RingMap | None = None
        """The latest map."""

    async def load(self) -> None:
        """What the store left. Records of arcs that no replica stands for, left by a copy that was broken off, go."""
        for name, note in (await self.store.read_notes(STATES)).items():
            uid = int(name.removeprefix(STATES), 16)
            self._uids = count(uid + 1)
            notes = (await self.store.read_notes(log_prefix(uid))).items()
            logged = {int(each.removeprefix(log_prefix(uid)), 16): unpack(Logged, body) for each, body in notes}
            self._all.append(self._replica(uid, unpack(ReplicaState, note), logged))
        batch = Batch()
        for arc in subtract((EVERYTHING,), (replica.arc for replica in self._all)):
            batch.delete_arc(arc)
        await self.store.commit(batch)

    def __iter__(self) -> Iterator[Replica]:
        return iter(tuple(self._all))

    def at(self, position: Identifier) -> Replica | None:
        """The replica that holds a position."""
        return self.holding((position.packed,))

    def holding(self, names: Sequence[Name]) -> Replica | None:
        """The replica that holds all of these, one at least."""
        for replica in self._all:
            if replica.arc.holds(names[:1]):
                return replica if replica.arc.holds(names) else None
        return None

    def of(self, arc: Arc) -> Replica | None:
        """The replica of exactly this arc."""
        return next((replica for replica in self._all if replica.arc == arc), None)

    def within(self, arc: Arc) -> list[Replica]:
        """Those that overlap an arc."""
        return [replica for replica in self._all if replica.arc.overlaps(arc)]

    # -- steps -------------------------------------------------------------------------------------------------------

    async def found(self, entry: Entry) -> Replica:
        """Be the first replica of an arc, empty."""
        async with self._one_step:
            state = ReplicaState(entry.arc, entry.epoch, entry.chain, 0, (entry.epoch, 0))
            (replica,) = await self._become([], [state])
            return replica

    async def seal(self, arc: Arc, epoch: int, spell: float = 0.0) -> Sealed:
        """Take nothing of epochs up to `epoch` any more in this arc, durably. How far the content of it goes.

        Raises Moved if the arc is not held here whole, or is part of another one by now.
        """
        async with self._one_step:
            if any(replica.arc != arc and replica.state.epoch > epoch for replica in self.within(arc)):
                raise Moved(f"{arc} is not an arc any more", None)
            replica = await self._exactly(arc)
            replica.expect_change(spell)
            if replica.state.sealed < epoch:
                replica.become(replace(replica.state, sealed=epoch))
            if replica.sealed_on_disk < epoch:
                await replica.at_rest()
                await self._note(replica, replica.state)
            return Sealed(replica.position)

    def supersede(self, ring: RingMap) -> None:
        """Stop following where the map has a later epoch, in the chain of which this node may be or not. A lease holds
        for what the map says that it was granted under: this comes before such a lease counts."""
        self._ring = ring
        self._stop_following()

    def _stop_following(self) -> None:
        """Where the latest map has a later epoch: it may have come while a step was on its way to the disk. Of an arc
        that was split since the part that is least far counts: this node may be in the chain of it."""
        if (ring := self._ring) is None:
            return
        for replica in self._all:
            state = replica.state
            over = min((entry.epoch for entry in ring.within(replica.arc)), default=0) - 1
            if over >= state.epoch and over > state.sealed:
                replica.become(replace(state, sealed=over))

    async def adopt(self, entry: Entry) -> Replica | None:
        """Follow in a later epoch, durably; the replica, None if this entry is nothing new here.

        The chain of the entry holds this node, so its content is here: it was sealed as a member of the chain before,
        or prepared as a newcomer.
        """
        async with self._one_step:
            held = self.within(entry.arc)
            if any(max(replica.state.epoch, replica.state.sealed) >= entry.epoch for replica in held):
                return None
            if len(held) > 1 or (held and held[0].arc != entry.arc and not subtract((held[0].arc,), (entry.arc,))):
                replica = await self._merge(held, entry)
            else:
                replica = await self._exactly(entry.arc)
            state = ReplicaState(entry.arc, entry.epoch, entry.chain, replica.state.sealed, replica.state.base)
            await replica.at_rest()
            await self._note(replica, state)
            replica.become(state)
            self._stop_following()
            log.debug("%s adopts %s", self.life.hex()[:8], replica)
            return replica

    async def prepare(self, arc: Arc, epoch: int, position: Version, logged: tuple[Logged, ...]) -> None:
        """The copy of an arc, frozen in `epoch`, is complete and durable: be a sealed replica of it, durably."""
        async with self._one_step:
            now = self._clock()
            mine = [replace(each, at=now) for each in logged]
            await self._become(self.within(arc), [ReplicaState(arc, 0, (), epoch, position)], None, mine)

    async def restore(self, arc: Arc, epoch: int) -> None:
        """Be a sealed replica of an arc with what is held of it, durably, though it is of no chain that counts."""
        async with self._one_step:
            replica = await self._exactly(arc)
            await replica.at_rest()
            state = ReplicaState(arc, 0, (), epoch, replica.state.base)
            await self._note(replica, state)
            replica.become(state)

    def surveyed(self, former: tuple[Life, ...], *, sound: bool) -> Iterator[Held]:
        """What is held. Replicas of chains of this life, or of a former one that gave them up in good order, are
        sound; those of copies that had no chain yet if `sound`."""
        lives = {self.life, *former}
        for replica in self._all:
            state = replica.state
            safe = bool(lives & set(state.chain)) or (sound and not state.chain)
            yield Held(replica.arc, state.epoch or state.sealed, replica.position, safe)

    async def close(self) -> None:
        """Hold nothing any more, for good; what is on the disk stays there. Done once nothing is on its way to it."""
        async with self._one_step:
            closed, self._all = self._all, []
            for replica in closed:
                replica.end()
            for replica in closed:
                await replica.at_rest()

    async def begin_empty(self, arc: Arc, epoch: int) -> None:
        """Be a sealed replica of an arc, frozen in `epoch`, that holds nothing."""
        async with self._one_step:
            batch = Batch()
            batch.delete_arc(arc)
            await self._become(self.within(arc), [ReplicaState(arc, 0, (), epoch, (epoch, 0))], batch)

    async def release(self, arc: Arc) -> None:
        """Stand for nothing of an arc any more; its records stay until a copy has put them right, or the next start."""
        async with self._one_step:
            for part in [part for replica in self.within(arc) for part in replica.arc.intersect(arc)]:
                replica = await self._exactly(part)
                await replica.at_rest()
                await self._become([replica], [])

    async def retire(self, arc: Arc) -> None:
        """Hold nothing of an arc any more."""
        async with self._one_step:
            for part in [part for replica in self.within(arc) for part in replica.arc.intersect(arc)]:
                batch = Batch()
                batch.delete_arc(part)
                await self._become([await self._exactly(part)], [], batch)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _exactly(self, arc: Arc) -> Replica:
        """The replica of an arc, cut out of a larger one if need be. Raises Moved if it is not held whole."""
        found = self.of(arc)
        if found is not None:
            return found
        whole = next((replica for replica in self._all if not subtract((arc,), (replica.arc,))), None)
        if whole is None:
            raise Moved(f"{arc} is not held here", None)
        await whole.at_rest()
        parts = (arc, *subtract((whole.arc,), (arc,)))
        state = whole.state
        states = [ReplicaState(part, state.epoch, state.chain, state.sealed, whole.position) for part in parts]
        made = await self._become([whole], states, None, whole.log.entries.values())
        for replica in made:
            replica.stable = whole.stable
            replica.recent = whole.recent.part(replica.arc)
        return made[0]

    async def _merge(self, held: list[Replica], entry: Entry) -> Replica:
        """One replica in place of several that together hold the arc; whoever merged saw all of them equally far in
        all members of the chain, so that nothing of their histories is lacking anywhere."""
        if subtract((entry.arc,), (replica.arc for replica in held)):
            raise Moved(f"{entry.arc} is not held here whole", None)
        for replica in held:
            await replica.at_rest()
        logged = [each for replica in held for each in replica.log.entries.values()]
        sealed = min(replica.state.sealed for replica in held)
        state = ReplicaState(entry.arc, 0, (), sealed, (entry.epoch, 0))
        (merged,) = await self._become(held, [state], None, _joined(logged))
        merged.recent = Recent.joined(replica.recent for replica in held)
        return merged

    async def _become(
        self,
        old: list[Replica],
        states: list[ReplicaState],
        batch: Batch | None = None,
        logged: Iterable[Logged] = (),
    ) -> list[Replica]:
        """Replicas of these states, each with the log, in place of the old ones."""
        batch = batch or Batch()
        remembered = tuple(logged)
        for replica in old:
            replica.gone = True
            batch.forget(_state_name(replica.uid))
            batch.forget_all(log_prefix(replica.uid))
        made = [self._replica(next(self._uids), state, _within(remembered, state.arc)) for state in states]
        for replica in made:
            batch.note(_state_name(replica.uid), pack(replica.state))
            for number, each in replica.log.entries.items():
                batch.note(log_name(replica.uid, number), pack(each))
        try:
            await self.store.commit(batch)
        except StoreFull:
            for replica in old:
                replica.gone = False
            raise
        except RingError as error:  # what is on the disk is not known: it is read at the next start
            self._spawn(_failed(error))
            raise
        for replica in old:
            replica.end()
            self._all.remove(replica)
        self._all += made
        self._stop_following()
        return made

    def _replica(self, uid: int, state: ReplicaState, logged: Mapping[int, Logged]) -> Replica:
        return Replica(self.store, self._spawn, self._clock, uid, self.life, state, logged)

    async def _note(self, replica: Replica, state: ReplicaState) -> None:
        batch = Batch()
        batch.note(_state_name(replica.uid), pack(state))
        await self.store.commit(batch)
        replica.sealed_on_disk = state.sealed


async def _failed(error: RingError) -> None:
    raise error


def _within(logged: Iterable[Logged], arc: Arc) -> dict[int, Logged]:
    """A log as a part of its arc needs it: every operation may be tried again in any part."""
    return {
        n: replace(e, names=tuple(name for name in e.names if position_of(name) in arc)) for n, e in enumerate(logged)
    }


def _joined(logged: Iterable[Logged]) -> list[Logged]:
    """The logs of parts as the whole needs them: an operation that was ordered in parts is one again."""
    whole: dict[Operation, Logged] = {}
    for each in logged:
        if each.operation is None:
            continue
        one = whole.get(each.operation)
        if one is None or not each.covers or each.covers == one.covers:
            whole[each.operation] = each
        elif one.covers:
            whole[each.operation] = Logged(
                max(one.version, each.version),
                each.operation,
                (*one.names, *each.names),
                replace(each.outcome, gone=tuple(sorted({*one.outcome.gone, *each.outcome.gone}))),
                max(one.at, each.at),
                b"".join(sorted(marks(one.covers) | marks(each.covers))),
            )
    return list(whole.values())


def _state_name(uid: int) -> str:
    return f"{STATES}{uid:016x}"


def subtract(arcs: Iterable[Arc], others: Iterable[Arc]) -> tuple[Arc, ...]:
    """The parts of `arcs` that none of `others` covers."""
    left = tuple(arcs)
    for other in others:
        left = tuple(part for arc in left for part in arc.minus(other))
    return left
