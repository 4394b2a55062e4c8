"""The source of a copy: what it sends, and what it forgets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from node.chain.messages import BeginMirror, Change, Changes, Command, Delta, Operation, Outcome
from node.chain.mirror import Source
from node.chain.replicas import Replicas
from node.chain.ring_map import Entry
from node.codec import pack
from node.data import Stored
from node.errors import Moved, Unavailable
from node.identifiers import Arc, Identifier, Name, name_of
from node.settings import KIB
from node.simulation.loop import run
from node.store.memory import MemoryDisk, MemoryStore
from tests.chain.rig import ChainRing
from tests.simulation.rings import quick, until

ME = b"m" * 16
WHOLE = Arc(Identifier(0), Identifier(0))
CHUNK = 2 * KIB


class Failing(MemoryStore):
    """A disk that does not give what is asked for, once."""

    fails = False

    async def get_many(self, names: Sequence[Name]) -> list[bytes | None]:
        if self.fails:
            self.fails = False
            raise Unavailable("the store cannot be read now")
        return await super().get_many(names)


async def source() -> tuple[Source, Replicas, Failing]:
    """One that has the whole ring."""
    store = Failing(MemoryDisk(), Random(1))
    replicas = Replicas(store, asyncio.ensure_future, lambda: 0.0, ME)
    await replicas.load()
    await replicas.found(Entry(WHOLE, 1, (ME,)))
    return Source(replicas, quick(chunk=CHUNK), Random(1)), replicas, store


async def put(replicas: Replicas, number: int) -> None:
    """By a client of its own each time."""
    (replica,) = replicas
    version = replica.next_version()
    change = Change(name_of(b"key %d" % number), pack(Stored(version, b"%d" % number)))
    operation = Operation(number.to_bytes(16, "big"), 0, 1)
    await replica.take((Command(version, operation, (change,), Outcome(), bytes(8)),))


async def rest(one: Source, mirror: bytes, sealed: int) -> list[Changes]:
    """All that is left to be sent."""
    sent: list[Changes] = []
    while not sent or sent[-1].left:
        sent.append(await one.delta(Delta(mirror, len(sent) + 1000 * sealed, sealed)))
    return sent


def test_operations_are_sent_in_messages_of_bounded_size_and_none_is_lacking() -> None:
    async def scenario() -> None:
        one, replicas, _ = await source()
        for number in range(300):
            await put(replicas, number)
        (replica,) = replicas
        mirror = await one.begin(BeginMirror(WHOLE))
        for number in range(300, 310):
            await put(replicas, number)
        sent = await rest(one, mirror, 0)
        for number in range(310, 315):
            await put(replicas, number)
        await replicas.seal(WHOLE, 1)
        under_seal = await rest(one, mirror, 1)
        assert len(sent) > 5 > len(under_seal), "most of it before the arc stands still"
        sent += under_seal
        assert max(len(pack(changes)) for changes in sent) < 1.5 * CHUNK
        assert [changes.position for changes in sent[:-1]] == [(0, 0)] * (len(sent) - 1)
        assert sent[-1].position == replica.position
        operations = [logged.operation for changes in sent for logged in changes.log]
        assert operations == [logged.operation for logged in replica.log.entries.values()]

    run(scenario())


def test_all_operations_are_sent_from_a_part_of_an_arc_that_was_split() -> None:
    async def scenario() -> None:
        one, replicas, _ = await source()
        for number in range(3):
            await put(replicas, number)
        await replicas.seal(WHOLE, 1)
        half = Arc(Identifier(0), WHOLE.middle())
        await replicas.adopt(Entry(half, 2, (ME,)))
        sent = await rest(one, await one.begin(BeginMirror(half)), 0)
        operations = {each.operation.client for changes in sent for each in changes.log if each.operation}
        assert operations == {number.to_bytes(16, "big") for number in range(3)}

    run(scenario())


def test_what_could_not_be_read_is_sent_the_next_time() -> None:
    async def scenario() -> None:
        one, replicas, store = await source()
        mirror = await one.begin(BeginMirror(WHOLE))
        for number in range(10):
            await put(replicas, number)
        store.fails = True
        with pytest.raises(Unavailable):
            await one.delta(Delta(mirror, 1, 0))
        sent = await one.delta(Delta(mirror, 1, 0))
        assert {change.name for change in sent.records} == {name_of(b"key %d" % number) for number in range(10)}

    run(scenario())


def test_a_question_that_comes_late_takes_nothing_away_from_the_copy() -> None:
    async def scenario() -> None:
        one, replicas, _ = await source()
        mirror = await one.begin(BeginMirror(WHOLE))
        sent: list[Changes] = []
        for number in range(1, 4):
            await put(replicas, number)
            if number == 3:
                with pytest.raises(Moved):
                    await one.delta(Delta(mirror, 1, 0))
            sent.append(await one.delta(Delta(mirror, number, 0)))
        copied = {change.name for changes in sent for change in changes.records}
        assert copied == {name_of(b"key %d" % number) for number in range(1, 4)}

    run(scenario())


def test_a_source_does_not_watch_for_ever_what_a_newcomer_got_long_ago() -> None:
    async def scenario() -> None:
        ring = ChainRing(2)
        hosts = await ring.of(4)
        await until(ring.is_settled, 60, "settled")
        ring.crash(hosts[0])
        ring.wipe(hosts[0])
        await asyncio.sleep(15)
        await ring.start()
        await until(ring.is_settled, 60, "settled again")
        replicas = [replica for host in hosts[1:] for replica in ring.space(host).held]
        assert any(replica.watches for replica in replicas), "nothing was copied: this test shows nothing"
        await asyncio.sleep(300)
        assert not any(replica.watches for replica in replicas)

    run(scenario())
