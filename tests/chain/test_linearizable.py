"""Chains under everything that goes wrong, with a register that does not: histories of clients are linearizable."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from node.chain.messages import Append, Change, Command, Outcome
from node.codec import unpack
from node.data import Stored
from node.errors import BadValue, NoQuorum
from node.identifiers import EVERYTHING, Identifier, name_of
from node.simulation.faults import CALM, LOSSY
from node.simulation.seeds import VARIABLE, for_each_seed
from tests.chain import chaos as schedules
from tests.chain.batches import parts_of_a_batch
from tests.chain.chaos import FAST, LONG_LEASES, Clients, assert_linearizable, chaos, slow_tails
from tests.chain.newcomers import a_head_of_long_ago_comes_back
from tests.chain.power import OnPageCaches, machines_lose_power
from tests.chain.rig import ChainRing
from tests.simulation.rings import persistently, quick, until

DRIFTING = replace(LOSSY, drift=FAST)
SETTLED = 120.0
"""Virtual seconds in which every arc is where it should be."""


@pytest.mark.timeout(36_000 if VARIABLE in os.environ else 300)
@pytest.mark.parametrize(("replicas", "seeds"), [(1, 60), (2, 55), (3, 35)])
def test_nodes_one_at_a_time_crash_pause_are_cut_off_and_lose_their_disks(replicas: int, seeds: int) -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, DRIFTING if seed % 2 else LOSSY, replicas=replicas)
        size = 4 + seed // 2 % 2  # three keepers or five
        hosts = await (ring.founded(size) if seed % 3 else ring.of(size))
        await until(ring.is_settled, SETTLED, "settled")
        clients = Clients(ring, seed, rate=8)
        await chaos(ring, hosts, 3, wipe=replicas > 1)
        await clients.stop()
        assert_linearizable(clients.history)
        await until(ring.is_settled, SETTLED, "settled again")
        assert not ring.failures

    for_each_seed(seeds, scenario)


def test_a_dead_node_is_done_without_and_comes_back() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM)
        hosts = await ring.of(5)
        await until(ring.is_settled, SETTLED, "settled")
        written = {b"key %d" % n: b"value %d" % n for n in range(60)}
        for key, value in written.items():
            await ring.space(hosts[0]).operations.put(key, value)
        died_at = asyncio.get_running_loop().time()
        ring.crash(hosts[3])
        for key in written:
            written[key] = key + b" again"
            await persistently(lambda key=key: ring.space(hosts[1]).operations.put(key, written[key]))
        assert asyncio.get_running_loop().time() - died_at < 6
        await until(lambda: len(ring.map.seats) == 4 and ring.is_settled(), SETTLED, "settled without it")
        await ring.start(hosts[3])
        await until(lambda: len(ring.map.seats) == 5 and ring.is_settled(), SETTLED, "settled with it")
        for key, value in written.items():
            stored = await ring.space(hosts[3]).operations.get(key)
            assert stored is not None and stored.value == value

    for_each_seed(10, scenario)


def test_a_node_that_was_away_shortly_copies_only_what_it_lacks() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM, quick(chunk=150))
        hosts = await ring.of(4)
        await until(ring.is_settled, SETTLED, "settled")
        keys = [b"key %d" % n for n in range(200)]
        for key in keys:
            await ring.space(hosts[0]).operations.put(key, b"old")
        ring.crash(hosts[3])
        changed = ring.random.sample(keys, 8)
        for key in changed[:4]:
            await persistently(lambda key=key: ring.space(hosts[0]).operations.put(key, b"new"))
        for key in changed[4:]:
            await persistently(lambda key=key: ring.space(hosts[0]).operations.delete(key))
        before = ring.world.network.served.copy()
        await ring.start(hosts[3])
        await until(ring.is_settled, SETTLED, "settled again")
        summed, pulled = (ring.world.network.served[name] - before[name] for name in ("chain.sum", "chain.pull"))
        assert summed > 20, "it had much"
        assert pulled < summed / 2
        for host in hosts[:3]:
            ring.crash(host)
        replicas = list(ring.space(hosts[3]).held)
        for key in keys:
            position = Identifier.of_key(key)
            if any(position in replica.arc for replica in replicas):
                body = await ring.space(hosts[3]).held.store.get(name_of(key))
                value = unpack(Stored, body).value if body is not None else None
                assert value == (b"old" if key not in changed else b"new" if key in changed[:4] else None)

    for_each_seed(2, scenario)


def test_one_client_alone_is_not_held_up_by_nodes_that_join() -> None:
    """No second write comes to push the first one on."""

    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM)
        loop = asyncio.get_running_loop()
        first = await ring.start()
        others = asyncio.gather(*(ring.start() for _ in range(6)))
        number = 0
        while not others.done() or not ring.is_settled():
            began, number = loop.time(), number + 1
            await ring.space(first).operations.put(b"key %d" % number, b"value")
            assert loop.time() - began < 2, f"write {number}"
        assert number > 20

    for_each_seed(10, scenario)


def test_an_append_whose_commands_do_not_grow_is_refused_whole() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM, replicas=2)
        hosts = await ring.of(2)
        await until(ring.is_settled, SETTLED, "settled")
        entry = ring.map.at(Identifier.of_key(b"k"))
        host = next(host for host in hosts if ring.space(host).resident.life == entry.tail)
        chains = ring.space(host).chains
        replica = ring.space(host).held.of(entry.arc)
        assert replica is not None
        before, version = replica.ordered, replica.next_version()
        command = Command(version, None, (Change(name_of(b"k"), b"body"),), Outcome())
        with pytest.raises(BadValue, match="order"):
            await chains.append(Append(entry.arc, entry.epoch, entry.head, before, (command, command)))
        assert replica.ordered == before
        assert replica.is_durable([name_of(b"k")])

    for_each_seed(2, scenario)


def test_arcs_are_merged_though_writes_never_stop() -> None:
    """A write that is always somewhere in the chain must not put the merge off for ever."""

    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, replace(CALM, delay=0.01))
        hosts = await ring.of(4)
        await until(ring.is_settled, SETTLED, "settled")
        going_on = True

        async def write(number: int) -> None:
            while going_on:
                key = b"key %d" % ring.random.randrange(200)
                await persistently(lambda: ring.space(hosts[number % 2]).operations.put(key, b"value"))

        writers = [asyncio.ensure_future(write(number)) for number in range(40)]
        await persistently(lambda: hosts[3].run(ring.space(hosts[3]).part()))
        ring.crash(hosts[3])
        await until(ring.is_settled, 10, "merged")
        going_on = False
        await asyncio.gather(*writers)
        assert max(entry.epoch for entry in ring.map.entries) < 60

    for_each_seed(5, scenario)


def test_any_two_of_five_die_for_good_one_after_the_other_was_made_up_for() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, LOSSY)
        hosts = await ring.of(5)
        await until(ring.is_settled, SETTLED, "settled")
        for n in range(40):
            await persistently(lambda n=n: ring.space(hosts[0]).operations.put(b"key %d" % n, b"%d" % n))
        for victim in ring.random.sample(hosts[1:], 2):
            ring.crash(victim)
            left = len(ring.spaces)
            await until(lambda left=left: len(ring.map.seats) == left and ring.is_settled(), SETTLED, "made up for")
        for n in range(40):
            stored = await persistently(lambda n=n: ring.space(hosts[0]).operations.get(b"key %d" % n))
            assert stored is not None and stored.value == b"%d" % n
        await until(ring.is_settled, SETTLED, "settled: a lost answer may have cost a replica its place")
        assert all(len(entry.chain) == 3 for entry in ring.map.entries)

    for_each_seed(10, scenario)


def test_all_crash_at_once_under_load_and_nothing_acknowledged_is_lost() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, LOSSY)
        hosts = await ring.of(5)
        await until(ring.is_settled, SETTLED, "settled")
        clients = Clients(ring, seed)
        await asyncio.sleep(2)
        for host in hosts:
            ring.crash(host)
        await asyncio.sleep(ring.random.uniform(0, 5))
        await asyncio.gather(*(ring.start(host) for host in hosts))
        await asyncio.sleep(8)
        await clients.stop()
        assert_linearizable(clients.history)
        await until(ring.is_settled, SETTLED, "settled again")

    for_each_seed(10, scenario)


def test_records_whose_time_is_over_are_removed() -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, LOSSY, quick(sweep_period=5.0))
        hosts = await ring.of(4)
        await until(ring.is_settled, SETTLED, "settled")
        operations = ring.space(hosts[0]).operations
        now = hosts[0].clock() * 1000
        for n in range(30):
            expires = int(now + ring.random.uniform(1, 60_000)) if n % 3 else 0
            await persistently(lambda n=n, expires=expires: operations.put(b"key %d" % n, b"value", expires))
        ring.crash(hosts[3])

        async def left() -> set[bytes]:
            found = [key async for page in operations.scan(keys_only=True) for key, _ in page]
            return set(found)

        await asyncio.sleep(120)
        await until(ring.is_settled, SETTLED, "settled without it")
        assert await persistently(left) == {b"key %d" % n for n in range(0, 30, 3)}
        held = [await r.store.count(r.arc) for s in ring.spaces.values() for r in s.held if r.is_head]
        assert sum(held) == 10

    for_each_seed(5, scenario)


async def batches_while_arcs_change(seed: int) -> None:
    """The few keys lie in arcs that are split and merged while batches that hold several of them are under way."""
    ring = ChainRing(seed, LOSSY, quick(settle_period=0.1), replicas=ring_size(seed))
    hosts = await ring.of(2)
    clients = Clients(ring, seed, rate=8, batches=8)
    for _ in range(4):
        hosts.append(await ring.start())
        await asyncio.sleep(ring.random.uniform(0, 0.5))
        leaver = hosts.pop(ring.random.randrange(len(hosts)))
        gone = await persistently(lambda leaver=leaver: leaver.run(ring.space(leaver).part()), 600)
        assert gone, "the others are in the map"
        await asyncio.sleep(ring.random.uniform(0, 0.5))
        ring.crash(leaver)
    await clients.stop()
    assert_linearizable(clients.history)
    assert not ring.failures


def ring_size(seed: int) -> int:
    """How many replicas there are in a scenario: each number in turn."""
    return 1 + seed % 3


def test_batches_are_written_exactly_once_while_arcs_are_split_and_merged() -> None:
    for_each_seed(15, batches_while_arcs_change)


def test_a_node_that_has_left_while_others_looked_is_made_no_keeper() -> None:
    """Another was about to have it keep the map, which was out of reach for good then."""
    for_each_seed(1, batches_while_arcs_change, first=7016)


def test_a_batch_that_is_tried_again_in_parts_is_written_whole() -> None:
    for_each_seed(9, parts_of_a_batch)


def test_a_newcomer_takes_nothing_from_a_head_of_long_ago() -> None:
    for_each_seed(4, a_head_of_long_ago_comes_back)


def test_tails_with_slow_clocks_are_cut_off_from_nodes_with_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(seed: int) -> None:
        ring = ChainRing(seed, CALM, LONG_LEASES)
        hosts = await ring.of(5)
        await until(ring.is_settled, SETTLED, "settled")
        clients = Clients(ring, seed, 4)
        await slow_tails(ring, hosts, 1)
        await clients.stop()
        assert_linearizable(clients.history)

    monkeypatch.setattr(schedules, "KEYS", 1)
    for_each_seed(4, scenario)


def test_machines_that_lose_power_one_at_a_time_lose_nothing_acknowledged() -> None:
    for_each_seed(6, lambda seed: machines_lose_power(seed, 2))


def all_follow(ring: OnPageCaches) -> bool:
    """Whether every node has replicas, all in the epoch that the map has: what is behind is let go of, as others have
    it."""
    return all(
        list(node.keyspace.held) and all(replica.follows for replica in node.keyspace.held)
        for node in ring.nodes.values()
    )


def test_what_is_on_the_disks_stays_there_when_all_machines_lose_power_and_a_clean_stop_is_no_loss() -> None:
    async def scenario(seed: int) -> None:
        ring = OnPageCaches(seed)
        hosts = await ring.of(3)
        await until(ring.is_whole, SETTLED, "settled")
        await persistently(lambda: ring.node(hosts[0]).data.operations.put(b"key", b"value"))
        lives = [ring.node(host).identity.node for host in hosts]
        await asyncio.gather(*(ring.leave(host) for host in hosts))
        await asyncio.gather(*(ring.start(host=host) for host in hosts))
        assert lives == [ring.node(host).identity.node for host in hosts], "a clean stop changes nothing"
        stored = await persistently(lambda: ring.node(hosts[1]).data.operations.get(b"key"))
        assert stored is not None and stored.value == b"value"
        await until(lambda: ring.is_whole() and all_follow(ring), SETTLED, "settled again")
        for host in hosts:
            host.disk.write_back()
            ring.crash(host)
        await asyncio.gather(*(ring.start(host=host) for host in hosts))
        await asyncio.sleep(30)
        assert not {ring.node(host).identity.node for host in hosts} & set(lives), "others do not count on them"
        with pytest.raises(NoQuorum, match="ring map"):
            await ring.node(hosts[0]).data.operations.get(b"key")
        assert all([await ring.node(host).store.count(EVERYTHING) for host in hosts]), "nothing is thrown away"

    for_each_seed(2, scenario)


async def come_and_go(seed: int, events: int) -> None:
    """Joins and leaves one after another, some before the ring has settled from the last."""
    ring = ChainRing(seed, CALM, quick(settle_period=0.2))
    hosts = await ring.of(5)
    for event in range(events):
        if len(hosts) < 4 or (len(hosts) < 10 and ring.random.random() < 0.5):
            hosts.append(await ring.start())
        else:
            leaver = hosts.pop(ring.random.randrange(len(hosts)))
            await persistently(lambda leaver=leaver: leaver.run(ring.space(leaver).part()))
            ring.crash(leaver)
        if event % 20 == 0:
            await until(ring.is_settled, SETTLED, f"settled after {event} joins and leaves")
        assert len(ring.map.entries) <= 3 * len(hosts), f"after {event} joins and leaves"
    await until(ring.is_settled, SETTLED, "settled in the end")
    assert len(ring.map.entries) == len(ring.map.residents) == len(hosts)


def test_the_map_does_not_grow_with_nodes_that_come_and_go() -> None:
    for_each_seed(1, lambda seed: come_and_go(seed, 60))


@pytest.mark.soak
def test_the_map_does_not_grow_over_ten_thousand_joins_and_leaves() -> None:
    for_each_seed(1, lambda seed: come_and_go(seed, 10_000), max_seconds=7200)
