"""The acceptor of a keeper: what it promised and accepted, and the leases it granted.

Everything it answers is on its disk first. Leases are in memory: after a start it waits one lease time before it
accepts a change that drops a node, for it may have granted that node a lease before. The same wait follows a change of
the keepers, whose predecessors may have granted one. CASPaxos (Rystsov 2018, arXiv 1802.07000), without its cache.

A change that drops nodes is accepted only when no lease granted here to one of them still runs, and from then on a
lease is refused to whoever knows only what was before. A majority has accepted the change, a majority must grant a
lease: one keeper is in both, so that a dropped node has no lease from the moment the change is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from node.codec import pack, unpack
from node.errors import NotAMember
from node.register.messages import (
    ACCEPT,
    GENERATION,
    INSPECT,
    LEASE,
    PREPARE,
    ZERO,
    Accept,
    Accepted,
    Configuration,
    LeaseAnswer,
    LeaseQuestion,
    Prepare,
    Promise,
    Record,
    State,
)
from node.settings import Settings
from node.store.interface import Batch, Store
from node.transport import Switchboard

NOTE = "keeper"


class Acceptor:
    """Answers for one life of one disk. `clock` goes on while the process is stopped."""

    def __init__(
        self, store: Store, life: bytes, settings: Settings, clock: Callable[[], float], state: State | None
    ) -> None:
        self._store = store
        self._life = life
        self._settings = settings
        self._clock = clock
        self._state = state or State(ZERO, ZERO, None)
        self._granted: dict[bytes, float] = {}
        self._barred: dict[bytes, float] = {}
        """Nodes about to be dropped, which get no lease until then."""
        self._quiet: tuple[Configuration | None, float] = (self._configuration, clock() + self._settings.lease)
        self._coming = 0
        """The revision of what is being accepted."""
        self._one = asyncio.Lock()

    @classmethod
    async def load(cls, store: Store, life: bytes, settings: Settings, clock: Callable[[], float]) -> Acceptor:
        """The acceptor as its disk left it."""
        note = await store.read_note(NOTE)
        return cls(store, life, settings, clock, unpack(State, note) if note else None)

    async def found(self, record: Record) -> None:
        """Begin a register with this record. Ballots of earlier generations are lower."""
        self._quiet = (record.configuration, self._clock())
        ballot = (record.generation * GENERATION, self._life)
        await self._become(State(ballot, ballot, record))

    async def retire(self) -> None:
        """Promise and accept nothing any more: another life of this disk begins."""
        async with self._one:
            self._life = b""

    def connect(self, receive: Switchboard) -> None:
        """Answer proposers and those who ask for leases."""
        receive.connect(INSPECT, self.inspect)
        receive.connect(PREPARE, self.prepare)
        receive.connect(ACCEPT, self.accept)
        receive.connect(LEASE, self.lease)

    @property
    def _configuration(self) -> Configuration | None:
        return self._state.record.configuration if self._state.record is not None else None

    async def inspect(self, to: bytes) -> Promise:
        """What was accepted last, without a promise."""
        self._check_life(to)
        return Promise(True, self._state.accepted, self._state.record)

    async def prepare(self, question: Prepare) -> Promise:
        """*Phase 1b*: promise to accept nothing below this ballot."""
        async with self._one:
            self._check_life(question.to)
            state = self._state
            if question.ballot < state.promised:
                return Promise(False, state.promised, None)
            if question.ballot > state.promised:
                await self._become(State(question.ballot, state.accepted, state.record))
            return Promise(True, state.accepted, state.record)

    async def accept(self, question: Accept) -> Accepted:
        """*Phase 2b*: accept, unless more was promised, or a lease stands in the way."""
        async with self._one:
            self._check_life(question.to)
            if question.ballot < self._state.promised:
                return Accepted(False, self._state.promised)
            wait = self._seconds_in_the_way(question.record)
            if wait > 0:
                return Accepted(False, question.ballot, wait)
            self._coming = question.record.revision
            try:
                await self._become(State(question.ballot, question.ballot, question.record))
            finally:
                self._coming = 0
            return Accepted(True, question.ballot)

    def _seconds_in_the_way(self, record: Record) -> float:
        """How long leases of nodes that the record drops may still run; meanwhile they get no other."""
        now = self._clock()
        if self._quiet[0] != record.configuration:
            self._quiet = (record.configuration, now + self._settings.lease)
        if not record.drops:
            return 0.0
        until = max(self._quiet[1], *(self._granted.get(life, now) for life in record.drops))
        if until > now:
            for life in record.drops:
                self._barred[life] = until + self._settings.lease
        return until - now

    async def lease(self, question: LeaseQuestion) -> LeaseAnswer:
        """Grant a lease to a node that is not being dropped and whose map is not older than what is accepted here."""
        self._check_life(question.to)
        now = self._clock()
        revision = max(self._coming, self._state.record.revision if self._state.record else 0)
        granted = question.revision >= revision and self._barred.get(question.life, now) <= now
        if granted and self._state.record is not None:
            self._granted = {life: until for life, until in self._granted.items() if until > now}
            self._granted[question.life] = now + self._settings.lease
        return LeaseAnswer(granted and self._state.record is not None, revision)

    def _check_life(self, to: bytes) -> None:
        if to != self._life:
            raise NotAMember("this is not the keeper that was asked: it lost its disk")

    async def _become(self, state: State) -> None:
        batch = Batch()
        batch.note(NOTE, pack(state))
        await self._store.commit(batch)
        self._state = state
