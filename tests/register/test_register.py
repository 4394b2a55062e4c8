"""The register under crashes, pauses, losses and changes of its keepers; and mutants of it that this must catch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from node.codec import pack, unpack
from node.errors import Conflict, NoQuorum, OutcomeUnknown, RingError
from node.register import acceptor as acceptors
from node.register.acceptor import Acceptor
from node.register.keepers import NOTHING, Keepers
from node.register.messages import Accept, Accepted, Configuration, Keeper, Prepare, Promise, Record, State
from node.settings import Settings
from node.simulation.faults import CALM, LOSSY, Faults
from node.simulation.loop import run
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host, World
from node.store.memory import MemoryStore
from node.transport import Switchboard

SETTINGS = Settings.profile("local")
TAIL = b"a node that answers"


class NotOneRegister(AssertionError):
    """What was seen could not come from one register."""


class Seen:
    """What everybody saw: one value for a revision, and nobody sees an older one than was seen before he asked."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.latest = 0

    def before(self) -> int:
        """To be asked before a question."""
        return self.latest

    def after(self, record: Record, before: int) -> None:
        """To be told after it."""
        if self.values.setdefault(record.revision, record.value) != record.value:
            raise NotOneRegister(f"revision {record.revision} has two values")
        if record.revision < before:
            raise NotOneRegister(f"revision {record.revision} was read after {before}")
        self.latest = max(self.latest, record.revision)


class Nodes:
    """Hosts, each a keeper if it is made one, and a proposer."""

    def __init__(self, seed: int, count: int = 5, faults: Faults = LOSSY) -> None:
        self.world = World(seed, faults)
        self.random = Random(f"scenario {seed}")
        self.seen = Seen()
        self.hosts = [self.world.host() for _ in range(count)]
        self.lives = {host.address: host.random.randbytes(16) for host in self.hosts}
        self.registers: dict[Any, Keepers] = {}
        self.known = NOTHING

    def keeper(self, host: Host) -> Keeper:
        return Keeper(self.lives[host.address], host.address)

    async def up(self) -> None:
        """All hosts run, and the first one founds the register."""
        for host in self.hosts:
            await self.start(host)

    async def start(self, host: Host) -> None:
        host.start()
        await host.run(self._boot(host))

    async def _boot(self, host: Host) -> None:
        life = self.lives[host.address]
        acceptor = await Acceptor.load(MemoryStore(host.disk, host.random), life, SETTINGS, host.clock)
        if self.known is NOTHING:
            self.known = Record(1, b"", b"founded", Configuration((self.keeper(host),)))
            await acceptor.found(self.known)
        receive = Switchboard()
        acceptor.connect(receive)
        host.listen(receive)
        arguments = (host.transport, SETTINGS, host.random, host.clock, life)
        self.registers[host.address] = Keepers(*arguments, self.known)

    async def increment(self, host: Host, name: bytes, drops: tuple[bytes, ...] = ()) -> Record:
        """One compare-and-set of what is read."""
        register = self.registers[host.address]
        before = self.seen.before()
        record = await register.read()
        self.seen.after(record, before)
        before = self.seen.before()
        after = await register.compare_and_set(record.revision, name, drops)
        self.seen.after(after, before)
        if after.revision != record.revision + 1 or after.value != name:
            raise NotOneRegister("another change than the one made")
        return after


async def client(nodes: Nodes, host: Host, number: int, rounds: int) -> None:
    """Increments from one host, as well as it goes."""
    for n in range(rounds):
        try:
            await host.run(nodes.increment(host, b"%d/%d" % (number, n)))
        except RingError:
            pass
        except Exception as error:
            if type(error).__name__ != "Crashed":
                raise
        await asyncio.sleep(nodes.random.expovariate(4))


async def trouble(nodes: Nodes, events: int) -> None:
    """Keepers crash and come back, pause, are replaced."""
    for _ in range(events):
        host = nodes.random.choice(nodes.hosts)
        kind = nodes.random.choice(["crash", "pause", "replace", "replace", "replace"])
        if kind == "crash":
            host.crash(power=True)
            await asyncio.sleep(nodes.random.uniform(0.05, 2))
            await nodes.start(host)
        elif kind == "pause":
            host.pause()
            await asyncio.sleep(nodes.random.uniform(0.05, 4))
            host.resume()
        else:
            wanted = nodes.random.sample(nodes.hosts, nodes.random.choice([1, 3, 3]))
            changer = nodes.registers[nodes.random.choice(nodes.hosts).address]
            try:
                await kept_by(nodes, changer, wanted)
            except RingError:
                continue
        await asyncio.sleep(nodes.random.uniform(0, 1))


async def kept_by(nodes: Nodes, register: Keepers, hosts: list[Host]) -> Record:
    """Have these hosts keep the register."""
    record = await register.read()
    return await register.replace(record.revision, tuple(nodes.keeper(host) for host in hosts))


