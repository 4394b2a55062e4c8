"""How the C library keeps memory that is free, for processes that take in and give away megabytes all the time.

Left alone, glibc gives every thread a heap of its own and lets each keep much that is free. Given back at once, memory
has to be zeroed by the kernel each time it is taken again. So: two heaps, and each keeps up to 8 MB. Nodes that served
values of a megabyte while arcs changed hands were seen with up to 610 MB before, and with up to 240 MB since.

What is free between things that stay is kept as well, and grows for as long as things of all sizes come and go: under
TLS, where a connection takes hundreds of kilobytes, by 50 MB in some thousand connections. So a node gives it back now
and then.
"""

from __future__ import annotations

import ctypes

from node.settings import MIB

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h."""


PERIOD = 30.0
"""Seconds between two times that free memory is given back: some milliseconds of work."""


async def keep_giving_back(period: float = PERIOD) -> None:
    """Round after round give free memory back, until cancelled. Does nothing where the C library is another."""
    import asyncio  # commands that need no loop start without it

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(period)
        await asyncio.to_thread(trim, 0)


def bound_free_memory() -> None:
    """Before other threads begin. Does nothing where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_ARENA_MAX, 2), (M_TRIM_THRESHOLD, 8 * MIB), (M_MMAP_THRESHOLD, 4 * MIB)):
            mallopt(parameter, value)
