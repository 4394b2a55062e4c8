"""What nodes log while others come, die and are gone: the events that are promised, and nothing of what is stored."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually

SECRETS = ("a-key-of-somebody", "a-value-of-somebody")


def log_of(node: NodeProcess) -> Path:
    return node.directory.with_suffix(".json")


def started(ring: RingOfProcesses) -> NodeProcess:
    """One more node, which logs all it has to say in JSON."""
    directory = ring.directory / f"node{len(ring.nodes)}"
    words = ("--log-level", "debug", "--log-format", "json", "--log-file", str(directory.with_suffix(".json")))
    node = NodeProcess(directory, *words, first=ring.nodes[0] if ring.nodes else None)
    ring.nodes.append(node)
    return node.start()


def events(node: NodeProcess, name: str) -> list[str]:
    """The messages of all events of this name that a node has logged."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log_of(node).read_text().splitlines()]
    return [line["message"] for line in lines if line.get("event") == name]


def told(node: NodeProcess, name: str, about: str = "") -> None:
    eventually(lambda: any(about in message for message in events(node, name)), what=f"{name} {about} in the log")


def use_everything(node: NodeProcess) -> None:
    """All that a client can do with a key and a value, right and wrong."""
    key, value = SECRETS
    calls: list[tuple[Any, ...]] = [
        *(("put", f"{key} {n}", f"{value} {n}") for n in range(30)),
        ("put_if", key, value, None),
        ("put_if", key, value, None),
        ("put_if", key, value, value),
        ("put", key, [value]),
        ("put", key * 1000, value),
        ("put", f"{key}\ud800", value),
        ("get", {key: value}),
        ("get_versioned", key),
        ("lookup_path", key),
        ("replicas", key),
        ("put_over", key, value, ()),
        ("get_node", key, value),
        ("connect", key, value),
        ("force_repair", value),
        ("call", f"chain.{key}", value.encode()),
        ("call", "chain.write", value.encode()),
        ("call", "ring.hello", value.encode()),
        ("no_such_method", key, value),
        ("delete", key),
    ]
    for name, *arguments in calls:
        with suppress(Exception):
            node.call(name, *arguments)


def test_what_happens_to_a_ring_is_told_and_what_it_stores_is_not(ring: RingOfProcesses) -> None:
    one, two, three = (started(ring) for _ in range(3))
    ring.agreed(3)
    told(one, "node-entered", f":{three.port} ")
    told(three, "arc-copied")
    eventually(lambda: not any(arc[4] for arc in one.call("verify")), what="three replicas of everything")
    use_everything(two)
    with socket.create_connection((one.host, one.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        told(one, "peer-refused", "127.0.0.1:")

    two.kill()
    for other in (one, three):
        told(other, "node-silent", f":{two.port} ")
    eventually(lambda: events(one, "member-dead") + events(three, "member-dead"), what="the death of a neighbour")
    told(one, "arc-changed")
    three.kill()
    told(one, "quorum-lost", "needs 2 of")
    two.start()
    three.start()
    told(one, "quorum-regained")
    told(one, "node-answers", f":{two.port} ")
    told(three, "joined", "back in its ring")
    use_everything(three)
    eventually(lambda: not any(arc[4] for arc in one.call("verify")), what="three replicas of everything again")
    assert three.terminate() == 0
    told(one, "node-gone", f":{three.port} ")
    assert events(three, "leaving") and events(three, "stopped")

    for node in ring.nodes:
        said = log_of(node).read_text() + node.directory.with_suffix(".log").read_text()
        assert said and not [line for line in said.splitlines() if any(secret in line for secret in SECRETS)]
