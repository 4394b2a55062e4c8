"""A ring cut in two between hosts, which are network namespaces on one bridge, and healed again."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually, is_remote

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
HOSTS = 6
PREFIX = f"rc{os.getpid()}"
NETWORK = "10.78.0"

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")),
    reason="cutting a network takes root, `ip` (iproute2) and `nft` (nftables)",
)


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Hosts:
    """Namespaces, one a host, on a bridge in another; nothing is put into the namespace of the machine."""

    def __init__(self, count: int) -> None:
        self.names = [f"{PREFIX}h{n}" for n in range(count)]
        self.bridge = f"{PREFIX}br"

    def up(self) -> None:
        sh("ip", "netns", "add", self.bridge)
        sh("ip", "-n", self.bridge, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self.bridge, "link", "set", "br0", "up")
        for n, name in enumerate(self.names):
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
            sh("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"h{n}", "netns", self.bridge)
            sh("ip", "-n", name, "addr", "add", f"{self.address(n)}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
            sh("ip", "-n", self.bridge, "link", "set", f"h{n}", "master", "br0", "up")

    def address(self, n: int) -> str:
        return f"{NETWORK}.{11 + n}"

    def cut(self, one: list[int], other: list[int]) -> None:
        """No packet passes between the two groups."""
        pairs = [(self.address(a), self.address(b)) for a in one for b in other]
        drops = [f"ip saddr {x} ip daddr {y} drop" for a, b in pairs for x, y in ((a, b), (b, a))]
        lines = ["table bridge cut {", "chain f {", "type filter hook forward priority 0;", *drops, "}", "}"]
        nft = ["ip", "netns", "exec", self.bridge, "nft", "-f", "-"]
        subprocess.run(nft, input="\n".join(lines), text=True, check=True, capture_output=True)

    def heal(self) -> None:
        sh("ip", "netns", "exec", self.bridge, "nft", "delete", "table", "bridge", "cut")

    def down(self) -> None:
        for name in (*self.names, self.bridge):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class HostedNode(NodeProcess):
    """A node in a namespace; its clients are threads that enter it."""

    def __init__(self, directory: Path, hosts: Hosts, n: int, first: NodeProcess | None, *words: str) -> None:
        super().__init__(directory, "--listen", hosts.address(n), "--insecure", *words, first=first, port=18861)
        self.host = hosts.address(n)
        self.namespace = hosts.names[n]
        self.prefix = ["ip", "netns", "exec", self.namespace]

    def inside(self, work: Callable[[], T]) -> T:
        """Do something in the namespace, in a thread of its own."""

        def entered() -> T:
            with Path(f"/run/netns/{self.namespace}").open("rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")
            return work()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(entered).result()

    def members(self) -> tuple[str, ...]:
        return self.inside(super().members)

    def call(self, name: str, *arguments: Any) -> Any:
        """One remote call."""

        def called() -> Any:
            with self.connection() as root:
                return getattr(root, name)(*arguments)

        return self.inside(called)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts(HOSTS)
    try:
        made.up()
    except subprocess.CalledProcessError as error:
        made.down()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    try:
        yield made
    finally:
        made.down()


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


def ring_on(hosts: Hosts, directory: Path, *words: str) -> RingOfProcesses:
    """One node on each host; the words are for the first."""
    ring = RingOfProcesses(directory)
    try:
        for n in range(HOSTS):
            first = ring.nodes[0] if ring.nodes else None
            node = HostedNode(directory / f"node{n}", hosts, n, first, *(() if first else words))
            ring.nodes.append(node)
            node.start()
    except BaseException:
        ring.close()
        raise
    return ring


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
