"""Rings of real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ring.hosts import HOSTS, Hosts
from tests.ring.nodes import RingOfProcesses


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[RingOfProcesses]:
    """An empty ring in a directory of its own; whatever is started in it is killed at the end."""
    processes = RingOfProcesses(tmp_path)
    try:
        yield processes
    finally:
        processes.close()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Hosts on this machine, taken down at the end."""
    made = Hosts(HOSTS)
    try:
        made.up()
    except AssertionError as error:
        made.down()
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield made
    finally:
        made.down()
