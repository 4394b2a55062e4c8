"""What is free is given back, also between things that stay."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time

import pytest

from node.cli.memory import keep_giving_back
from tests.remote.ends import PATIENCE, resident

MB = 1_000_000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is another")
def test_free_memory_between_what_stays_is_given_back() -> None:
    async def scenario() -> None:
        ctypes.CDLL(None).malloc_trim(0)  # what tests before left free would be used first
        before = resident()
        gone, stays = [], []
        for _ in range(1000):
            gone.append(bytearray(100_000))
            stays.append(bytearray(1000))
        grown = resident()
        assert grown - before > 80 * MB
        gone.clear()
        giving_back = asyncio.create_task(keep_giving_back(0.05))
        deadline = time.monotonic() + PATIENCE
        while resident() > grown - 60 * MB:
            assert time.monotonic() < deadline, f"{resident():,} of {grown:,} bytes are still there"
            await asyncio.sleep(0.02)
        assert len(stays) == 1000
        giving_back.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving_back

    asyncio.run(scenario())
