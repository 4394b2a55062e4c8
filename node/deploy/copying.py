"""A whole ring in one file here, and back: through one of its nodes, by `ring dump` and `ring load` there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.deploy.fleet import Fleet, Outcome
from node.deploy.running import Seen
from node.deploy.ssh import HostFailed, RemoteHost
from node.errors import BadUsage

PATIENCE = 24 * 3600.0
"""Seconds that the longest copy may take."""


def backup(fleet: Fleet, file: Path) -> list[Outcome]:
    """Write all keys and values of the ring to a file here. Raises BadUsage if there is one already."""
    if file.exists():
        raise BadUsage(f"{file} is there already: name another file")
    if not file.absolute().parent.is_dir():
        raise BadUsage(f"there is no directory {file.absolute().parent}")

    def on(host: RemoteHost) -> str:
        with _a_copy(host) as copy:
            answer = host.agent("dump", host.where | {"file": copy}, PATIENCE)
            host.get(f"copy/{copy}", file)
        return f"{answer['keys']:,} keys in {file}"

    return [fleet.one(_serving(fleet), on)]


def restore(fleet: Fleet, file: Path) -> list[Outcome]:
    """Store all keys and values of such a file; others stay. Raises BadUsage if there is none."""
    if not file.is_file():
        raise BadUsage(f"there is no file {file}: name one that `fab backup` wrote")

    def on(host: RemoteHost) -> str:
        with _a_copy(host) as copy:
            host.put(file, f"copy/{copy}")
            answer = host.agent("load", host.where | {"file": copy}, PATIENCE)
        return f"{answer['stored']:,} keys stored"

    return [fleet.one(_serving(fleet), on)]


@contextmanager
def _a_copy(host: RemoteHost) -> Iterator[str]:
    """The name there of a copy on its way, of which others may be at the same time; removed in the end."""
    name = f"{secrets.token_hex(8)}.jsonl"
    host.agent("clear", {"file": name})
    try:
        yield name
    finally:
        with suppress(HostFailed):
            host.agent("clear", {"file": name})


def _serving(fleet: Fleet) -> str:
    """A host whose node serves, the first one if it does. Raises HostFailed if there is none."""
    for name, said in Seen(fleet).hosts.items():
        if said["members"]:
            return name
    raise HostFailed("no node serves: fab run_server run_servers")
