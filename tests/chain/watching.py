"""Watchers that follow a few keys while clients write them, and what they are told held against what was done."""

from __future__ import annotations

import asyncio

from node.client.watching import Event, Place, Watch
from node.data import Version
from node.simulation.faults import LOSSY
from node.simulation.history import PUTS, Outcome
from node.values import pack_value
from tests.chain.chaos import KEYS, Clients, chaos
from tests.chain.rig import ChainRing, Client
from tests.simulation.rings import persistently, quick, until

SETTLED = 120.0
LAST = "last"
"""What is written in the end, perhaps more than once."""
NAMES = [f"key {n}" for n in range(KEYS)]


class Watcher(Watch):
    """A watch that counts how often nobody knew any more what had happened."""

    looks = 0

    async def _look(self, places: list[Place]) -> list[Place]:
        self.looks += 1
        return await super()._look(places)


class Listener:
    """One program that watches some keys, and all that it hears."""

    def __init__(self, client: Client, key: str, exact: bool) -> None:
        self.names = [key] if exact else NAMES
        self.heard: dict[str, list[Event]] = {name: [] for name in NAMES}
        self._watch = Watcher(key.encode(), exact, client.atlas, client.router, client.host.transport, client.settings)
        self._client = client

    @property
    def looks(self) -> int:
        """How often it had to be told what is there, in place of what happened."""
        return self._watch.looks

    async def start(self) -> None:
        """Returns once it hears of everything from now on."""
        await persistently(lambda: self._client.host.run(self._watch.start()))
        self._client.host.spawn(self._listen())

    async def _listen(self) -> None:
        async for event in self._watch:
            assert isinstance(event.key, str)
            self.heard[event.key].append(event)

    def is_past(self, versions: dict[str, Version]) -> bool:
        """Whether it has heard as far as this of each of its keys."""
        return all(self.heard[name] and self.heard[name][-1].version >= versions[name] for name in self.names)

    def check(self, clients: Clients, others: list[Listener]) -> None:
        """Each version once and in order; where nothing was forgotten, all of them, just as others hear them."""
        for name in self.names:
            events = self.heard[name]
            versions = [event.version for event in events]
            assert versions == sorted(set(versions)), f"{name}: not each version once and in order: {events}"
            told = [event.value for event in events if event.value not in (None, LAST)]
            assert len(told) == len(set(told)), f"{name}: a value was told twice: {events}"
            puts = [each for each in clients.history.operations if each.key == name and each.kind in PUTS]
            asked = {each.value for each in puts}
            assert set(told) <= asked, f"{name}: nobody wrote that: {set(told) - asked}"
            versions_of = {each.value: each.answer for each in puts if isinstance(each.answer, tuple)}
            wrong = [e for e in events if e.value in versions_of and versions_of[e.value] != e.version]
            assert not wrong, f"{name}: other versions than those that the writers were told: {wrong}"
            for value, version in versions_of.items():
                if value not in told:
                    after = next(event for event in events if event.version > version)
                    assert after.missed, f"{name}: nobody told of {value}, nor that anything was missed: {events}"
            if self.looks:
                continue
            done = {each.value for each in puts if each.outcome is Outcome.OK and each.answer != "conflict"}
            assert done <= set(told), f"{name}: nobody told of {done - set(told)}"
            for other in others:
                if name in other.names and not other.looks:
                    assert events == other.heard[name], f"{name}: two watchers heard of different histories"


async def watchers_hear_each_version(seed: int) -> None:
    """Nodes crash, pause, are cut off, lose their disks, come and go, one at a time."""
    ring = ChainRing(seed, LOSSY, quick(settle_period=0.2, watch=1.0), replicas=1 + seed % 3)
    hosts = await ring.founded(3 + seed % 2)
    await until(ring.is_settled, SETTLED, "settled")
    listeners = [Listener(ring.client(), *what) for what in ((NAMES[0], True), ("key", False), ("key", False))]
    for listener in listeners:
        await listener.start()
    clients = Clients(ring, seed, 4, rate=8)
    for _ in range(2):
        await chaos(ring, hosts, 1, wipe=ring.policy.replicas > 1)
        hosts.append(await ring.start())
        await asyncio.sleep(ring.random.uniform(0, 2))
        leaver = hosts.pop(ring.random.randrange(len(hosts)))
        await persistently(lambda leaver=leaver: leaver.run(ring.space(leaver).part()), 600)
        ring.crash(leaver)
    await clients.stop()
    await until(ring.is_settled, SETTLED, "settled again")
    last = pack_value(LAST, ring.settings)
    operations = ring.space(hosts[0]).operations
    versions = {}
    for name in NAMES:
        versions[name] = await persistently(lambda name=name: operations.put(name.encode(), last))
    await until(lambda: all(each.is_past(versions) for each in listeners), SETTLED, "heard of the last writes")
    for listener in listeners:
        listener.check(clients, listeners)
    assert not ring.failures
