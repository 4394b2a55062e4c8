"""`hosts.toml`: which hosts there are, how they are reached, what their nodes are told. Read strictly.

Every mistake is one line that names the file and the entry.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from node import toml
from node.errors import BadUsage
from node.toml import Strict

FILE = "hosts.toml"
VARIABLE = "RPYCHORD_HOSTS"

Text = Annotated[str, Meta(min_length=1)]
Host = Annotated[str, Meta(pattern=r"^([0-9A-Za-z][0-9A-Za-z._-]*|[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*)$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Directory = Annotated[str, Meta(pattern=r"^(~/|/).*[^/]$")]


class Ssh(Strict, frozen=True):
    """How hosts are reached. What is left out comes from the ssh configuration and the agent."""

    user: Text | None = None
    port: Port | None = None
    key: Text | None = None
    known_hosts: Text | None = None
    timeout: Annotated[int, Meta(ge=1, le=600)] = 10
    """Seconds for a connection to be made."""


class Ring(Strict, frozen=True):
    """What the nodes are told. The first five belong to the ring and count when it is founded."""

    replicas: Annotated[int, Meta(ge=1, le=16)] | None = None
    consistency: Literal["chain", "eventual"] | None = None
    durability: Literal["fsync", "os"] | None = None
    siblings: bool = False
    insecure: bool = False
    """Without certificates: nothing is encrypted and nobody is checked."""
    port: Port = 18861
    members: Annotated[int, Meta(ge=1, le=1024)] = 1
    profile: Literal["local", "lan", "wan"] = "local"
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    log_format: Literal["text", "json"] | None = None


class Place(Strict, frozen=True):
    """Where things are on every host."""

    directory: Directory = "~/rpychord"
    python: Text | None = None
    """The Python to use there; without it the first one found that is new enough."""
    free_mb: Annotated[int, Meta(ge=0)] = 500
    """Megabytes that must be free where it is installed."""
    clock_seconds: Annotated[float, Meta(gt=0)] = 2.0
    """How far the clock of a host may be from that of the deploying machine."""


class Inventory(Strict, frozen=True):
    """The whole file."""

    first: Host
    others: tuple[Host, ...] = ()
    ssh: Ssh = Ssh()
    ring: Ring = Ring()
    host: Place = Place()

    @property
    def hosts(self) -> tuple[str, ...]:
        """All of them, the first one first."""
        return (self.first, *self.others)


def read(beside: Path) -> Inventory:
    """The inventory that the environment names, or that lies in this directory. Raises BadUsage."""
    named = os.environ.get(VARIABLE)
    path = Path(named).expanduser() if named else beside / FILE
    try:
        text = toml.read_text(path)
    except FileNotFoundError as error:
        example = "" if named else ": copy hosts.example.toml there and name your hosts in it"
        raise BadUsage(f"cannot read {path}: {error.strerror}{example}") from None
    return parsed(text, str(path))


def parsed(text: str, name: str) -> Inventory:
    """What a file of this name with this text says. Raises BadUsage."""
    inventory = toml.parsed(text, name, Inventory)
    twice = sorted({host for host in inventory.hosts if inventory.hosts.count(host) > 1})
    if twice:
        raise BadUsage(f"{name}: {', '.join(twice)} stands there twice: name each host once, as first or in others")
    return inventory
