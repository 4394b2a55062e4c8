"""Eight nodes as people type them: they agree, they keep what they are given, their fingers are right."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from node.identifiers import Arc, Identifier, successor_index
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually

KEYS = 200


def load(node: NodeProcess, count: int = KEYS) -> dict[str, int]:
    """Put `count` keys through one node."""
    with node.connection() as root:
        for n in range(count):
            root.put(f"key {n}", n)
    return {f"key {n}": n for n in range(count)}


def owners(node: NodeProcess, keys: dict[str, int]) -> dict[str, str]:
    """Which member owns each key."""
    with node.connection() as root:
        return {key: root.lookup(key)[2] for key in keys}


def assert_all_there(node: NodeProcess, keys: dict[str, int]) -> None:
    with node.connection() as root:
        assert {key: root.get(key) for key in keys} == keys


def assert_ideal_fingers(node: NodeProcess) -> None:
    """finger[i] = successor(id + 2**i), for every member."""
    with node.connection() as root:
        infos = root.get_conn_info()
        ids = [Identifier.from_hex(info[2]) for info in infos]
        at = {info[2]: (info[0], info[1]) for info in infos}
        for number, me in enumerate(ids):
            table = root.get_node(number, "finger_table")
            assert len(table) == 160
            for i, (start, finger, ip, port) in enumerate(table):
                ideal = ids[successor_index(ids, me.finger_start(i))].hex
                assert (start, finger, (ip, port)) == (me.finger_start(i).hex, ideal, at[ideal])


def test_eight_nodes_agree_and_read_through_all(ring: RingOfProcesses) -> None:
    nodes = ring.of(8)
    assert all(len(node.output) == 1 for node in nodes), "exactly one line on standard output"
    with nodes[0].connection() as root:
        infos = root.get_conn_info()
        assert [info[2] for info in infos] == sorted(info[2] for info in infos)
        assert [info[3] for info in infos] == [*(info[2] for info in infos[1:]), infos[0][2]]
        assert {(info[0], info[1], info[2]) for info in infos} == {(n.host, n.port, n.id) for n in nodes}
        for number, (ip, port, identifier, neighbour) in enumerate(infos):
            assert root.get_node(number, "node_ip") == ip
            assert root.get_node(number, "node_port") == port
            assert root.get_node(number, "node_id") == identifier
            assert root.get_node(number, "neighbour_id") == neighbour
            assert root.get_node(number, "number") == number
            assert root.get_node(number, "max") == 7
    keys = load(nodes[0])
    for node in nodes:
        assert_all_there(node, keys)
    with nodes[3].connection() as root:
        assert sum(root.get_node(number, "keys") for number in range(8)) == len(keys)
        assert root.delete("key 0") is True
    with nodes[5].connection() as root:
        assert root.delete("key 0") is False
        assert root.get("key 0") is None
        versions = [root.put("key 1", n) for n in range(3)]
        assert versions == sorted(set(versions)) and all(type(part) is int for v in versions for part in v)


def test_updates_from_all_sides_at_once_never_hang(ring: RingOfProcesses) -> None:
    nodes = ring.of(8)

    def twenty_times(node: NodeProcess) -> float:
        slowest = 0.0
        with node.connection() as root:
            for _ in range(20):
                for update in (root.update_finger_table, root.update_numbers):
                    began = time.monotonic()
                    update()
                    slowest = max(slowest, time.monotonic() - began)
        return slowest

    with ThreadPoolExecutor(8) as pool:
        slowest = max(pool.map(twenty_times, nodes))
    assert slowest < 20, "the deadline of an operation"
    assert_ideal_fingers(nodes[4])


def test_64_members_in_4_processes(ring: RingOfProcesses) -> None:
    first = ring.node("--members", 16)
    rest = [ring.node("--members", 16, first=first, start=False) for _ in range(3)]
    for node in rest:
        node.start(wait=False)
    for node in rest:
        node.ready()
    ids = [Identifier.from_hex(each) for each in ring.agreed(64)]
    widths = [Arc(before, here).width for before, here in zip([ids[-1], *ids[:-1]], ids, strict=True)]
    assert max(widths) <= 2 * min(widths)
    with first.connection() as root:
        root.update_finger_table()
        hops = [root.lookup(n)[3] for n in range(300)]
    assert sum(hops) / len(hops) <= 4.0 and max(hops) <= 8
    assert_ideal_fingers(rest[2])


@pytest.mark.parametrize(
    "neighbours", [pytest.param(False, marks=pytest.mark.soak), True], ids=["far apart", "neighbours"]
)
def test_two_of_eight_killed(ring: RingOfProcesses, neighbours: bool) -> None:
    nodes = ring.of(8)
    keys = load(nodes[0])
    by_id = {node.id: node for node in nodes}
    order = ring.agreed(8)
    dead = [order[2], order[3 if neighbours else 6]]
    survivors = [node for node in nodes if node.id not in dead]
    for identifier in dead:
        by_id[identifier].kill()
    expected = tuple(identifier for identifier in order if identifier not in dead)
    assert ring.agreed(6, survivors) == expected
    with survivors[1].connection() as root:
        for key in keys:
            asked = time.monotonic()
            assert root.get(key) == keys[key]
            keys[key] += 1
            root.put(key, keys[key])
            assert time.monotonic() - asked < 15, "the deadlines of the two"
    for node in survivors:
        assert_all_there(node, keys)
    for identifier in dead:
        by_id[identifier].start()
    ring.agreed(8)
    for node in nodes:
        eventually(lambda node=node: assert_all_there(node, keys) is None)


def test_a_leaving_node_leaves_every_key(ring: RingOfProcesses) -> None:
    nodes = ring.of(4)
    keys = load(nodes[0])
    assert nodes[0].terminate() == 0
    for node in nodes[1:]:
        assert_all_there(node, keys)
    assert ring.agreed(3, nodes[1:])


def test_killed_and_restarted_with_its_data(ring: RingOfProcesses) -> None:
    nodes = ring.of(4)
    keys = load(nodes[0])
    nodes[2].kill()
    nodes[2].start()
    ring.agreed(4)
    for node in nodes:
        eventually(lambda node=node: assert_all_there(node, keys) is None)


def test_all_killed_and_restarted_is_the_same_ring(ring: RingOfProcesses) -> None:
    nodes = ring.of(8)
    keys = load(nodes[0])
    order = ring.agreed(8)
    for node in nodes:
        node.kill()
        node.first = None
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        node.ready()
    assert ring.agreed(8) == order
    for node in nodes:
        eventually(lambda node=node: assert_all_there(node, keys) is None)


def test_stopped_and_continued(ring: RingOfProcesses) -> None:
    nodes = ring.of(5)
    keys = load(nodes[0])
    sleeper, others = nodes[2], [*nodes[:2], *nodes[3:]]
    sleeper.signal(signal.SIGSTOP)
    ring.agreed(4, others)
    assert_all_there(others[0], keys)
    sleeper.signal(signal.SIGCONT)
    order = ring.agreed(5)
    assert order.count(sleeper.id) == 1
    for node in nodes:
        eventually(lambda node=node: assert_all_there(node, keys) is None)


def test_what_is_written_while_a_node_sleeps_is_not_undone_by_its_return(ring: RingOfProcesses) -> None:
    nodes = ring.of(3)
    keys = load(nodes[0], 60)
    sleeper, others = nodes[1], [nodes[0], nodes[2]]
    owner = owners(nodes[0], keys)
    its = [key for key in keys if owner[key] == sleeper.id]
    assert its
    sleeper.signal(signal.SIGSTOP)
    with others[0].connection() as root:
        for key in its:
            eventually(lambda key=key: root.put(key, -1), what="a write to the arc of a sleeping node")
    sleeper.signal(signal.SIGCONT)
    ring.agreed(3)
    expected = keys | dict.fromkeys(its, -1)
    with sleeper.connection() as root:
        for key in its:
            answer = eventually(lambda key=key: root.get(key), what="an answer from the node that slept")
            assert answer == -1, "a node that slept never answers from before it slept"
    for node in nodes:
        eventually(lambda node=node: assert_all_there(node, expected) is None)


def test_connect_admits_a_node_beside_the_one_called(ring: RingOfProcesses) -> None:
    nodes = ring.of(3)
    keys = load(nodes[0], 50)
    stranger = ring.node()
    with nodes[1].connection() as root:
        ip, port, identifier = root.connect(stranger.host, stranger.port)
        assert (ip, port) == (stranger.host, stranger.port)
        assert root.connect(stranger.host, stranger.port) == (ip, port, identifier), "twice is once"
        order = ring.agreed(4)
        assert order[(order.index(nodes[1].id) + 1) % 4] == identifier
    assert_all_there(stranger, keys)


class Traffic:
    """Clients that write and read on random nodes; every acknowledged write must be readable ever after."""

    def __init__(self, nodes: list[NodeProcess], clients: int) -> None:
        self.nodes = nodes
        self.stop = threading.Event()
        self.acknowledged: dict[str, int] = {}
        self.wrong: list[str] = []
        self.threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _client(self, number: int) -> None:
        turn = 0
        while not self.stop.is_set():
            nodes = list(self.nodes)
            node = nodes[(number + turn) % len(nodes)]
            turn += 1
            try:
                with node.connection() as root:
                    for _ in range(50):
                        self._write_and_read(root, number)
            except (OSError, EOFError, TimeoutError):
                continue  # the node left: go to another one

    def _write_and_read(self, root: Any, number: int) -> None:
        key = f"{number}/{len(self.acknowledged)}"
        try:
            root.put(key, number)
            self.acknowledged[key] = number
        except Exception as error:
            if isinstance(error, (EOFError, OSError)):
                raise
        for known in list(self.acknowledged)[-20::5]:
            try:
                value = root.get(known)
            except Exception as error:
                if isinstance(error, (EOFError, OSError)):
                    raise
                continue
            if value != self.acknowledged[known]:
                self.wrong.append(f"{known} read as {value!r}")


def join_and_leave_under_load(ring: RingOfProcesses, changes: int, clients: int) -> None:
    """One node joins and one leaves, again and again, while clients write and read; nothing acknowledged is missed."""
    nodes = ring.of(3)
    with Traffic(list(nodes), clients) as traffic:
        for _ in range(changes):
            traffic.nodes.append(ring.node(first=nodes[0]))
            assert traffic.nodes.pop(1).terminate() == 0
    assert traffic.wrong == []
    assert len(traffic.acknowledged) > 20 * changes
    assert_all_there(nodes[0], traffic.acknowledged)


def test_joins_and_leaves_under_load(ring: RingOfProcesses) -> None:
    join_and_leave_under_load(ring, changes=5, clients=8)


@pytest.mark.soak
def test_a_minute_of_joins_and_leaves_under_load(ring: RingOfProcesses) -> None:
    join_and_leave_under_load(ring, changes=60, clients=16)
