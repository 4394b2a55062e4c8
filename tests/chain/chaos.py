"""Clients that write down what they were told, while nodes crash, pause, are cut off, lose their disks, come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Protocol

from node.chain.keyspace import Keyspace
from node.codec import Address
from node.errors import Definite, OutcomeUnknown, VersionConflict
from node.identifiers import Identifier
from node.settings import Settings
from node.simulation.history import CONFLICT, History
from node.simulation.linearizability import check
from node.simulation.process import Crashed
from node.simulation.world import Host, World
from node.values import pack_value, unpack_value
from tests.chain.rig import ChainRing
from tests.simulation.rings import quick, until

KEYS = 3


class Spaces(Protocol):
    """What clients need of a simulated ring."""

    world: World
    settings: Settings

    @property
    def spaces(self) -> Mapping[Address, Keyspace]:
        """The keyspaces of the nodes that run, by their addresses."""
        ...

    def space(self, host: Host) -> Keyspace:
        """The keyspace of a node that runs."""
        ...


class Clients:
    """Clients of any nodes, on few keys, and the history of what they did."""

    def __init__(
        self, ring: Spaces, seed: int, count: int = 6, rate: float = 20, batches: float = 1, nodes: int | None = None
    ) -> None:
        """`rate`: operations a second of each client; `batches`: how many of them, for three puts; `nodes`: how many of
        the nodes they ask, all if it is left out."""
        self.ring = ring
        self.history = History(asyncio.get_running_loop().time)
        self.going_on = True
        self._rate = rate
        self._batches = batches
        self._nodes = nodes
        self._values = 0
        self._versions: dict[str, tuple[int, ...] | None] = {}
        self._tasks = [asyncio.ensure_future(self._client(n, Random(f"client {seed} {n}"))) for n in range(count)]

    async def stop(self) -> None:
        """Let each finish what it is at."""
        self.going_on = False
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int, random: Random) -> None:
        while self.going_on:
            hosts = [host for host in self.ring.world.hosts if host.address in self.ring.spaces]
            if hosts:
                await self._one(number, random, random.choice(hosts[: self._nodes]))
            await asyncio.sleep(random.expovariate(self._rate))

    async def _one(self, number: int, random: Random, host: Host) -> None:
        router = self.ring.space(host).operations
        key = f"key {random.randrange(KEYS)}"
        packed = key.encode()
        self._values += 1
        value = self._values
        kinds = ["get", "get_versioned", "put", "put_if", "delete", "put_many"]
        kind = random.choices(kinds, [3, 3, 3, 2, 1, self._batches])[0]
        if kind == "put_many":
            return await self._several(number, random.sample(range(KEYS), min(2, KEYS)), host)
        expected = self._versions.get(key)

        async def get() -> object:
            stored = await router.get(packed)
            return None if stored is None else unpack_value(stored.value)

        async def get_versioned() -> object:
            stored = await router.get(packed)
            self._versions[key] = None if stored is None else stored.version
            return None if stored is None else (unpack_value(stored.value), stored.version)

        async def put() -> object:
            return await router.put(packed, pack_value(value, self.ring.settings))

        async def put_if() -> object:
            try:
                return await router.put_if(packed, pack_value(value, self.ring.settings), expected)
            except VersionConflict:
                return CONFLICT

        async def delete() -> object:
            return await router.delete(packed)

        work = {"get": get, "get_versioned": get_versioned, "put": put, "put_if": put_if, "delete": delete}[kind]
        writes = value if kind in ("put", "put_if") else None
        operation = self.history.invoke(str(number), kind, key, writes, expected if kind == "put_if" else None)
        try:
            answer = await host.run(self._guarded(work))
        except Definite:
            self.history.failed(operation)
        except (OutcomeUnknown, Crashed):
            self.history.unknown(operation)
        else:
            self.history.ok(operation, answer)

    async def _several(self, number: int, keys: list[int], host: Host) -> None:
        """One batch: to each of its keys a write of its own."""
        names = [f"key {n}" for n in keys]
        values = list(range(self._values, self._values + len(keys)))
        self._values += len(keys) - 1
        pairs = [(n.encode(), pack_value(v, self.ring.settings)) for n, v in zip(names, values, strict=True)]
        one_by_one = zip(names, values, strict=True)
        operations = [self.history.invoke(f"{number} {n}", "put", n, v, None) for n, v in one_by_one]
        router = self.ring.space(host).operations
        try:
            await host.run(self._guarded(lambda: router.put_many(pairs)))
        except (Definite, OutcomeUnknown, Crashed):  # some may have been written
            for operation in operations:
                self.history.unknown(operation)
        else:
            for operation in operations:
                self.history.ok(operation, None)

    @staticmethod
    async def _guarded(work: Callable[[], Awaitable[object]]) -> object:
        return await work()


async def chaos(ring: ChainRing, hosts: list[Host], events: int, *, wipe: bool = True) -> None:
    """One thing after another goes wrong, never more than one node at a time."""
    random = ring.random
    for _ in range(events):
        victim = random.choice(hosts)
        others = [host for host in ring.world.hosts if host is not victim]
        kind = random.choice(["crash", "pause", "cut", "cut some", "wipe", "nothing"])
        if kind == "wipe" and not (wipe and ring.is_settled()):
            kind = "crash"  # what is on one disk only is lost with that disk
        if kind in ("crash", "wipe"):
            ring.crash(victim)
            if kind == "wipe":
                ring.wipe(victim)
            await asyncio.sleep(random.uniform(0.1, 8))
            await ring.start(victim)
        elif kind == "pause":
            victim.pause()
            await asyncio.sleep(random.uniform(0.1, 8))
            victim.resume()
        elif kind in ("cut", "cut some"):
            away = others if kind == "cut" else random.sample(others, random.randrange(1, len(others)))
            ring.world.network.partition([victim.address], [host.address for host in away])
            await asyncio.sleep(random.uniform(0.1, 8))
            ring.world.network.heal()
        await asyncio.sleep(random.uniform(0, 4))


SLOW, FAST = -0.1, 0.1
"""Clocks as far apart as `lease_margin` allows for: a lease of 1.6 s less 0.3 s, at 0.9, is as long as 1.6 s at 1.1."""


LONG_LEASES = quick(lease=8.0, lease_margin=1.5)
"""The same in proportion; what is wrong at their ends takes long enough to be seen."""


async def slow_tails(ring: ChainRing, hosts: list[Host], events: int) -> None:
    """One tail after another is cut off until its lease has run out; its clock is slow, those of all others fast."""
    position = Identifier.of_key(b"key 0")
    for _ in range(events):
        await until(ring.is_settled, 120, "settled")
        tail = ring.map.at(position).tail
        victim = next(host for host in hosts if ring.lives[host.address] == tail)
        others = [host for host in hosts if host is not victim]
        victim.clock.run_at(SLOW)
        for host in others:
            host.clock.run_at(FAST)
        await asyncio.sleep(ring.settings.lease * ring.random.uniform(1.5, 2))
        ring.world.network.partition([victim.address], [host.address for host in others])
        await asyncio.sleep(ring.settings.lease * 1.5)
        ring.world.network.heal()


def assert_linearizable(history: History) -> None:
    verdict = check(history)
    assert verdict, str(verdict)
