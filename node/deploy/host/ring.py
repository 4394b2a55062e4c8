"""Asking a node of this host, as a plain RPyC client does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import rpyc

ANSWER = 10.0
"""Seconds for one answer."""
Member = tuple[str, int, str]
"""(host, port, id)."""


class Silent(Exception):
    """The node does not answer, or not as one that serves; the message says what it said."""


@contextlib.contextmanager
def root(host: str, port: int) -> Iterator[Any]:
    """The remote object of a node. Raises Silent, also for what goes wrong while it is used."""
    try:
        connection = rpyc.connect(host, port, config={"sync_request_timeout": ANSWER})
    except OSError as error:
        raise Silent(f"nothing listens at {host}:{port}: {error.strerror or error}") from None
    try:
        yield connection.root
    except (EOFError, OSError) as error:
        raise Silent(f"{host}:{port} broke off: {error}") from None
    except rpyc.core.vinegar.GenericException as error:
        raise Silent(str(error.args[0] if error.args else error)) from None
    finally:
        connection.close()


def members(host: str, port: int) -> list[Member]:
    """Who is in the ring, as this node lists it. Raises Silent."""
    with root(host, port) as node:
        return [(info[0], info[1], info[2]) for info in node.get_conn_info()]


def health(host: str, port: int) -> tuple[list[str], dict[str, int]]:
    """What is wrong with the replicas, and how many keys each node holds. Raises Silent."""
    problems: list[str] = []
    keys: dict[str, int] = {}
    with root(host, port) as node:
        for start, end, count, replicas, problem in node.verify():
            if problem:
                problems.append(f"arc {start[:8]}..{end[:8]}: {problem}")
            for address in replicas:
                name = f"{address[0]}:{address[1]}"
                keys[name] = keys.get(name, 0) + count
    return problems, keys
