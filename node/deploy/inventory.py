"""`hosts.toml`: which hosts there are, how they are reached, what their nodes are told. Read strictly.

Every mistake is one line that names the file and the entry.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from node.errors import BadUsage

FILE = "hosts.toml"
VARIABLE = "RPYCHORD_HOSTS"

Text = Annotated[str, Meta(min_length=1)]
Host = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z._:-]*$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Directory = Annotated[str, Meta(pattern=r"^(~/|/).*[^/]$")]


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """Refuses entries it does not know."""


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
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


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
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        example = "" if named else ": copy hosts.example.toml there and name your hosts in it"
        raise BadUsage(f"cannot read {path}: {error.strerror}{example}") from None
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    return parsed(text, str(path))


def parsed(text: str, name: str) -> Inventory:
    """What a file of this name with this text says. Raises BadUsage."""
    try:
        inventory = msgspec.toml.decode(text, type=Inventory)
    except msgspec.ValidationError as error:
        raise BadUsage(f"{name}: {_in_words(str(error))}") from None
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise BadUsage(f"{name} is not TOML: {error}") from None
    twice = sorted({host for host in inventory.hosts if inventory.hosts.count(host) > 1})
    if twice:
        raise BadUsage(f"{name}: {', '.join(twice)} stands there twice: name each host once, as first or in others")
    return inventory


def _in_words(message: str) -> str:
    """msgspec's sentence without its quotation of our regular expressions."""
    what, _, where = message.partition(" - at ")
    at = where.strip("`").removeprefix("$").removeprefix(".") or "the top level"
    if "matching regex" in what:
        kind = "a directory from ~/ or /" if "directory" in at else "a host name or address, without user or port"
        what = f"Expected {kind}"
    return f"{at}: {what.replace('`', '')[:1].lower()}{what.replace('`', '')[1:]}"
