"""`destroy` of some hosts of a ring: what only they have is not removed."""

from __future__ import annotations

from node.deploy.installing import remove
from tests.deploy.answering import NAMES, Ring

LAST = NAMES[2]


def test_a_host_that_others_have_taken_over_is_removed() -> None:
    ring = Ring("old")
    (outcome,) = remove(ring.only(LAST))
    assert outcome.good and ring.by_name[LAST].removed


def test_a_host_of_which_others_do_not_have_all_keeps_its_data() -> None:
    """Its node was killed after a while, or left before it had handed over all."""
    ring = Ring("old")
    ring.problem = f"arc 0..1: {LAST} does not answer"
    (outcome,) = remove(ring.only(LAST))
    assert not outcome.good and ring.problem in outcome.said
    assert not ring.by_name[LAST].removed


def test_all_of_a_ring_is_removed_in_whatever_state_it_is() -> None:
    ring = Ring("old")
    ring.problem = "arc 0..1: 1 of 3 replicas"
    assert all(outcome.good for outcome in remove(ring))
    assert all(host.removed for host in ring.by_name.values())


def test_where_no_other_node_serves_nobody_is_asked() -> None:
    ring = Ring("old")
    for host in ring.by_name.values():
        host.running = ""
    (outcome,) = remove(ring.only(LAST))
    assert outcome.good and ring.by_name[LAST].removed
