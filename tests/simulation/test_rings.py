"""Whole rings under faults, on virtual time. A failure names its seed, and the seed replays it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from node.codec import Contact
from node.data import Stored
from node.errors import Definite, OutcomeUnknown, WrongRing
from node.eventual.commons import Commons
from node.identifiers import Arc, Identifier
from node.replication.messages import ADOPT, HELLO, Adoption
from node.simulation.faults import CALM, LOSSY, Faults
from node.simulation.seeds import for_each_seed
from node.simulation.world import Host
from node.values import pack_value, unpack_value
from tests.simulation.rings import Ring, SimulatedChord, SimulatedRing, persistently, quick, until

KEYS = 40
HEALED = 60.0
"""Virtual seconds in which a ring under lossy faults must be right again."""

AGREED = 10.0
"""Virtual seconds in which replicas of an eventual ring agree."""


async def fill(ring: SimulatedRing, hosts: list[Host]) -> dict[bytes, bytes]:
    """Keys written through all hosts."""
    written = {b"key %d" % n: b"value %d" % n for n in range(KEYS)}
    for n, (key, value) in enumerate(written.items()):
        await persistently(
            lambda n=n, key=key, value=value: ring.node(hosts[n % len(hosts)]).data.operations.put(key, value)
        )
    return written


async def assert_all_there(ring: SimulatedRing, hosts: list[Host], written: dict[bytes, bytes]) -> None:
    """Every key reads as written through every host."""
    for host in hosts:
        for key, value in written.items():
            stored = await persistently(lambda key=key: ring.node(host).data.operations.get(key))
            assert isinstance(stored, Stored) and stored.value == value, f"{key!r} through {host} is {stored}"


def assert_one_answers(ring: SimulatedRing) -> None:
    """No point is answered for by two nodes at the same time."""
    answering = [
        (node.address, replica.arc)
        for node in ring.nodes.values()
        if node.keyspace.lease.holds()
        for replica in node.keyspace.held
        if replica.is_tail
    ]
    for n, (one, arc) in enumerate(answering):
        for other, overlap in answering[:n]:
            assert not arc.intersect(overlap), f"{one} and {other} both answer for {arc}"


@pytest.mark.parametrize("faults", [CALM, LOSSY], ids=["calm", "lossy"])
def test_a_ring_comes_up_and_every_pointer_is_right(faults: Faults) -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedChord(seed, faults)
        await ring.of(12)
        await until(ring.is_ideal, HEALED, "right lists and predecessors")
        await until(lambda: ring.is_ideal(fingers=True), HEALED, "right fingers")

    for_each_seed(14, scenario)


def test_one_node_answers_for_a_point_at_every_step_while_nodes_join_leave_and_sleep() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        asyncio.get_running_loop().after_step(lambda: assert_one_answers(ring))  # type: ignore[attr-defined]
        hosts = await ring.of(4)
        written = await fill(ring, hosts)
        for _ in range(4):
            hosts.append(await ring.start(ring.random.choice(hosts)))
            await ring.leave(hosts.pop(ring.random.randrange(len(hosts))))
            sleeper = ring.random.choice(hosts)
            sleeper.pause()
            await asyncio.sleep(ring.random.uniform(0, 6))
            sleeper.resume()
        await assert_all_there(ring, hosts, written)

    for_each_seed(3, scenario)


def test_every_acknowledged_write_survives_joins_and_leaves_under_load() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(4)
        acknowledged: dict[bytes, int] = {}
        uncertain: set[bytes] = set()
        going_on = True

        async def client(number: int) -> None:
            random = Random(f"client {seed} {number}")
            turn = 0
            while going_on:
                key = b"%d/%d" % (number, random.randrange(40))
                if key in uncertain:
                    await asyncio.sleep(0.001)
                    continue
                router = ring.node(random.choice(hosts)).data.operations
                turn += 1
                try:
                    if key in acknowledged:
                        stored = await router.get(key)
                        assert stored is not None, f"{key!r} is lost"
                        assert unpack_value(stored.value) >= acknowledged[key], f"{key!r} went back in time"
                    await router.put(key, pack_value(turn, ring.settings))
                    acknowledged[key] = turn
                except Definite:
                    continue
                except OutcomeUnknown:
                    acknowledged.pop(key, None)
                    uncertain.add(key)  # it may be written at any time from now on

        clients = [asyncio.create_task(client(n)) for n in range(6)]
        for _ in range(3):
            hosts.append(await ring.start(ring.random.choice(hosts)))
            await ring.leave(hosts.pop(ring.random.randrange(len(hosts))))
        going_on = False
        await asyncio.gather(*clients)
        for key, turn in acknowledged.items():
            stored = await persistently(lambda key=key: ring.node(hosts[0]).data.operations.get(key))
            assert isinstance(stored, Stored) and unpack_value(stored.value) >= turn

    for_each_seed(4, scenario)


def test_crashed_nodes_come_back_with_their_keys() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(8)
        written = await fill(ring, hosts)
        crashed = ring.random.sample(hosts, 2)
        for host in crashed:
            ring.crash(host)
        await asyncio.sleep(ring.random.choice([0.1, 3.0, 15.0]))
        for host in crashed:
            await ring.start(host=host)
        await until(ring.is_ideal, HEALED, "right again")
        await assert_all_there(ring, hosts, written)

    for_each_seed(4, scenario)


def test_all_crashed_and_restarted_is_one_ring_with_all_keys() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(6)
        await until(ring.is_ideal, HEALED, "right")
        await asyncio.sleep(2)
        written = await fill(ring, hosts)
        for host in hosts:
            ring.crash(host)
        await asyncio.gather(*(ring.start(host=host) for host in hosts))
        await until(ring.is_ideal, HEALED, "one ring again")
        await assert_all_there(ring, hosts, written)

    for_each_seed(4, scenario)


def test_a_first_node_that_dies_while_it_begins_can_begin_again() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        host = ring.world.host()
        host.start()
        starting = host.spawn(ring.boot(host))
        await until_is_left(host, ring.random.choice(["keeper", "replica/", "map", "identity"]))
        assert not starting.done()
        ring.crash(host)
        await ring.start(host=host)
        await assert_all_there(ring, [host], await fill(ring, [host]))

    for_each_seed(10, scenario)


def test_nobody_counts_on_a_node_that_does_not_know_itself_after_a_crash() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        first = await ring.start()
        host = ring.world.host()
        host.start()
        starting = host.spawn(ring.boot(host, first))

        def life_counts() -> bool:
            chart, node = ring.node(first).keyspace.cartography.chart, ring.nodes.get(host.address)
            return chart is not None and node is not None and chart.ring.resident(node.identity.node) is not None

        while not life_counts():
            await asyncio.sleep(0.0001)
        life = ring.node(host).identity.node
        assert not starting.done()
        ring.crash(host)
        await ring.start(first, host)
        assert ring.node(host).identity.node == life

    for_each_seed(10, scenario)


async def until_is_left(host: Host, note: str) -> None:
    """Until a note of this kind is on the disk of a host."""
    while not any(name.startswith(note) for name in host.disk.notes):
        await asyncio.sleep(0.0001)


def test_a_paused_node_never_answers_from_before_its_pause() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(5)
        written = await fill(ring, hosts)
        await until(ring.is_whole, HEALED, "three replicas of everything")
        sleeper = ring.random.choice(hosts)
        others = [host for host in hosts if host is not sleeper]
        ring_map = ring.node(sleeper).keyspace.cartography.ring
        assert ring_map is not None
        me = ring.node(sleeper).identity.node
        its = [key for key in written if me in ring_map.at(Identifier.of_key(key)).chain]
        sleeper.pause()
        for key in its:
            written[key] = b"newer"
            await persistently(lambda key=key: ring.node(ring.random.choice(others)).data.operations.put(key, b"newer"))
        sleeper.resume()
        await assert_all_there(ring, [sleeper], {key: written[key] for key in its})
        await until(ring.is_ideal, HEALED, "back, once")
        await assert_all_there(ring, hosts, written)

    for_each_seed(4, scenario)


def test_a_ring_cut_in_two_is_one_ring_again_with_all_keys() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed, LOSSY)
        hosts = await ring.of(8)
        written = await fill(ring, hosts)
        half = set(ring.random.sample(range(8), 4))
        one, other = [h for n, h in enumerate(hosts) if n in half], [h for n, h in enumerate(hosts) if n not in half]
        ring.world.network.partition([h.address for h in one], [h.address for h in other])
        await asyncio.sleep(ring.random.uniform(1, 30))
        ring.world.network.heal()
        await until(ring.is_ideal, HEALED, "one ring")
        await assert_all_there(ring, hosts, written)

    for_each_seed(3, scenario)


async def change_at_random(ring: Ring, hosts: list[Host], changes: int) -> None:
    """Joins, leaves and crashes, one after the other, as close together as Zave's precondition of *fail* lets them."""
    for _ in range(changes):
        chance = ring.random.random()
        if chance < 0.5:
            hosts.append(await ring.start(ring.random.choice(hosts)))
            continue
        victim = ring.random.choice(hosts)
        if ring.may_crash(victim):
            hosts.remove(victim)
            if chance < 0.75:
                ring.crash(victim)
            else:
                await ring.leave(victim)
        await asyncio.sleep(ring.random.expovariate(2.0))


