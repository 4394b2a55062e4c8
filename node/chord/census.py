"""Counting the ring: every member asked for its view, one after the other clockwise. Only who answers is counted."""

from __future__ import annotations

import asyncio

from node.chord.messages import View
from node.chord.neighbours import Neighbours
from node.codec import Contact
from node.identifiers import RING, Identifier, between


async def census(neighbours: Neighbours, start: View) -> tuple[View, ...]:
    """The views of all live members in ring order, `start` first.

    Members are asked a successor list at a time, side by side; a dead one is passed over by its predecessor's list.
    """
    asked: dict[Identifier, View | None] = {start.me.id: start}

    async def ask(contacts: tuple[Contact, ...]) -> None:
        new = [contact for contact in contacts if contact.id not in asked]
        for contact, view in zip(new, await asyncio.gather(*map(neighbours.view_if_alive, new)), strict=True):
            asked[contact.id] = view

    ring = [start]
    while True:
        here = ring[-1]
        await ask(here.successors)
        following = next((v for s in here.successors if (v := asked[s.id]) is not None), None)
        if following is None or not between(here.me.id, following.me.id, start.me.id):
            return tuple(ring)
        ring.append(following)


def size_estimate(view: View) -> int:
    """About how many members the ring has, from how densely the successors of one lie."""
    if not view.successors:
        return 1
    last = view.successors[-1].id
    return max(1, len(view.successors) * RING // (view.me.id.distance_to(last) or RING))
