"""Nobody else is given a port that a test was given."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.ports import HOST, free_port, free_ports
from tests.ring.nodes import ROOT

OTHER = "from tests.ports import free_ports; print(*(free_ports(4) for _ in range(20)), flush=True); input()"


def test_processes_and_threads_that_look_at_the_same_time_find_different_ports() -> None:
    command = [sys.executable, "-c", OTHER]
    pipe = subprocess.PIPE
    others = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) for _ in range(3)]
    with ThreadPoolExecutor(4) as threads:
        found = [range(port, port + 1) for port in threads.map(lambda _: free_port(), range(20))]
    for other in others:
        assert other.stdout is not None
        found += [range(int(base), int(base) + 4) for base in other.stdout.readline().split()]
    for other in others:
        other.communicate("\n")
    ports = [port for each in found for port in each]
    assert len(ports) == 20 + 3 * 80
    assert len(set(ports)) == len(ports)


def test_a_port_somebody_listens_on_is_not_given() -> None:
    base = free_ports(1)
    with socket.create_server((HOST, base + 1)):
        assert base + 1 not in {free_port() for _ in range(5)}
