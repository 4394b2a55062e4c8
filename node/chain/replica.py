"""One replica: the content of an arc on one node, its history, and what it may take in which epoch.

    follows   it takes commands of its epoch, in the order of its history, and stores them durably in groups
    sealed    it takes nothing of its epoch or any before; what it had ordered is durable or refused
    adopts    a later epoch, after which it follows again

History is a sequence of commands with growing versions; what is remembered of it is the log. Nothing here asks another
node. A store that fails to write for another reason than a full disk ends the node: what it holds is not known then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

from node.chain.gate import Gate
from node.chain.history import log_name, names_of, remade
from node.chain.log import Log
from node.chain.messages import NEVER, Change, Command, Logged, ReplicaState
from node.chain.recent import Recent
from node.chain.ring_map import Entry, Life
from node.chain.under_way import UnderWay
from node.codec import pack, unpack
from node.data import Stored, Version
from node.errors import NotServing, RingError, StoreFull
from node.identifiers import Arc, Name
from node.store.interface import Batch, Store

Spawn = Callable[[Coroutine[Any, Any, None]], object]
Taken = tuple[Command, tuple[Name, ...], Logged]
"""A command, what it writes, and what will be remembered of it."""

FOREVER: Version = (1 << 63, 0)
"""After all versions."""


@dataclass(slots=True, eq=False)
class Watch:
    """Names written since it was set: for mirrors, whose readers may have passed them by already."""

    written: dict[Name, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Look:
    """Names being read to decide on their next command; `moving`: those of which a command was on its way to the disk
    when that began, or was ordered since."""

    names: frozenset[Name]
    moving: set[Name]


class Replica:
    """The replica of one arc. `uid` names it on this disk."""

    def __init__(
        self,
        store: Store,
        spawn: Spawn,
        clock: Callable[[], float],
        uid: int,
        life: Life,
        state: ReplicaState,
        log: Mapping[int, Logged],
    ) -> None:
        self.store = store
        self._spawn = spawn
        self._clock = clock
        self.uid = uid
        self.life = life
        self.state = state
        self.sealed_on_disk = state.sealed
        """What is sealed there; more may be already, in this life."""
        self.gone = False
        """True once this object stands for nothing any more: split, merged or retired."""
        self.log = Log(log)
        self.position = max(state.base, *(each.version for each in log.values()), NEVER)
        self.ordered = self.position
        self.stable = NEVER
        self.under_way = UnderWay()
        self._pending: list[tuple[list[Taken], asyncio.Future[None]]] = []
        self._latest: dict[Name, Change] = {}
        """What keys will be once everything ordered is durable."""
        self.recent = Recent([(state.arc, self.position)])
        self.gate = Gate(self)
        self._changed = asyncio.Event()
        self._confirming: list[tuple[Version, int, asyncio.Future[None]]] = []
        """Who waits for which version to be confirmed, as a heap; the tickets keep those of one version in order."""
        self._tickets = count()
        self._writing = False
        self.trouble: RingError | None = None
        """Why the link to the next one does not work, while it does not."""
        self._still_until = float("-inf")
        self._changes_until = float("-inf")
        self.lasting = 0
        """The epoch in which it was found, as the head, that no record here expires."""
        self.watches: list[Watch] = []
        self.looks: list[Look] = []

    def __repr__(self) -> str:
        state = self.state
        return f"<{state.arc} epoch {state.epoch} sealed {state.sealed} at {self.position}>"

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def arc(self) -> Arc:
        """What it holds."""
        return self.state.arc

    @property
    def follows(self) -> bool:
        """Whether it takes commands."""
        return not self.gone and self.state.sealed < self.state.epoch and self.life in self.state.chain

    @property
    def entry(self) -> Entry:
        """Its chain as it knows it."""
        return Entry(self.arc, self.state.epoch, self.state.chain)

    @property
    def is_head(self) -> bool:
        """Whether it orders writes."""
        return self.follows and self.state.chain[0] == self.life

    @property
    def is_tail(self) -> bool:
        """Whether it answers reads."""
        return self.follows and self.state.chain[-1] == self.life

    def become(self, state: ReplicaState) -> None:
        """Another epoch, or sealed."""
        self.state = state
        self._decide()
        self.stir()

    def expect_change(self, seconds: float) -> None:
        """Somebody changes the chain, and says so again within so many seconds."""
        self._changes_until = asyncio.get_running_loop().time() + seconds

    @property
    def is_changed(self) -> bool:
        """Whether somebody changes the chain, as far as is known here."""
        return asyncio.get_running_loop().time() < self._changes_until

    def is_durable(self, names: Iterable[Name]) -> bool:
        """Whether nothing ordered for these keys still has to reach the disk."""
        return not self._latest or not any(name in self._latest for name in names)

    async def current(self, names: tuple[Name, ...]) -> dict[Name, Stored | None]:
        """The records of keys by everything ordered up to the moment this returns."""
        while True:
            bodies, moving = await self._read(names)
            ordered = {name: self._latest[name].body for name in names if name in self._latest}
            if moving <= ordered.keys():
                bodies |= ordered
                return {name: unpack(Stored, body) if body is not None else None for name, body in bodies.items()}

    async def _read(self, names: Sequence[Name]) -> tuple[dict[Name, bytes | None], set[Name]]:
        """What the disk holds of keys; and those of them of which that may be before or after what was ordered."""
        look = Look(frozenset(names), {name for name in names if name in self._latest})
        self.looks.append(look)
        try:
            return dict(zip(names, await self.store.get_many(names), strict=True)), look.moving
        finally:
            self.looks.remove(look)

    # -- taking commands ---------------------------------------------------------------------------------------------

    def next_version(self) -> Version:
        """What the head gives to its next command."""
        epoch, sequence = self.ordered
        return (epoch, sequence + 1) if epoch == self.state.epoch else (self.state.epoch, 1)

    def check_disk(self) -> None:
        """Raises StoreFull while a disk further down is full."""
        if isinstance(self.trouble, StoreFull):
            raise StoreFull(*self.trouble.args)

    def hold_still(self, seconds: float) -> None:
        """Have writes wait for so long, or until this replica is another."""
        self._still_until = asyncio.get_running_loop().time() + seconds

    @property
    def is_still(self) -> bool:
        """Whether writes have to wait."""
        return not self.gone and asyncio.get_running_loop().time() < self._still_until

    async def stirs(self) -> None:
        """Wait until writes need not wait."""
        while self.is_still:
            try:
                async with asyncio.timeout_at(self._still_until):
                    await self.changes()
            except TimeoutError:
                return

    def take(self, commands: tuple[Command, ...]) -> asyncio.Future[None]:
        """Order commands behind all before. The result is done once they are durable, and StoreFull if they are not
        and never were."""
        taken: list[Taken] = []
        is_tail, now = self.is_tail, self._clock()
        for command in commands:
            version = command.version
            assert version > self.ordered, "history grows"
            self.ordered = version
            self.under_way.add(command)
            names = names_of(command)
            lacking = () if is_tail else names  # nobody after the tail will need the command again
            logged = Logged(version, command.operation, lacking, command.outcome, now, command.covers)
            taken.append((command, names, logged))
            self.log.order(logged)
            self._latest.update(zip(names, command.changes, strict=True))
            for look in self.looks:
                look.moving |= look.names.intersection(names)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((taken, done))
        if not self._writing:
            self._writing = True
            self._spawn(self._write())
        return done

    async def _write(self) -> None:
        """Store what was taken, group by group, until nothing is left."""
        while self._pending:
            groups, self._pending = self._pending, []
            numbered = [(self.log.number(), taken) for group, _ in groups for taken in group]
            try:
                await self.store.commit(self._batch(numbered))
            except StoreFull as full:
                groups += self._pending
                self._refuse()
                for _, done in groups:
                    if not done.done():
                        done.set_exception(full)
            else:
                self._stored(numbered)
                for _, done in groups:
                    if not done.done():
                        done.set_result(None)
        self._writing = False
        self.stir()

    def _batch(self, numbered: list[tuple[int, Taken]]) -> Batch:
        batch = Batch()
        for number, (command, _, logged) in numbered:
            for change in command.changes:
                if change.body is None:
                    batch.delete(change.name)
                else:
                    batch.put(change.name, change.body)
            batch.note(log_name(self.uid, number), pack(logged))
        for number in self.log.forget(self.stable):
            batch.forget(log_name(self.uid, number))
        return batch

    def _stored(self, numbered: list[tuple[int, Taken]]) -> None:
        for number, (command, names, logged) in numbered:
            self.log.store(number, logged)
            if command.overtaken:
                self.recent.forget(command.version)
            else:
                self.recent.add(command, self.under_way.size_of(command.version))
            latest = self._latest
            for change in command.changes:
                if latest.get(change.name) is change:  # none was ordered for it since
                    del latest[change.name]
            for watch in self.watches:
                watch.written |= dict.fromkeys(names)
            self.position = command.version
        if self.is_tail:
            self.make_stable(self.position)
        self.stir()

    def _refuse(self) -> None:
        """The disk is full: nothing ordered since has happened."""
        self._pending = []
        self.under_way.refuse(self.position)
        self._latest = {}
        self.log.refuse()
        self.ordered = self.position
        self.stir()

    # -- how far it goes ---------------------------------------------------------------------------------------------

    def make_stable(self, version: Version) -> None:
        """Everything up to `version` is durable on the whole rest of the chain."""
        if version > self.stable:
            self.stable = version
            for confirmed in self.log.confirm(version):
                self.under_way.drop(confirmed)
            self._decide(version)
            self.stir()

    def _decide(self, upto: Version = FOREVER) -> None:
        """Have those look again who wait for versions up to this one to be confirmed."""
        while self._confirming and self._confirming[0][0] <= upto:
            _, _, decided = heappop(self._confirming)
            if not decided.done():
                decided.set_result(None)

    def hindered(self, error: RingError | None) -> None:
        """The link to the next one does not work, or works again."""
        if error is not self.trouble:
            self.trouble = error
            self._decide()
            self.stir()

    async def confirmed(self, version: Version) -> None:
        """Wait until the whole rest of the chain has everything up to `version`, or this replica does not follow.

        Raises StoreFull once a disk further down is full, NotServing when the replica stands for nothing any more.
        """
        while self.stable < version and self.follows:
            self.check_disk()
            decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heappush(self._confirming, (version, next(self._tickets), decided))
            await decided
        if self.stable < version and self.gone:
            raise NotServing(f"{self.arc} has changed hands: try again")

    async def reached(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this replica holds; it is looked at after every change. Raises NotServing when the
        replica stands for nothing any more."""
        while not condition():
            if self.gone:
                raise NotServing(f"{self.arc} has changed hands: try again")
            await self.changes()

    def changes(self) -> Coroutine[Any, Any, object]:
        """Wait for the next change of any kind after this call, whenever the waiting begins."""
        return self._changed.wait()

    def end(self) -> None:
        """It was split, merged or retired: who waits for it is told."""
        self.gone = True
        self._decide()
        self.stir()

    def stir(self) -> None:
        """Have all look again who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def settled(self) -> None:
        """Wait until everything ordered up to now is durable or refused."""
        ordered = self.ordered
        while self.position < min(ordered, self.ordered):
            await self.changes()

    async def at_rest(self) -> None:
        """Wait until everything taken is durable or refused."""
        while self._writing or self._pending:
            await self.changes()

    # -- what the rest of the chain lacks ------------------------------------------------------------------------------

    async def commands_after(self, position: Version, limit: int | None = None) -> tuple[Command, ...]:
        """The durable history behind `position`, at most about `limit` bytes where that is given.

        Commands from before a restart are made from the records as they are now. If a later command wrote one of those
        meanwhile, that command comes with them: only together they are what the history says, and who watches the keys
        is not told it by those who have it so.
        """
        chosen = self._logged_after(position, limit)
        while True:
            names = [name for each in chosen if each.version not in self.under_way for name in each.names]
            commands = self.under_way.upto(chosen[-1].version if chosen else NEVER)
            bodies, moving = await self._read(names) if names else ({}, set())
            if moving:  # they may be on the disk, and not be said to be
                await self.settled()
            every = self._logged_after(position, None)
            if not any(name in bodies for each in every[len(chosen) :] for name in each.names):
                last = {name: each.version for each in chosen for name in each.names}
                return tuple(commands.get(each.version) or remade(each, bodies, last) for each in chosen)
            chosen = every

    def _logged_after(self, position: Version, limit: int | None) -> list[Logged]:
        chosen: list[Logged] = []
        size = 0
        for logged in self.log.after(position):
            if limit is not None and size >= limit:
                break
            chosen.append(logged)
            size += self.under_way.size_of(logged.version)
        return chosen

    def forget_operations(self, after: float) -> None:
        """Operations stored more than so many seconds ago are not tried again any more; one stored in an
        earlier life of the machine, whose clock began anew, is kept longer."""
        self.log.forget_operations(self._clock() - after, self.stable, self.position)
