"""Hosts that answer as the agent of each does, and a fleet of three of them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

from fabric import Config

from node.deploy.fleet import Fleet, Outcome
from node.deploy.inventory import parsed
from node.deploy.running import renew
from node.deploy.ssh import HostFailed

NAMES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
INVENTORY = parsed(f'first = "{NAMES[0]}"\nothers = {list(NAMES[1:])}\n[ring]\ninsecure = true\n', "hosts.toml")


@dataclass
class Host:
    """What a host has and runs. Its release does not start if it is broken."""

    name: str
    ring: Ring
    running: str = "old"
    renewing: bool = False
    failing: bool = False
    removed: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def where(self) -> dict[str, Any]:
        return {"address": self.name, "port": 1}

    @property
    def address(self) -> str:
        return self.name

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def script(self, _: Any, request: dict[str, Any]) -> dict[str, Any]:
        assert request["what"] == "remove"
        self.removed = True
        return {"was_there": True}

    def agent(self, verb: str, request: dict[str, Any], _: float = 0.0) -> dict[str, Any]:
        self.asked.append(verb)
        if self.name in self.ring.silent or verb == self.ring.cut:
            raise HostFailed("ssh: cut")
        if verb == "stop":
            self.running, self.renewing, self.failing = "", bool(request.get("renew")), False
            return {"killed": False, "ran": True, "seconds": 1.0}
        if verb == "start":
            if self.ring.release == "broken":
                raise HostFailed("it does not start")
            if self.failing:
                raise HostFailed("it fails as before")
            was = bool(self.running)
            self.running, self.renewing = self.ring.release, False
            return {"state": "serves", "was_running": was, "kept": "" if was else self.ring.kept}
        if verb == "whole":
            if request["replicas"] and self.ring.problem:
                raise HostFailed(f"not after 180 s: {self.ring.problem}")
            return {"members": len(self.ring.up())}
        members = [(name, 1, name) for name in self.ring.up()] if self.running else []
        return {
            "address": self.name,
            "node": 7 if self.running else None,
            "renewing": self.renewing,
            "failing": self.failing,
            "running": [self.running] if self.running else [],
            "release": self.ring.release,
            "members": members,
            "data": not self.removed,
        }


class Ring(Fleet):
    """Three hosts that all have got a release."""

    def __init__(self, release: str) -> None:
        super().__init__(INVENTORY, Config())
        self.release = release
        self.cut = ""
        self.problem = ""
        self.kept = "systemd"
        self.silent: tuple[str, ...] = ()
        self.by_name = {name: Host(name, self) for name in NAMES}

    def connection(self, host: str) -> Any:
        return self.by_name[host]

    def everywhere(self) -> Ring:
        """All of them."""
        whole = copy(self)
        whole.hosts = NAMES
        return whole

    def only(self, *names: str) -> Ring:
        """These, as with `-H`."""
        some = copy(self)
        some.hosts = names
        return some

    def up(self) -> list[str]:
        """Those that serve."""
        return [name for name, host in self.by_name.items() if host.running]

    def update(self) -> list[Outcome]:
        """Do it."""
        return renew(self, NAMES)
