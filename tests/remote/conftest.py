"""Both kinds of loop that a node may run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.remote import ends


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of a module that asks for this run on each."""
    ends.LOOP[0] = request.param
    yield
    ends.LOOP[0] = "asyncio"
