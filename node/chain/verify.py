"""Comparing the replicas of every arc by a digest of their content.

Replicas are compared at the same place in their histories; while writes go on, an arc is looked at again until two
looks meet. What never does is reported as not compared, not as different.
"""

from __future__ import annotations

import asyncio

from node.chain.messages import DIGEST, Digest
from node.chain.ring_map import Entry, RingMap
from node.codec import Address
from node.data import Verified
from node.errors import RingError
from node.identifiers import Arc
from node.settings import Settings
from node.transport import Transport

LOOKS = 5
"""How often an arc is looked at while its replicas move on."""


async def verify(ring: RingMap, transport: Transport, settings: Settings) -> tuple[Verified, ...]:
    """Compare the replicas of all arcs."""
    return tuple(await asyncio.gather(*(_verified(ring, entry, transport, settings) for entry in ring.entries)))


async def _verified(ring: RingMap, entry: Entry, transport: Transport, settings: Settings) -> Verified:
    residents = [resident for life in entry.chain if (resident := ring.resident(life)) is not None]
    addresses = tuple(resident.address for resident in residents)
    should = min(ring.policy.replicas, len({seat.life for seat in ring.seats}))
    problem, keys = "", 0
    for _ in range(LOOKS):
        answers = await asyncio.gather(*(_digest(address, entry.arc, transport, settings) for address in addresses))
        digests = [answer for answer in answers if isinstance(answer, Digest)]
        keys = max((digest.count for digest in digests), default=0)
        problem = _problem(addresses, answers, digests)
        if not problem:
            break
        await asyncio.sleep(settings.backoff)
    if not problem and len(addresses) < should:
        problem = f"{len(addresses)} of {should} replicas: others are being made, or there are too few nodes"
    return Verified(entry.arc, keys, addresses, problem)


def _problem(addresses: tuple[Address, ...], answers: list[Digest | RingError], digests: list[Digest]) -> str:
    for address, answer in zip(addresses, answers, strict=True):
        if isinstance(answer, RingError):
            return f"{address} does not answer: {answer}"
    if len({digest.position for digest in digests}) > 1:
        return "not compared: writes go on"
    if len({digest.digest for digest in digests}) > 1:
        counts = ", ".join(f"{a} has {d.count}" for a, d in zip(addresses, digests, strict=True))
        return f"replicas differ: {counts} keys"
    return ""


async def _digest(address: Address, arc: Arc, transport: Transport, settings: Settings) -> Digest | RingError:
    try:
        return await DIGEST.ask(transport, address, arc, deadline=4 * settings.operation)
    except RingError as error:
        return error
