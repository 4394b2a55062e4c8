"""`update_servers` and the start of nodes on hosts that answer as the agent does: what it goes on with after it was
broken off or failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.deploy.host.agent import Agent
from node.deploy.host.keeper import Keeper
from node.deploy.host.layout import Layout, write_privately
from node.deploy.running import run_first, run_others
from tests.deploy.answering import NAMES, Ring


def test_a_release_that_does_not_start_takes_down_one_node_however_often_it_is_tried() -> None:
    ring = Ring("broken")
    for _ in range(3):
        assert not any(outcome.good for outcome in ring.update())
        assert ring.up() == ["10.0.0.2", "10.0.0.3"]
    ring.release = "old"
    assert all(outcome.good for outcome in ring.update()), "the way back starts it"
    assert ring.up() == list(NAMES)
    assert [host.asked.count("stop") for host in ring.by_name.values()] == [1, 0, 0]


def test_an_update_that_was_cut_between_stop_and_start_goes_on_with_the_start() -> None:
    ring = Ring("new")
    ring.cut = "start"
    assert not any(outcome.good for outcome in ring.update())
    ring.cut = ""
    assert all(outcome.good for outcome in ring.update())
    assert {host.running for host in ring.by_name.values()} == {"new"}


def test_a_node_that_somebody_stopped_stays_stopped() -> None:
    ring = Ring("new")
    ring.by_name[NAMES[1]].running = ""
    said = {outcome.host: outcome.said for outcome in ring.update()}
    assert said[NAMES[1]] == "does not run"
    assert ring.up() == ["10.0.0.1", "10.0.0.3"]


def test_a_node_that_fails_whenever_it_is_started_gets_other_orders() -> None:
    """It has a token that is used up, say; the supervisor would start it with that for ever."""
    ring = Ring("old")
    host = ring.by_name[NAMES[1]]
    host.running, host.failing = "", True
    assert all(outcome.good for outcome in run_others(ring))
    assert "stop" in host.asked and ring.up() == list(NAMES)


def test_where_nothing_starts_a_node_after_a_boot_that_is_said() -> None:
    ring = Ring("old")
    ring.kept = "nothing"
    for host in ring.by_name.values():
        host.running = ""
    for outcome in [*run_first(ring), *run_others(ring)]:
        assert outcome.good and "until the next boot" in outcome.said
    assert not any("until the next boot" in outcome.said for outcome in run_others(ring)), "they run already"


def test_who_begins_a_ring_without_having_asked_all_hosts_for_one_is_told_so() -> None:
    """They may have data of the ring that is meant, as where the first host has lost its disk."""
    ring = Ring("old")
    for host in ring.by_name.values():
        host.running, host.removed = "", True
    ring.silent = (NAMES[2],)
    (outcome,) = run_first(ring)
    assert outcome.good and f"began a new ring, though {NAMES[2]} cannot be asked" in outcome.said
    ring.silent, ring.by_name[NAMES[0]].running = (), ""
    assert [outcome.said for outcome in run_first(ring)] == ["started"]


def test_a_host_tells_that_its_node_fails_whenever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "releases" / "one").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/one")
    monkeypatch.setattr(Keeper, "supervisor", lambda _: 1)
    for failures in (0, 2, 3):
        write_privately(layout.state, json.dumps({"failures": failures}))
        assert Agent(layout).look({"address": "127.0.0.1", "port": 1})["failing"] == (failures == 3)


def test_a_host_remembers_that_an_update_stopped_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    for name in ("releases/one", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/one")
    monkeypatch.setattr(Keeper, "stop", lambda *_: False)
    asked = {"patience": 1.0, "leave": True}
    for renewing in (True, False):
        Agent(layout).stop(asked | {"renew": renewing})
        assert Agent(layout).look({"address": "127.0.0.1", "port": 1})["renewing"] == renewing