async def suffering(seed: int) -> None:
    nodes = Nodes(seed)
    await nodes.up()
    clients = [asyncio.ensure_future(client(nodes, host, n, 12)) for n, host in enumerate(nodes.hosts)]
    await trouble(nodes, 10)
    await asyncio.gather(*clients)
    record = await persistently(nodes.registers[nodes.hosts[0].address].read)
    nodes.seen.after(record, nodes.seen.before())


async def restless(seed: int) -> None:
    """Keepers that crash and are back at once, again and again, while messages are late."""
    nodes = Nodes(seed, faults=replace(LOSSY, slow=0.4, slow_by=0.5))
    await nodes.up()
    await persistently(lambda: kept_by(nodes, nodes.registers[nodes.hosts[3].address], nodes.hosts[:3]))
    clients = [asyncio.ensure_future(client(nodes, host, n, 12)) for n, host in enumerate(nodes.hosts[3:])]
    for _ in range(60):
        victim = nodes.random.choice(nodes.hosts[:3])
        victim.crash(power=True)
        await asyncio.sleep(0.002)
        await nodes.start(victim)
        await asyncio.sleep(nodes.random.expovariate(10))
    await asyncio.gather(*clients)


async def persistently(work: Callable[[], Coroutine[Any, Any, Record]]) -> Record:
    while True:
        try:
            return await work()
        except RingError:
            await asyncio.sleep(0.2)


def test_it_is_one_register_whatever_happens_to_its_keepers() -> None:
    for_each_seed(50, suffering)


def test_it_is_one_register_while_its_keepers_crash_all_the_time() -> None:
    for_each_seed(20, restless)


async def dropping(seed: int) -> None:
    """A node answers while its lease holds; a change drops it; keepers crash and are replaced around it."""
    nodes = Nodes(seed, faults=LOSSY)
    await nodes.up()
    tail, others = nodes.hosts[4], nodes.hosts[:4]
    register = nodes.registers[others[0].address]
    await persistently(lambda: kept_by(nodes, register, others[:3]))
    lease_until = 0.0

    async def answer() -> None:
        nonlocal lease_until
        mine = nodes.registers[tail.address]
        while True:
            try:
                if TAIL not in (record := await mine.read()).value:
                    until = await mine.lease(TAIL, record.revision)
                    left = 0.0 if until is None else until - tail.clock()
                    lease_until = max(lease_until, asyncio.get_running_loop().time() + left)
            except RingError:
                pass
            await asyncio.sleep(nodes.random.uniform(0.05, 0.3))

    answering = tail.spawn(answer())
    await asyncio.sleep(nodes.random.uniform(0, 1.5))
    troubled = asyncio.ensure_future(around(nodes, others))
    while True:
        try:
            await nodes.increment(others[3], b"without " + TAIL, drops=(TAIL,))
            break
        except RingError:
            await asyncio.sleep(0.1)
    left = lease_until - asyncio.get_running_loop().time()
    answering.cancel()
    await troubled
    if left > 0:
        raise NotOneRegister(f"the dropped node may answer for {left:.2f} s more")


async def around(nodes: Nodes, others: list[Host]) -> None:
    for _ in range(3):
        victim = nodes.random.choice(others[:3])
        if nodes.random.random() < 0.6:
            victim.crash(power=True)
            await asyncio.sleep(0.01)
            await nodes.start(victim)
        else:
            wanted = nodes.random.sample(others, 3)
            try:
                await kept_by(nodes, nodes.registers[others[3].address], wanted)
            except RingError:
                continue


def test_a_dropped_node_has_no_lease_once_the_change_is_committed() -> None:
    for_each_seed(50, dropping)


# -- mutants -----------------------------------------------------------------------------------------------------------


async def _promise_in_memory(self: Acceptor, question: Prepare) -> Promise:
    async with self._one:
        if question.ballot < self._state.promised:
            return Promise(False, self._state.promised, None)
        self._state = State(question.ballot, self._state.accepted, self._state.record)
        return Promise(True, self._state.accepted, self._state.record)


async def _accepted_in_memory(self: Acceptor, question: Accept) -> Accepted:
    async with self._one:
        if question.ballot < self._state.promised:
            return Accepted(False, self._state.promised)
        self._state = State(question.ballot, question.ballot, question.record)
        return Accepted(True, question.ballot)


_accepted = Keepers._accepted


async def _by_the_new_ones(self: Keepers, ballot: Any, record: Record, groups: Any, deadline: float) -> None:
    await _accepted(self, ballot, record, record.configuration.groups, deadline)


_init = Acceptor.__init__


def _not_quiet(self: Acceptor, *arguments: Any) -> None:
    _init(self, *arguments)
    self._quiet = (self._configuration, float("-inf"))


