"""Watchers hear each version of a key exactly once and in order, whatever becomes of nodes and arcs."""

from __future__ import annotations

from node.simulation.seeds import for_each_seed
from tests.chain.watching import watchers_hear_each_version


def test_watchers_hear_each_version_once_and_in_order_while_nodes_come_and_go_and_fail() -> None:
    for_each_seed(12, watchers_hear_each_version)
