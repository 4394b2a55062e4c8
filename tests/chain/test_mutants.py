"""The simulation finds what it is for: each part of the protocol, taken away, gives a history that is not linearizable.

Where chance would need very many seeds, the schedule is aimed: at newcomers, at slow disks, at late messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from node.simulation.faults import CALM, LOSSY, Faults
from node.simulation.seeds import seeds
from tests.chain import chaos as schedules
from tests.chain.batches import parts_of_a_batch
from tests.chain.chaos import LONG_LEASES, Clients, assert_linearizable, chaos, slow_tails
from tests.chain.mutants import MUTANTS, first_seed_that_catches
from tests.chain.newcomers import a_head_of_long_ago_comes_back
from tests.chain.power import machines_lose_power
from tests.chain.rig import SETTINGS, ChainRing
from tests.simulation.disks import SlowStore
from tests.simulation.rings import until


@dataclass(frozen=True, slots=True)
class Aim:
    """What makes a mutant's mistake likely; `within` seeds it is found, from `first` on: some take long to check."""

    within: int
    first: int = 0
    faults: Faults = LOSSY
    stalls: float = 0.0
    lives_are_kept: bool = False
    newcomers: bool = False
    clocks: bool = False
    scenario: Callable[[int], Coroutine[Any, Any, None]] | None = None
    """Of its own."""


AIMS = {
    "no lease check": Aim(20),
    "survivors not all sealed": Aim(40),
    "no session table": Aim(20),
    "no copy to a newcomer": Aim(20),
    "what a newcomer has is taken for right": Aim(20),
    "survivors out of chain order": Aim(20),
    "lease without a margin": Aim(20, faults=CALM, clocks=True),
    "a power cut goes unnoticed": Aim(20, scenario=partial(machines_lose_power, losses=3)),
    "what reaches the disk while it is read is not looked for": Aim(400, faults=CALM, stalls=0.02),
    "covers ignored": Aim(20, scenario=parts_of_a_batch),
    "newcomer not sealed": Aim(20, scenario=a_head_of_long_ago_comes_back),
    "no seal": Aim(20, 8, CALM, newcomers=True),
    "store id ignored": Aim(400, lives_are_kept=True),
    "no epoch check on a link": Aim(400),
    "what a newer map says is not heeded": Aim(400),
    "lease checked before the read": Aim(1000, stalls=0.05),
}
QUICK = [name for name, aim in AIMS.items() if aim.within <= 40]


def test_every_mutant_is_aimed_at() -> None:
    assert set(AIMS) == set(MUTANTS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Mutants complain a lot."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def assert_caught(name: str, aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seed: int) -> None:
        if aim.scenario is not None:
            await aim.scenario(seed)
            return
        settings = replace(SETTINGS, lease=8.0, settle_period=1.0) if aim.newcomers else SETTINGS
        if aim.clocks:
            settings = LONG_LEASES
        ring = ChainRing(seed, aim.faults, settings)
        ring.lives_are_kept = aim.lives_are_kept
        hosts = await ring.of(5)
        await until(ring.is_settled, 60, "settled")
        clients = Clients(ring, seed, 12 if aim.newcomers else 4 if aim.clocks else 6)
        if aim.clocks:
            await slow_tails(ring, hosts, 1)
        elif aim.newcomers:
            for _ in range(6):
                await asyncio.sleep(ring.random.uniform(0, 15))
                if ring.is_settled():
                    victim = ring.random.choice(hosts)
                    ring.crash(victim)
                    ring.wipe(victim)
                    await ring.start(victim)
        else:
            await chaos(ring, hosts, 6)
        await clients.stop()
        assert_linearizable(clients.history)

    monkeypatch.setattr(SlowStore, "stalls", aim.stalls)
    if aim.newcomers or aim.clocks:
        monkeypatch.setattr(schedules, "KEYS", 1)
    caught = first_seed_that_catches(name, scenario, seeds(aim.within, aim.first))
    assert caught is not None, f"{name}: not caught within {aim.within} seeds"


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(name, AIMS[name], monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in AIMS if name not in QUICK])
def test_a_rare_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(name, AIMS[name], monkeypatch)
