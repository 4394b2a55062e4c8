"""Mutants of the protocol: each takes one thing away that safety rests on. Only tests make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from node.chain import change, ordering
from node.chain import replica as replica_module
from node.chain.chains import Chains
from node.chain.change import Changer
from node.chain.lease import Lease
from node.chain.log import Log
from node.chain.messages import NEVER, Logged, Read, ReplicaState
from node.chain.mirror import Destination, Fingerprint
from node.chain.replica import Look, Replica
from node.chain.replicas import Replicas
from node.chain.ring_map import Entry, Life, RingMap
from node.data import Version
from node.errors import Moved, NotServing
from node.identifiers import Arc, name_of
from node.register.keepers import Keepers
from node.replication import node as ring_node
from node.replication.identity import BOOT, Identity, recognized
from node.simulation.linearizability import Finding
from node.simulation.loop import run


async def _read_checking_first(self: Chains, question: Read) -> tuple[bytes | None, ...]:
    names = tuple(map(name_of, question.keys))
    await self._lease.obtain()
    replica = self._holding(names)
    self._check_answers(replica, replica.is_tail)
    bodies = await replica.store.get_many(names)
    return tuple(bodies)


_seal = Changer._seal


async def _silent_ones_stay(self: Changer, ring: RingMap, entry: Entry) -> dict[Life, Version]:
    full = await _seal(self, ring, entry)
    return full | {life: NEVER for life in entry.chain if life not in full}


_exactly = Replicas._exactly


async def _empty_if_lost(self: Replicas, arc: Arc) -> Replica:
    try:
        return await _exactly(self, arc)
    except Moved:
        (made,) = await self._become(self.within(arc), [ReplicaState(arc, 0, (), 0, NEVER)])
        return made


async def _not_put(self: Destination, records: Any) -> None:
    return None


async def _prepared_unsealed(self: Replicas, arc: Arc, epoch: int, position: Version, logged: Any) -> None:
    async with self._one_step:
        await self._become(self.within(arc), [ReplicaState(arc, 0, (), 0, position)], None, logged)


def _of_what_is_there(self: Replicas, ring: RingMap) -> None:
    """Not of what comes to be later, which is the second thing that stops a newcomer from following too early."""
    self._ring = ring
    self._stop_following()
    self._ring = None


def _any_epoch(self: Chains, arc: Arc, epoch: int, sender: bytes) -> Replica:
    replica = self.replicas.of(arc)
    if replica is None or replica.gone or not replica.state.chain:
        raise NotServing("nothing of it here")
    return replica


def _shortest_first(version: Version) -> Version:
    return version


def _nothing_remembered(self: Log, operation: Any) -> Logged | None:
    return None


def _a_part_for_the_whole(known: Logged, edits: Any) -> tuple[()]:
    return ()


async def _nobody_is_told(self: Changer, chart: Any, concerned: Any) -> None:
    return None


_lease = Keepers.lease


async def _as_long_as_keepers_count(self: Keepers, life: bytes, revision: int) -> float | None:
    until = await _lease(self, life, revision)
    return None if until is None else until + self._settings.lease_margin


async def _as_if_power_never_failed(store: Any, boot: bytes, random: Any) -> Identity:
    return await recognized(store, await store.read_note(BOOT) or boot, random)


MUTANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "no lease check": [(Lease, "holds", lambda self: True)],
    "lease checked before the read": [(Chains, "read", _read_checking_first)],
    "no seal": [
        (Replica, "follows", property(lambda self: not self.gone and self.life in self.state.chain)),
        (Changer, "tell", _nobody_is_told),
    ],
    "survivors not all sealed": [(Changer, "_seal", _silent_ones_stay)],
    "store id ignored": [(Replicas, "_exactly", _empty_if_lost)],
    "no session table": [(Log, "remembers", _nothing_remembered)],
    "no copy to a newcomer": [(Destination, "_put", _not_put)],
    "what a newcomer has is taken for right": [(Fingerprint, "digest", b"")],
    "newcomer not sealed": [(Replicas, "prepare", _prepared_unsealed), (Replicas, "supersede", _of_what_is_there)],
    "no epoch check on a link": [(Chains, "_following", _any_epoch)],
    "survivors out of chain order": [(change, "_backwards", _shortest_first)],
    "lease without a margin": [(Keepers, "lease", _as_long_as_keepers_count)],
    "a power cut goes unnoticed": [(ring_node, "recognized", _as_if_power_never_failed)],
    "what reaches the disk while it is read is not looked for": [
        (replica_module, "Look", lambda names, moving: Look(names, set())),
    ],
    "covers ignored": [(ordering, "left", _a_part_for_the_whole)],
    "what a newer map says is not heeded": [(Replicas, "supersede", lambda self, ring: None)],
}


@contextmanager
def mutant(name: str) -> Iterator[None]:
    """The protocol without one of its parts."""
    with ExitStack() as stack:
        for owner, attribute, replacement in MUTANTS[name]:
            stack.enter_context(patch.object(owner, attribute, replacement))
        yield


def first_seed_that_catches(name: str, scenario: Callable[[int], Any], seeds: range) -> int | None:
    """The first seed in which clients of a mutant are told what no atomic store tells, and those of the protocol as it
    is are not: requests that the network serves twice, the second time long after the answer, deceive both."""
    for seed in seeds:
        with mutant(name):
            deceived = _deceives(scenario, seed)
        if deceived and not _deceives(scenario, seed):
            return seed
    return None


def _deceives(scenario: Callable[[int], Any], seed: int) -> bool:
    try:
        run(scenario(seed), seed=seed)
    except AssertionError as error:
        return str(error).startswith((Finding.NOT_LINEARIZABLE, Finding.VERSIONS_DO_NOT_GROW))
    return False