def test_the_invariant_holds_at_every_step_of_a_ring_that_changes() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedChord(seed, LOSSY, quick(successors=4))
        hosts = await ring.of(12)
        await until(ring.is_ideal, HEALED, "right before it changes")
        ring.checking = True
        await change_at_random(ring, hosts, 12)
        await until(lambda: ring.is_ideal(fingers=True), HEALED, "right after it changed")

    for_each_seed(14, scenario)


async def grow_and_suffer(seed: int, nodes: int, members: int) -> None:
    """Members join at random, a fifth of the nodes crash, others come and go; once the network is calm all pointers get
    right. (A lost message costs its sender a finger until the next look-up: while any get lost, some finger is wrong.)
    """
    ring = SimulatedChord(seed, LOSSY, quick(stabilize_period=2.0, fingers_period=2.0))
    hosts = await ring.of(10)
    await until(ring.is_ideal, HEALED, "right before it grows")
    ring.checking = True
    while len(hosts) < nodes:
        batch = [ring.start(ring.random.choice(hosts), members=members) for _ in range(5)]
        hosts += await asyncio.gather(*batch)
    for victim in ring.random.sample(hosts, len(hosts) // 5):
        if ring.may_crash(victim):
            hosts.remove(victim)
            ring.crash(victim)
        await asyncio.sleep(ring.random.expovariate(2.0))
    await change_at_random(ring, hosts, 10)
    await until(ring.is_ideal, 300, "right lists")
    ring.world.network.faults = CALM
    await until(lambda: ring.is_ideal(fingers=True), 120, "right lists and fingers")


def test_members_join_a_fifth_crash_others_come_and_go() -> None:
    for_each_seed(1, lambda seed: grow_and_suffer(seed, nodes=30, members=2))


@pytest.mark.soak
def test_a_thousand_members_join_a_fifth_crash_others_come_and_go() -> None:
    """The members of 250 nodes: as many members cost much less than as many nodes of one each."""
    for_each_seed(3, lambda seed: grow_and_suffer(seed, nodes=250, members=4), max_seconds=3600)


def test_a_node_that_is_brought_into_another_ring_loses_no_key_that_is_put_at_that_moment() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        one, other = await ring.start(), await ring.start()
        node = ring.nodes[other.address]
        count = node.store.count

        async def late(arc: Arc) -> int:
            counted = await count(arc)
            await asyncio.sleep(0.5)
            return counted

        node.store.count = late  # type: ignore[method-assign]
        admitting = one.spawn(ring.nodes[one.address].admit(other.address))
        await asyncio.sleep(0.2)
        await other.run(node.data.operations.put(b"key", b"value"))
        with pytest.raises(WrongRing, match="1 keys"):
            await admitting
        stored = await other.run(node.data.operations.get(b"key"))
        assert stored is not None and stored.value == b"value"
        await other.run(node.data.operations.delete(b"key"))
        await one.run(ring.nodes[one.address].admit(other.address))
        assert not node.residence.is_alone()

    for_each_seed(3, scenario)


@pytest.mark.parametrize("theirs", ["chain", "eventual"])
def test_a_node_that_is_brought_out_of_an_eventual_ring_loses_no_key_that_is_put_at_that_moment(theirs: str) -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        ring.policy = replace(ring.policy, consistency=theirs, replicas=1)
        one = await ring.start()
        ring.policy = replace(ring.policy, consistency="eventual")
        other = await ring.start()
        operations = ring.node(other).data.operations
        acknowledged: list[bytes] = []

        async def put(key: bytes) -> None:
            await asyncio.sleep(ring.random.uniform(0, 0.01))
            try:
                await other.run(operations.put(key, b"value"))
            except Definite:
                return
            acknowledged.append(key)

        puts = [asyncio.ensure_future(put(b"key %d" % n)) for n in range(3)]
        try:
            await one.run(ring.node(one).admit(other.address))
        except WrongRing:
            assert ring.node(other).residence.is_alone()
        else:
            await until(ring.is_ideal, HEALED, "right pointers")
        await asyncio.gather(*puts)
        await asyncio.sleep(AGREED)
        await assert_all_there(ring, [other], dict.fromkeys(acknowledged, b"value"))

    for_each_seed(60, scenario)


def test_a_node_that_could_not_be_brought_into_another_ring_goes_on_with_one_as_it_had() -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        one = await ring.start()
        ring.policy = replace(ring.policy, consistency="eventual", siblings=True)
        other = await ring.start()
        hello = await HELLO.ask(one.transport, one.address, None, deadline=1)
        gone = Contact(hello.members[0].id, ring.world.host().address)
        adoption = Adoption(hello.ring, gone, Identifier(1), hello.record)
        with pytest.raises(Definite):
            await ADOPT.ask(one.transport, other.address, adoption, deadline=HEALED)
        data = ring.node(other).data
        assert isinstance(data, Commons)
        for value in (b"milk", b"bread"):
            await other.run(data.put(b"cart", value))
        assert len(await other.run(data.get_all(b"cart"))) == 2
        here = ring.node(other).identity.ring
        ring.crash(other)
        await ring.start(host=other)
        assert ring.node(other).identity.ring == here

    for_each_seed(3, scenario)


@pytest.mark.parametrize("consistency", ["chain", "eventual"])
def test_the_last_node_of_a_ring_that_ended_in_good_order_comes_back_alone(consistency: str) -> None:
    async def scenario(seed: int) -> None:
        ring = SimulatedRing(seed)
        ring.policy = replace(ring.policy, consistency=consistency)
        hosts = await ring.of(3)
        written = await fill(ring, hosts)
        await until(ring.is_ideal, HEALED, "a ring")
        for host in reversed(hosts):
            await asyncio.sleep(ring.random.uniform(0.5, 5))
            await ring.leave(host)
        await asyncio.wait_for(ring.start(host=hosts[0]), 10)
        await assert_all_there(ring, hosts[:1], written)
        await asyncio.wait_for(ring.start(hosts[0], host=hosts[2]), 30)
        await until(ring.is_ideal, HEALED, "a ring again")

    for_each_seed(8, scenario)
