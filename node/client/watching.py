"""Hearing of every change of some keys, each version once and in order, whatever becomes of the nodes that tell.

The client keeps, for each piece of the ring, the version up to which it has heard, and asks a member of the chain that
holds the piece for what came after: the tail, or another one if that is gone or has forgotten. Where all have
forgotten (all were started anew, or very much was written while nobody could be asked), what is there now is told, and
`missed` says that versions in between may not have been; of a key that is not there any more, its next version says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from node.chain.messages import NEVER, WATCH, Change, Watched, Watching
from node.chain.ring_map import Entry, Life
from node.chain.router import Router
from node.client.atlas import Atlas
from node.codec import unpack
from node.data import Stored, Version
from node.errors import NotServing, RingError
from node.identifiers import EVERYTHING, Arc, Identifier, key_in
from node.settings import Settings
from node.transport import Transport
from node.values import SYSTEM, readable, unpack_value

Place = tuple[Arc, Version | None]
"""A piece of the ring, and how far it was heard of; None: not yet."""
QUEUE = 1_000
"""Events that wait for whoever watches; when there are more, nothing is asked for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a key."""

    key: str | bytes
    value: Any
    """None if the key was deleted."""
    version: Version
    deleted: bool = False
    missed: bool = False
    """Whether there may have been versions before this one that nobody remembers."""


class Watch:
    """The changes of a key, or of all that begin with a prefix: `async for event in watch`. Close it in the end."""

    def __init__(
        self, key: bytes, exact: bool, atlas: Atlas, router: Router, transport: Transport, settings: Settings
    ) -> None:
        self._key = key
        self._exact = exact
        self._atlas = atlas
        self._router = router
        self._transport = transport
        self._settings = settings
        where = Identifier.of_key(key)
        self._all = Arc(where.plus(-1), where) if exact else EVERYTHING
        self._told: dict[bytes, Version] = {}
        """What was told of keys ahead of how far their places were heard of."""
        self._gaps: list[Arc] = []
        """Pieces of which something was not told."""
        self._sure: set[bytes] = set()
        """Keys in them of which something was told since."""
        self._events: asyncio.Queue[Event] = asyncio.Queue(QUEUE)
        self._news = asyncio.Event()
        """Set when there is another event, or there will be none."""
        self._ready: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Watch:
        """Hear of all changes from now on; returns once that is so. Raises RingErrors if that takes too long."""
        places = await self._from_now(self._all)
        self._task = asyncio.ensure_future(self._keep(places))
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    @property
    def ended(self) -> bool:
        """Whether it hears nothing any more."""
        return self._task is not None and self._task.done()

    def close(self) -> None:
        """Hear no more."""
        if self._task is not None:
            self._task.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            self._ready.extend(await self.batch())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def batch(self) -> list[Event]:
        """All events that are there, at least one; none when the watch was closed. Raises what ended it otherwise."""
        while self._events.empty() and self._task is not None and not self._task.done():
            self._news.clear()
            await self._news.wait()  # it takes nothing: the wait may be broken off at any moment
        found = self._waiting()
        if not found and self._task is not None and not self._task.cancelled():
            self._task.result()
        return found

    async def _tell(self, event: Event) -> None:
        await self._events.put(event)
        self._news.set()

    def _waiting(self) -> list[Event]:
        found: list[Event] = []
        while not self._events.empty():
            found.append(self._events.get_nowait())
        return found

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _keep(self, idle: list[Place]) -> None:
        """Ask about every arc again and again, for ever; none waits for another."""
        asking: dict[asyncio.Task[list[Place]], Arc] = {}
        try:
            while True:
                later: list[Place] = []
                for entry, places in self._by_entry(idle):
                    if entry.arc in asking.values():  # with these it becomes one question when that one is answered
                        later += places
                    else:
                        asking[asyncio.ensure_future(self._ask(entry, places))] = entry.arc
                done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                idle = later
                for task in done:
                    del asking[task]
                    idle += task.result()
        finally:
            for task in asking:
                task.cancel()

    def _by_entry(self, places: list[Place]) -> list[tuple[Entry, list[Place]]]:
        """Pieces of the ring by who holds them now; neighbours heard of equally far are one piece."""
        ring = self._atlas.ring
        found: dict[Arc, tuple[Entry, list[Place]]] = {}
        left = list(places)
        while left:
            arc, after = left.pop()
            entry = ring.at(arc.start.plus(1))
            part = arc.intersect(entry.arc)[0]
            left += [(rest, after) for rest in arc.minus(part)]
            found.setdefault(entry.arc, (entry, []))[1].append((part, after))
        return [(entry, _joined(pieces)) for entry, pieces in found.values()]

    async def _ask(self, entry: Entry, places: list[Place]) -> list[Place]:
        """Ask the members of a chain in turn; how far these places were heard of then."""
        question = Watching(tuple(places), self._key, self._exact, self._settings.watch)
        forgotten = 0
        for life in reversed(entry.chain):
            try:
                answer = await self._of(life, question, self._settings.watch + self._settings.call)
            except RingError:
                continue
            if not answer.unknown:
                return await self._heard(places, answer)
            forgotten += 1
        try:
            if forgotten == len(entry.chain):
                return await self._look(places)
            await asyncio.sleep(self._settings.backoff)
            await self._atlas.current()
        except RingError:
            await asyncio.sleep(self._settings.backoff_limit)
        return places

    async def _of(self, life: Life, question: Watching, patience: float) -> Watched:
        resident = self._atlas.ring.resident(life)
        if resident is None:
            raise NotServing("the ring map is changing: try again")
        return await WATCH.ask(self._transport, resident.address, question, deadline=patience)

    async def _heard(self, places: list[Place], answer: Watched) -> list[Place]:
        for version, change in answer.events:
            if version > self._told.get(key := key_in(change.name), NEVER) and not key.startswith(SYSTEM):
                await self._tell(_event(version, change, self._is_after_gap(key)))
        for key, version in list(self._told.items()):
            if version <= answer.upto and any(Identifier.of_key(key) in arc for arc, _ in places):
                del self._told[key]
        return [(arc, max(after or NEVER, answer.upto)) for arc, after in places]

    async def _from_now(self, arc: Arc) -> list[Place]:
        """The pieces of an arc, each as far as its tail is now. Raises RingErrors if that cannot be known in time."""
        deadline = asyncio.get_running_loop().time() + self._settings.operation
        while True:
            try:
                found: list[Place] = []
                for entry, places in self._by_entry([(arc, None)]):
                    question = Watching(tuple(places), self._key, self._exact, 0.0)
                    answer = await self._of(entry.tail, question, self._settings.call)
                    found += [(part, answer.upto) for part, _ in places]
                return found
            except RingError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(self._settings.backoff)
            with contextlib.suppress(RingError):
                await self._atlas.current()

    async def _look(self, places: list[Place]) -> list[Place]:
        """Nobody knows what happened: tell what is there now that was not heard of yet."""
        gaps = [arc for arc, _ in places]
        self._gaps = list(dict.fromkeys((*self._gaps, *gaps)))
        self._sure = {key for key in self._sure if not any(Identifier.of_key(key) in gap for gap in gaps)}
        fresh = [place for arc, _ in places for place in await self._from_now(arc)]
        async for records in self._router.scan(self._key):
            for key, stored in records:
                after = next((after for arc, after in places if Identifier.of_key(key) in arc), None)
                if after is None or (self._exact and key != self._key):
                    continue
                if stored.version > max(after, self._told.get(key, NEVER)):
                    self._told[key] = stored.version
                    self._sure.add(key)
                    value = unpack_value(stored.value)
                    await self._tell(Event(readable(key), value, stored.version, missed=True))
        return fresh

    def _is_after_gap(self, key: bytes) -> bool:
        """Whether nothing was told of a key since something in its place was not."""
        if key in self._sure or not any(Identifier.of_key(key) in gap for gap in self._gaps):
            return False
        self._sure.add(key)
        return True


def _joined(places: list[Place]) -> list[Place]:
    """Neighbouring pieces that were heard of equally far as one."""
    joined: list[Place] = []
    for arc, after in sorted(places, key=lambda place: place[0].start):
        if joined and joined[-1][0].end == arc.start and joined[-1][1] == after:
            joined[-1] = (Arc(joined[-1][0].start, arc.end), after)
        else:
            joined.append((arc, after))
    return joined


def _event(version: Version, change: Change, missed: bool) -> Event:
    key = readable(key_in(change.name))
    if change.body is None:
        return Event(key, None, version, True, missed)
    return Event(key, unpack_value(unpack(Stored, change.body).value), version, False, missed)
