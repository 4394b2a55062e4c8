"""Those who were not let in are told, and take no memory however many addresses they have."""

from __future__ import annotations

import pytest

from node.remote.refusals import HOSTS, PERIOD, Refusals


def test_a_host_is_told_once_in_a_while_with_how_often_it_came(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    for now in (0.0, 1.0, 2.0, PERIOD + 1):
        refusals.tell("10.0.0.9:1", "garbage", now)
    assert [record.getMessage() for record in caplog.records] == [
        "10.0.0.9:1 is refused: garbage",
        "10.0.0.9:1 is refused, and 2 times more before: garbage",
    ]


@pytest.mark.parametrize("often", [1, 2])
def test_who_comes_from_ever_new_addresses_takes_no_memory(often: int) -> None:
    refusals = Refusals()
    for number in range(5 * HOSTS):
        for _ in range(often):
            refusals.tell(f"[2001:db8::{number:x}]:1", "no TLS", number * PERIOD / HOSTS / 2)
    assert len(refusals._told) <= HOSTS + 1
    assert len(refusals._since) <= HOSTS + 1
