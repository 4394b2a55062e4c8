"""Asking a node of this host, as a plain RPyC client does; with the node's own certificate where it has one."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rpyc

ANSWER = 10.0
"""Seconds for one answer."""
Member = tuple[str, int, str]
"""(host, port, id)."""


Where = tuple[str, int, Path]
"""Host, port, and the directory of its certificates, which need not be there."""


class Silent(Exception):
    """The node does not answer, or not as one that serves; the message says what it said."""


@contextlib.contextmanager
def root(where: Where) -> Iterator[Any]:
    """The remote object of a node. Raises Silent, also for what goes wrong while it is used."""
    host, port, trust = where
    try:
        connection = _connect(host, port, trust, {"sync_request_timeout": ANSWER})
    except ssl.SSLError as error:
        raise Silent(f"{host}:{port} does not take the certificate in {trust}: {error.reason}") from None
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


def _connect(host: str, port: int, trust: Path, config: dict[str, Any]) -> Any:
    if not trust.is_dir():
        return rpyc.connect(host, port, config=config)
    own, authority = str(trust / "node.pem"), str(trust / "authority.pem")
    proof = {"keyfile": own, "certfile": own, "ca_certs": authority, "cert_reqs": ssl.CERT_REQUIRED}
    return rpyc.ssl_connect(host, port, **proof, ssl_version=ssl.PROTOCOL_TLS_CLIENT, config=config)


def members(where: Where) -> list[Member]:
    """Who is in the ring, as this node lists it. Raises Silent."""
    with root(where) as node:
        return [(info[0], info[1], info[2]) for info in node.get_conn_info()]


def health(where: Where) -> tuple[list[str], dict[str, int]]:
    """What is wrong with the replicas, and how many keys each node holds. Raises Silent."""
    problems: list[str] = []
    keys: dict[str, int] = {}
    with root(where) as node:
        for start, end, count, replicas, problem in node.verify():
            if problem:
                problems.append(f"arc {start[:8]}..{end[:8]}: {problem}")
            for address in replicas:
                name = f"{address[0]}:{address[1]}"
                keys[name] = keys.get(name, 0) + count
    return problems, keys
