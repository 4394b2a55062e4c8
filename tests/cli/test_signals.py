"""The first signal makes a node leave, the second ends it at once."""

from __future__ import annotations

import signal
import time

import pytest

from tests.ring.nodes import PATIENCE, RingOfProcesses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_leaves_with_code_0(ring: RingOfProcesses, number: int) -> None:
    node = ring.node()
    node.signal(number)
    assert node.process is not None and node.process.wait(PATIENCE) == 0
    assert len(node.output) == 1
    assert node.directory.with_suffix(".log").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait_for_the_hand_over(ring: RingOfProcesses, number: int) -> None:
    leaver, taker = ring.of(2)
    taker.signal(signal.SIGSTOP)  # so that there is nobody to hand over to
    leaver.signal(number)
    time.sleep(0.5)
    assert leaver.process is not None and leaver.process.poll() is None
    leaver.signal(number)
    assert leaver.process.wait(2) == 128 + number
