"""Hosts on one machine: network namespaces on one bridge, with nodes on them, which can be cut off from each other."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.machines import drop_between, let_pass, sh
from tests.ring.nodes import NodeProcess, RingOfProcesses

CLONE_NEWNET = 0x40000000
HOSTS = 6
PREFIX = f"rc{os.getpid()}"
NETWORK = "10.78.0"

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")),
    reason="cutting a network takes root, `ip` (iproute2) and `nft` (nftables)",
)


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
        drop_between(self.bridge, [way for one, other in pairs for way in ((one, other), (other, one))])

    def heal(self) -> None:
        let_pass(self.bridge)

    def down(self) -> None:
        for name in (*self.names, self.bridge):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class HostedNode(NodeProcess):
    """A node in a namespace; its clients are threads that enter it."""

    def __init__(self, directory: Path, hosts: Hosts, n: int, first: NodeProcess | None, *words: str) -> None:
        super().__init__(directory, "--listen", hosts.address(n), "--insecure", *words, first=first)
        self.host = hosts.address(n)
        self.namespace = hosts.names[n]
        self.prefix = ["ip", "netns", "exec", self.namespace]

    def members(self) -> tuple[str, ...]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().members).result()

    def connect(self) -> Any:
        """A client of it from its own host. Moves the thread there, so it is not for the main one."""
        assert threading.current_thread() is not threading.main_thread()
        with Path(f"/run/netns/{self.namespace}").open("rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")
        return super().connect()

    def call(self, name: str, *arguments: Any) -> Any:
        """One remote call, in a thread of its own."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().call, name, *arguments).result()


def ring_on(hosts: Hosts, directory: Path, *words: str, count: int = HOSTS) -> RingOfProcesses:
    """One node on each of so many hosts; the words are for the first."""
    ring = RingOfProcesses(directory)
    try:
        for n in range(count):
            first = ring.nodes[0] if ring.nodes else None
            node = HostedNode(directory / f"node{n}", hosts, n, first, *(() if first else words))
            ring.nodes.append(node)
            node.start()
    except BaseException:
        ring.close()
        raise
    return ring
