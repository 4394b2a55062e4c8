"""The register as seen from any node: the proposer of CASPaxos, and the asker of leases.

    read      if a majority accepted one and the same record, that is it: what is chosen later is chosen after the
              question. Otherwise *prepare*, and *accept* of what is found, disturbing others
    set       *prepare*, then *accept* of the changed record, by majorities
    replace   keepers change through a record in which majorities of the old and of the new ones count

What is found unfinished is finished first, as it is, drops and all, and only then changed: so every change is made of a
record that is chosen. A proposer needs majorities of every configuration it meets in a ballot. A configuration of two
groups is left only once it is chosen: then a majority of the old ones has it, so whoever still knows only the old ones
meets it; and before it is chosen nobody relies on the new ones alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from random import Random

from node.errors import Conflict, Definite, NoQuorum, OutcomeUnknown, RingError
from node.register.messages import (
    ACCEPT,
    INSPECT,
    LEASE,
    PREPARE,
    Accept,
    Ballot,
    Configuration,
    Keeper,
    LeaseAnswer,
    LeaseQuestion,
    Prepare,
    Promise,
    Record,
)
from node.settings import Settings
from node.transport import A, Method, Q, Transport

log = logging.getLogger(__name__)


INSPECTIONS = 3
"""How often a reader looks without disturbing the proposers, before it takes part."""
RETRIES = 2
"""How often too few answers are put down to lost messages."""

NOTHING = Record(0, b"", b"", Configuration(()))
"""What is known before anything is."""

Groups = tuple[tuple[Keeper, ...], ...]


class Outbid(Definite):
    """Another proposer's ballot is higher."""


