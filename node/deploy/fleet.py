"""Doing one thing on many hosts at the same time, and saying of each how it went."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fabric import Config  # type: ignore[import-untyped]
from invoke.exceptions import Exit

from node.deploy.inventory import Inventory
from node.deploy.ssh import HostFailed, RemoteHost
from node.errors import BadUsage

AT_ONCE = 32
"""Hosts worked on at the same time."""
Work = Callable[[RemoteHost], str]
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one host."""

    host: str
    good: bool
    said: str


class HostsFailed(Exit):
    """Some hosts failed; the others are done. What remains to be done is done without them."""

    def __init__(self, hosts: Iterable[str], code: int = 1) -> None:
        super().__init__(code=code)
        self.hosts = frozenset(hosts)


class Fleet:
    """The hosts that a task is for."""

    def __init__(
        self, inventory: Inventory, config: Config, named: Sequence[str] = (), failed: Iterable[str] = ()
    ) -> None:
        unknown = [host for host in named if host not in inventory.hosts]
        if unknown:
            raise BadUsage(f"{', '.join(unknown)}: not among the hosts, which are {', '.join(inventory.hosts)}")
        self.inventory = inventory
        self._config = config
        self._failed = frozenset(failed)
        self.hosts = tuple(host for host in inventory.hosts if not named or host in named)

    def connection(self, host: str) -> RemoteHost:
        """To be entered before it is used."""
        with _one_at_a_time:  # Fabric reads its files anew into a configuration that is copied
            config = self._config.clone()
        return RemoteHost(host, self.inventory, config)

    def everywhere(self) -> Fleet:
        """All hosts of the inventory: the ring is on them, whichever the task is for."""
        return Fleet(self.inventory, self._config)

    def of(self, *hosts: str) -> tuple[str, ...]:
        """Those of these hosts that the task is for."""
        return tuple(host for host in hosts if host in self.hosts)

    def each(self, work: Work, hosts: Sequence[str] | None = None) -> list[Outcome]:
        """Do something on each host, whatever happens on the others; what it said, or why it failed."""
        chosen = self.hosts if hosts is None else hosts
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda host: self.one(host, work), chosen))

    def one(self, host: str, work: Work) -> Outcome:
        """Do something on one host."""
        if host in self._failed:
            return Outcome(host, False, "left out: it failed before")
        try:
            with self.connection(host) as connected:
                return Outcome(host, True, work(connected))
        except HostFailed as error:
            return Outcome(host, False, str(error))


def report(what: str, outcomes: Sequence[Outcome]) -> None:
    """Print a line for every host. Raises HostsFailed if any failed."""
    fail_for(show(what, outcomes))


def fail_for(outcomes: Iterable[Outcome]) -> None:
    """Raises HostsFailed if there are hosts that failed."""
    if failed := [each.host for each in outcomes if not each.good]:
        raise HostsFailed(failed)


def show(what: str, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Print a line for every host; the same outcomes."""
    rows = [(each.host, what, "ok" if each.good else "FAILED", each.said) for each in outcomes]
    if rows:
        print_table(("host", "what", "result", "reason"), rows)
    return outcomes


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what is in them."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
