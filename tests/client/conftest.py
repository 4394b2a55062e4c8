"""Rings of real processes for clients, one a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node import Ring
from tests.ring.nodes import RingOfProcesses


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RingOfProcesses]:
    """Three nodes, three replicas."""
    processes = RingOfProcesses(tmp_path_factory.mktemp("chains"))
    try:
        processes.of(3)
        yield processes
    finally:
        processes.close()


@pytest.fixture
def ring(chains: RingOfProcesses) -> Iterator[Ring]:
    """A client of them; what it left is gone afterwards."""
    with Ring.connect(f"{chains.nodes[0].host}:{chains.nodes[0].port}") as client:
        yield client
        client.delete_many(list(client.keys()))