class Keepers:
    """The register, by way of its keepers. `record` is the latest known to be committed."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        random: Random,
        clock: Callable[[], float],
        life: bytes,
        record: Record,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._random = random
        self._clock = clock
        self._life = life
        self._proposer = life + random.randbytes(4)
        self._round = 0
        self._one = asyncio.Lock()
        self._silent: set[Keeper] = set()
        """Keepers that did not answer when they were last asked."""
        self.record = record

    def learn(self, record: Record) -> None:
        """A committed record."""
        if record.revision > self.record.revision:
            self.record = record

    # -- the register ------------------------------------------------------------------------------------------------

    async def read(self) -> Record:
        """The record as it is now, linearizably. Raises NoQuorum."""
        for attempt in range(INSPECTIONS):
            try:
                record = await self._inspected()
                if record is not None:
                    return self._learned(record)
            except NoQuorum:
                if attempt:
                    raise
            await asyncio.sleep(self._settings.backoff * self._random.random())
        return await self._propose(lambda record: record)

    async def _inspected(self) -> Record | None:
        """The record that a majority has accepted in one ballot, None if there is none such at this moment. Raises
        NoQuorum if no majority answers."""
        found: dict[Keeper, Promise] = {}
        groups = self.record.configuration.groups
        for _ in range(INSPECTIONS if groups[0] else 0):
            asked = {keeper: keeper.life for group in groups for keeper in group if keeper not in found}
            found |= await self._ask_all(INSPECT, asked, groups, found)
            self._check_majorities(groups, found)
            highest = max(found.values(), key=lambda promise: promise.ballot, default=None)
            if highest is None or highest.record is None:
                return None
            same = {keeper for keeper, promise in found.items() if promise.ballot == highest.ballot}
            theirs = highest.record.configuration.groups
            if all(_is_majority(group, same) for group in theirs):
                return highest.record
            if set(theirs) <= set(groups):
                return None
            groups = theirs
        return None

    async def compare_and_set(self, revision: int, value: bytes, drops: tuple[bytes, ...] = ()) -> Record:
        """Change the value, if it is still at `revision`, and once no node in `drops` holds a lease any more.

        Raises Conflict (it is not), NoQuorum (nothing was changed), OutcomeUnknown.
        """

        def changed(record: Record) -> Record:
            _check_revision(record, revision)
            return Record(revision + 1, name, value, record.configuration, drops)

        name = self._random.randbytes(16)
        return await self._propose(changed, name)

    async def replace(self, revision: int, wanted: tuple[Keeper, ...]) -> Record:
        """Have `wanted` keep the register, if it is still at `revision`: a node that has left since is not asked to.

        Raises Conflict, NoQuorum, OutcomeUnknown; whoever tries again goes on from where this broke off.
        """
        while True:
            record = await self._step(revision, wanted)
            if not record.configuration.following and set(record.configuration.keepers) == set(wanted):
                return record
            revision = record.revision

    async def _step(self, revision: int, wanted: tuple[Keeper, ...]) -> Record:
        """Begin a replacement, or end the one that is under way."""

        def changed(record: Record) -> Record:
            _check_revision(record, revision)
            now = record.configuration
            if not now.following and set(now.keepers) == set(wanted):
                return record
            step = Configuration(now.following) if now.following else Configuration(now.keepers, wanted)
            return Record(revision + 1, name, record.value, step)

        name = self._random.randbytes(16)
        return await self._propose(changed, name)

    async def _propose(self, change: Callable[[Record], Record], name: bytes = b"") -> Record:
        """Have a change of the record chosen. `name` is the name of the change."""
        if not self.record.configuration.keepers:
            raise NoQuorum("this node does not know yet who keeps the ring map: try again")
        async with self._one:  # ballots of one node do not outbid each other
            return await self._bid(change, name)

    async def _bid(self, change: Callable[[Record], Record], name: bytes) -> Record:
        """Ballot after ballot until it is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.operation
        sent = False
        attempt = 0
        while True:
            try:
                ballot, record, chosen = await self._prepared()
                if not chosen:
                    await self._accepted(ballot, record, record.configuration.groups, deadline)
                if name and record.change == name:
                    return self._learned(record)
                after = self._changed(record, change, sent)
                if after is record:
                    return self._learned(record)
                if not chosen:
                    continue  # this ballot is used up
                sent = True
                groups = (*record.configuration.groups, *after.configuration.groups)
                await self._accepted(ballot, after, tuple(dict.fromkeys(groups)), deadline)
                return self._learned(after)
            except (Outbid, NoQuorum) as error:
                attempt += 1
                pause = self._settings.backoff * self._random.uniform(0.2, 1) * min(2**attempt, 4)
                if loop.time() + pause > deadline or (isinstance(error, NoQuorum) and attempt > RETRIES):
                    raise OutcomeUnknown(*error.args) if sent else NoQuorum(*error.args) from None
                await asyncio.sleep(pause)

    @staticmethod
    def _changed(record: Record, change: Callable[[Record], Record], sent: bool) -> Record:
        try:
            return change(record)
        except Conflict as error:
            if sent:  # it may have been chosen, and changed again since
                raise OutcomeUnknown(*error.args) from None
            raise

    def _learned(self, record: Record) -> Record:
        self.learn(record)
        return record

    # -- phases ------------------------------------------------------------------------------------------------------

    async def _prepared(self) -> tuple[Ballot, Record, bool]:
        """*Phase 1* in a new ballot: the record accepted in the highest ballot, and whether it is chosen for sure."""
        self._round += 1
        ballot = (self._round, self._proposer)
        promises: dict[Keeper, Promise] = {}
        configuration = self.record.configuration
        while True:
            groups = configuration.groups
            asked = [k for group in groups for k in group if k not in promises]
            promises |= await self._ask_all(PREPARE, {k: Prepare(k.life, ballot) for k in asked}, groups, promises)
            self._check_ballots([promise.ballot for promise in promises.values() if not promise.granted])
            self._check_majorities(groups, promises)
            highest = max(promises.values(), key=lambda promise: promise.ballot)
            if highest.record is None:
                raise NoQuorum("the keepers of the ring map have lost it")
            found = highest.record.configuration
            if not set(found.groups) <= set(groups):
                configuration = found
                continue
            same = {keeper for keeper, promise in promises.items() if promise.ballot == highest.ballot}
            return ballot, highest.record, all(_is_majority(group, same) for group in (*groups, *found.groups))

    async def _accepted(self, ballot: Ballot, record: Record, groups: Groups, deadline: float) -> None:
        """*Phase 2*, by majorities of these groups. Waits out leases in the way. Raises Outbid, NoQuorum."""
        loop = asyncio.get_running_loop()
        done: set[Keeper] = set()
        while True:
            asked = [keeper for group in groups for keeper in group if keeper not in done]
            questions = {keeper: Accept(keeper.life, ballot, record) for keeper in asked}
            answers = await self._ask_all(ACCEPT, questions, groups, done)
            self._check_ballots([a.ballot for a in answers.values() if not a.granted and a.ballot > ballot])
            done |= {keeper for keeper, answer in answers.items() if answer.granted}
            if all(_is_majority(group, done) for group in groups):
                return
            self._check_majorities(groups, done | set(answers))
            wait = min(answer.wait for answer in answers.values() if not answer.granted)
            if loop.time() + wait > deadline:
                raise NoQuorum("a node that the ring does without may still answer: try again")
            await asyncio.sleep(wait + self._settings.backoff * self._random.random())

    async def _ask_all(
        self,
        method: Method[Q, A],
        questions: dict[Keeper, Q],
        groups: Groups,
        have: Collection[Keeper] = (),
    ) -> dict[Keeper, A]:
        """Ask keepers side by side; who answered, once majorities did and the others had a moment more."""
        loop = asyncio.get_running_loop()
        answers: dict[Keeper, A] = {}

        async def ask(keeper: Keeper, question: Q) -> None:
            try:
                deadline = self._settings.call
                answers[keeper] = await method.ask(self._transport, keeper.address, question, deadline=deadline)
                self._silent.discard(keeper)
            except RingError as error:
                self._silent.add(keeper)
                log.debug("keeper %s: %s", keeper.address, error)
            finally:
                waiting.pop(keeper, None)
                news.set()

        news = asyncio.Event()
        waiting = {keeper: loop.create_task(ask(keeper, question)) for keeper, question in questions.items()}
        try:
            async with asyncio.timeout(None) as patience:
                while waiting:
                    if patience.when() is None and all(_is_majority(g, (*have, *answers)) for g in groups):
                        patience.reschedule(loop.time() + self._settings.probe / 8)
                    if patience.when() is not None and waiting.keys() <= self._silent:
                        break
                    news.clear()
                    await news.wait()
        except TimeoutError:
            pass  # the others had their moment
        finally:
            for keeper, task in waiting.items():
                task.cancel()
                self._silent.add(keeper)
        return dict(answers)

    def _check_ballots(self, higher: list[Ballot]) -> None:
        if higher:
            self._round = max(self._round, *(ballot[0] for ballot in higher))
            raise Outbid("other nodes change the ring map at the same time: try again")

    @staticmethod
    def _check_majorities(groups: Groups, have: Collection[Keeper]) -> None:
        for group in groups:
            if not _is_majority(group, have):
                names = " ".join(str(keeper.address) for keeper in group)
                there = " ".join(str(keeper.address) for keeper in group if keeper in have) or "none"
                missing = " ".join(str(keeper.address) for keeper in group if keeper not in have)
                needed = len(group) // 2 + 1
                raise NoQuorum(
                    f"the ring map needs {needed} of {names}, reached {there}: start {missing} or mend the network; "
                    "`ring force-repair` goes on without those that are lost for good"
                )

    # -- leases ------------------------------------------------------------------------------------------------------

    async def lease(self, life: bytes, revision: int) -> float | None:
        """Until when, by the clock given, a node may answer as the map of this revision says; None if there is a newer
        one. Counted from the moment of asking. Raises NoQuorum."""
        record = self.record
        if record.revision != revision:
            return None
        asked_at = self._clock()
        groups = record.configuration.groups
        questions = {keeper: LeaseQuestion(keeper.life, life, revision) for group in groups for keeper in group}
        answers: dict[Keeper, LeaseAnswer] = await self._ask_all(LEASE, questions, groups)
        granted = {keeper for keeper, answer in answers.items() if answer.granted}
        if all(_is_majority(group, granted) for group in groups):
            return asked_at + self._settings.lease - self._settings.lease_margin
        if any(answer.revision > revision for answer in answers.values()):
            return None
        self._check_majorities(groups, granted)
        raise AssertionError("not reached")


def _check_revision(record: Record, revision: int) -> None:
    if record.revision != revision:
        raise Conflict(f"the ring map is at revision {record.revision}, not {revision}: read it again")


def _is_majority(group: tuple[Keeper, ...], have: Collection[Keeper]) -> bool:
    return 2 * sum(keeper in have for keeper in group) > len(group)
