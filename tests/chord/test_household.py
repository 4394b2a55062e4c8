"""Coming into a ring: where a newcomer may take its place, and how many it asks on the way."""

from __future__ import annotations

from random import Random

import pytest

from node.chord.household import SURVEYED, Household
from node.codec import Address, Contact
from node.errors import IdTaken, OutcomeUnknown
from node.identifiers import Identifier
from node.simulation.loop import run
from node.tasks import Tasks
from node.transport import Transport
from tests.simulation.rings import SimulatedChord, until


class Deafened:
    """A transport on which the first calls to one node get lost; it counts what is asked."""

    def __init__(self, transport: Transport, deaf_to: Address | None = None, times: int = 0) -> None:
        self._transport = transport
        self._deaf_to = deaf_to
        self._left = times
        self.asked = 0

    async def call(self, to: Address, method: str, payload: bytes, *, deadline: float) -> bytes:
        self.asked += 1
        if to == self._deaf_to and self._left:
            self._left -= 1
            raise OutcomeUnknown("lost")
        return await self._transport.call(to, method, payload, deadline=deadline)


def newcomer(ring: SimulatedChord, deaf_to: Address | None = None, times: int = 0) -> tuple[Household, Deafened]:
    """A household on a new host, on a transport of the test's making."""
    host = ring.world.host()
    host.start()
    transport = Deafened(host.transport, deaf_to, times)
    household = Household(host.address, transport, ring.settings, Random(1), host.clock, Tasks(), ring.changed)
    household.neighbours.ring = b"ring"
    return household, transport


def contacts(ring: SimulatedChord) -> list[Contact]:
    return sorted((h.residence.first.me for h in ring.households.values()), key=lambda contact: contact.id)


@pytest.mark.parametrize("place", range(10))
def test_a_newcomer_never_passes_over_a_predecessor_whose_answer_was_lost(place: int) -> None:
    """Its list would begin behind members that live, and Zave's invariant would be gone."""

    async def scenario() -> None:
        ring = SimulatedChord(1)
        await ring.of(10)
        await until(ring.is_ideal, 60, "right before it grows")
        ring.checking = True
        before, seed = contacts(ring)[place], contacts(ring)[(place + 1) % 10]
        household, _ = newcomer(ring, deaf_to=before.address, times=3)
        await household.join(seed, before.id.plus(1))
        member = household.residence.first
        assert member.state.predecessor == before
        assert member.state.successor == contacts(ring)[(place + 1) % 10]

    run(scenario())


def test_a_second_member_of_the_same_id_is_refused() -> None:
    async def scenario() -> None:
        ring = SimulatedChord(1)
        await ring.of(3)
        one, other, _ = contacts(ring)
        household, _ = newcomer(ring)
        with pytest.raises(IdTaken, match=one.id.hex):
            await household.join(other, Identifier(one.id))
        assert not household.residence.members

    run(scenario())


@pytest.mark.parametrize(("members", "most"), [(1, 200), (12, 500)])
def test_a_newcomer_of_a_large_ring_asks_a_part_of_it(members: int, most: int) -> None:
    async def scenario() -> None:
        ring = SimulatedChord(1)
        seed = await ring.start(members=members)
        while len(ring.invariant.ring) < 25 * members:
            await ring.start(seed, members=members)
        assert (25 * members > SURVEYED) == (members == 12)
        household, transport = newcomer(ring)
        await household.join(contacts(ring)[3], None)
        assert transport.asked < most
        widths = sorted(each.state.arc.width for h in ring.households.values() for each in h.residence.members.values())
        assert widths[-1] <= 4 * widths[0]

    run(scenario())
