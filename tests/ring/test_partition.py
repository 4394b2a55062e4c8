"""A ring cut in two between hosts, which are network namespaces on one bridge, and healed again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.ring.hosts import HOSTS, HostedNode, Hosts, needs_namespaces, ring_on
from tests.ring.nodes import eventually, is_remote


def answers_of(side: list[HostedNode]) -> str:
    """What a side of a cut tells those who ask there: "works" if it takes a write, "NoQuorum" if it refuses to say what
    a key holds. (A write on its way when the cut came is neither taken nor refused: its outcome is unknown.)
    """

    def told(n: int) -> str:
        try:
            side[0].call("get", f"during {n}")
            side[0].call("put", f"during {n}", n)
        except Exception as error:
            return "NoQuorum" if is_remote(error, "NoQuorum") else ""
        return "works"

    with ThreadPoolExecutor(8) as pool:
        return max(pool.map(told, range(8)), key=["", "NoQuorum", "works"].index)


@needs_namespaces
def test_a_ring_cut_in_two_is_one_ring_again(hosts: Hosts, tmp_path: Path) -> None:
    ring = ring_on(hosts, tmp_path)
    try:
        nodes = [node for node in ring.nodes if isinstance(node, HostedNode)]
        order = ring.agreed(HOSTS)
        for n in range(60):
            assert nodes[n % HOSTS].call("put", n, n)
        one, other = nodes[: HOSTS // 2], nodes[HOSTS // 2 :]
        hosts.cut(list(range(HOSTS // 2)), list(range(HOSTS // 2, HOSTS)))
        ring.agreed(len(one), list(one))
        ring.agreed(len(other), list(other))
        with ThreadPoolExecutor(2) as pool:
            told = list(
                pool.map(lambda side: eventually(lambda: answers_of(side), what="works or refuses"), (one, other))
            )
        assert sorted(told) == ["NoQuorum", "works"], "the side with most keepers of the map goes on, the other refuses"
        hosts.heal()
        assert ring.agreed(HOSTS, within=10) == order
        for n in range(60):
            for node in (nodes[n % HOSTS], nodes[(n + 3) % HOSTS]):
                assert eventually(lambda node=node, n=n: node.call("get", n) == n, what=f"key {n} through {node.host}")
    finally:
        ring.close()


@needs_namespaces
def test_both_sides_of_an_eventual_ring_take_writes_and_agree_afterwards(hosts: Hosts, tmp_path: Path) -> None:
    ring = ring_on(hosts, tmp_path, "--consistency", "eventual")
    try:
        nodes = [node for node in ring.nodes if isinstance(node, HostedNode)]
        ring.agreed(HOSTS)
        for n in range(40):
            nodes[0].call("put", n, "before")
        one, other = nodes[: HOSTS // 2], nodes[HOSTS // 2 :]
        hosts.cut(list(range(HOSTS // 2)), list(range(HOSTS // 2, HOSTS)))
        for n in range(40):  # at once, while both sides still believe in the other
            one[n % len(one)].call("put", n, "one")
            if n % 4:
                other[n % len(other)].call("put", n, "other")
            else:
                other[n % len(other)].call("delete", n)
        hosts.heal()
        healed = time.monotonic()
        ring.agreed(HOSTS, within=10)
        wanted = {n: "other" if n % 4 else None for n in range(40)}

        def agree() -> bool:
            return all({n: node.call("get", n) for n in wanted} == wanted for node in nodes)

        eventually(agree, within=10 - (time.monotonic() - healed), what="one answer through every node")
        eventually(lambda: not any(arc[4] for arc in nodes[0].call("verify")), what="replicas that are the same")
        assert agree(), "and it stays so"
    finally:
        ring.close()