MUTANTS: dict[str, tuple[list[tuple[Any, str, Any]], Callable[[int], Any], int]] = {
    "a keeper that forgets its promise on restart": ([(Acceptor, "prepare", _promise_in_memory)], restless, 2000),
    "a keeper that answers before its disk has it": ([(Acceptor, "accept", _accepted_in_memory)], suffering, 400),
    "a keeper replaced without both majorities": (
        [
            (Configuration, "groups", property(lambda self: (self.following or self.keepers,))),
            (Keepers, "_accepted", _by_the_new_ones),
        ],
        suffering,
        400,
    ),
    "a keeper that forgets its leases on restart": ([(Acceptor, "__init__", _not_quiet)], dropping, 400),
    "a keeper that heeds no lease": ([(Acceptor, "_seconds_in_the_way", lambda self, record: 0.0)], dropping, 40),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    patches, scenario, within = MUTANTS[name]
    for owner, attribute, replacement in patches:
        patch.object(owner, attribute, replacement).start()
    try:
        for seed in range(within):
            try:
                run(scenario(seed), seed=seed)
            except NotOneRegister:
                return
    finally:
        patch.stopall()
    raise AssertionError(f"not caught within {within} seeds")


# -- single claims -----------------------------------------------------------------------------------------------------


def test_a_minority_refuses_and_says_whom_to_start() -> None:
    async def scenario() -> None:
        nodes = Nodes(1, faults=CALM)
        await nodes.up()
        register = nodes.registers[nodes.hosts[4].address]
        await kept_by(nodes, register, nodes.hosts[:3])
        for host in nodes.hosts[:2]:
            host.crash(power=True)
        with pytest.raises(NoQuorum, match=r"needs 2 of .*reached 10.0.0.3:18861: start 10.0.0.1:18861 10.0.0.2:18861"):
            await register.read()
        await nodes.start(nodes.hosts[0])
        assert (await register.read()).value == b"founded"

    run(scenario())


def test_a_set_of_an_older_revision_is_a_conflict() -> None:
    async def scenario() -> None:
        nodes = Nodes(1, faults=CALM)
        await nodes.up()
        one, other = (nodes.registers[host.address] for host in nodes.hosts[:2])
        record = await one.read()
        assert (await one.compare_and_set(record.revision, b"first")).revision == record.revision + 1
        with pytest.raises(Conflict):
            await other.compare_and_set(record.revision, b"second")
        with pytest.raises(Conflict):  # whoever has left since is not made a keeper
            await other.replace(record.revision, tuple(nodes.keeper(host) for host in nodes.hosts[:3]))
        assert (await other.read()).value == b"first"

    run(scenario())


def test_what_a_dead_proposer_left_is_finished_with_its_drops() -> None:
    """One keeper of three has accepted it; whoever comes next must wait for the lease that the change ends."""

    async def scenario() -> None:
        nodes = Nodes(1, faults=CALM)
        await nodes.up()
        register = nodes.registers[nodes.hosts[3].address]
        record = await kept_by(nodes, register, nodes.hosts[:3])
        await asyncio.sleep(2 * SETTINGS.lease)
        assert await register.lease(TAIL, record.revision) is not None
        left = Record(record.revision + 1, b"left", b"left", record.configuration, (TAIL,))
        note = pack(State((99, b"x"), (99, b"x"), left))
        nodes.hosts[0].crash()
        nodes.hosts[0].disk.notes[acceptors.NOTE] = note
        await nodes.start(nodes.hosts[0])
        granted_at = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        found = await nodes.registers[nodes.hosts[4].address].read()
        if found.value == b"left":
            assert asyncio.get_running_loop().time() - granted_at > SETTINGS.lease - 0.2
        state = unpack(State, nodes.hosts[1].disk.notes[acceptors.NOTE])
        assert state.record is not None

    run(scenario())


def test_replacing_keepers_survives_the_end_of_whoever_did_it() -> None:
    async def scenario(seed: int) -> None:
        nodes = Nodes(seed)
        await nodes.up()
        wanted = tuple(nodes.keeper(host) for host in nodes.hosts[1:4])
        doing = nodes.hosts[4]
        replacing = doing.spawn(kept_by(nodes, nodes.registers[doing.address], nodes.hosts[1:4]))
        await asyncio.sleep(nodes.random.uniform(0, 0.2))
        doing.crash()
        replacing.cancel()
        other = nodes.registers[nodes.hosts[0].address]
        record = await persistently(lambda: kept_by(nodes, other, nodes.hosts[1:4]))
        assert set(record.configuration.keepers) == set(wanted) and not record.configuration.following
        nodes.hosts[0].crash()
        register = nodes.registers[nodes.hosts[1].address]
        register.learn(record)
        assert (await persistently(register.read)).value == b"founded"

    for_each_seed(20, scenario)


def test_an_unknown_outcome_is_said_to_be_unknown() -> None:
    async def scenario() -> None:
        nodes = Nodes(1, faults=CALM)
        await nodes.up()
        register = nodes.registers[nodes.hosts[3].address]
        record = await kept_by(nodes, register, nodes.hosts[:3])

        async def never(self: Keepers, *arguments: Any) -> None:
            raise NoQuorum("lost")

        with patch.object(Keepers, "_accepted", never), pytest.raises(OutcomeUnknown):
            await register.compare_and_set(record.revision, b"who knows")

    run(scenario())
