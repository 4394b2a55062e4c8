"""The first signal makes a node leave, or rest; the second ends it at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.ring.nodes import PATIENCE, RingOfProcesses, eventually


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_leaves_with_code_0(ring: RingOfProcesses, number: int) -> None:
    node = ring.node()
    node.signal(number)
    assert node.process is not None and node.process.wait(PATIENCE) == 0
    assert len(node.output) == 1
    assert node.directory.with_suffix(".log").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_the_hand_over(ring: RingOfProcesses, tmp_path: Path, number: int) -> None:
    log = tmp_path / "leaver.log"
    leaver = ring.node("--log-file", log)
    taker = ring.node(first=leaver)
    ring.agreed(2)
    taker.signal(signal.SIGSTOP)  # so that there is nobody to hand over to
    leaver.signal(number)
    eventually(lambda: "handing over" in log.read_text())
    assert leaver.process is not None and leaver.process.poll() is None
    leaver.signal(number)
    assert leaver.process.wait(PATIENCE) == 128 + number


@pytest.mark.parametrize("words", [(), ("--log-file", "LOG"), ("--log-file", "LOG", "--log-format", "json")])
def test_a_crash_leaves_the_stacks_in_the_log(ring: RingOfProcesses, tmp_path: Path, words: tuple[str, ...]) -> None:
    log = tmp_path / "a.log"
    node = ring.node(*(word.replace("LOG", str(log)) for word in words))
    assert node.process is not None
    if words:
        log.rename(tmp_path / "before.log")
        node.signal(signal.SIGHUP)
        eventually(lambda: "settings-read" in log.read_text())
    node.signal(signal.SIGSEGV)
    assert node.process.wait(PATIENCE) == -signal.SIGSEGV
    errors = node.directory.with_suffix(".log")
    told, other = (log, errors) if len(words) == 2 else (errors, log)
    assert "Segmentation fault" in told.read_text() and "server.py" in told.read_text()
    assert not other.exists() or "Segmentation fault" not in other.read_text()


def test_a_ring_that_rested_has_all_its_replicas_though_one_node_does_not_come_back(ring: RingOfProcesses) -> None:
    nodes = ring.of(4)
    with nodes[0].connection() as root:
        for n in range(30):
            root.put(f"key {n}", n)
        eventually(lambda: not any(arc[4] for arc in root.verify()), what="three replicas of everything")
    for node in nodes:
        node.signal(signal.SIGUSR1)
    assert [node.process.wait(PATIENCE) for node in nodes if node.process] == [0, 0, 0, 0]
    for node in nodes[1:]:
        node.start(wait=False)
    for node in nodes[1:]:
        node.ready()
    with nodes[1].connection() as root:

        def all_there() -> bool:
            return all(root.get(f"key {n}") == n for n in range(30))

        eventually(all_there, what="every key on the three that came back")
