"""What the deploying machine asks the installation of a host: one verb, a request as JSON in, an answer as JSON out.

A failure is one line on standard error and exit code 1. Requests come on standard input, so that what is secret in them
stands on no command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from node.deploy.host import processes, ring
from node.deploy.host.client import Client
from node.deploy.host.keeper import Keeper
from node.deploy.host.layout import Layout, write_privately
from node.deploy.host.ring import Silent

Request = dict[str, Any]
STEADY = 2.0
"""Seconds after which a node that is up and waits for others will go on waiting."""
ABSENT = 10.0
"""Seconds after which a supervisor that is not there will not come."""
STEADY_RUN = 10.0
"""Seconds after which a node that was started is not about to fail as it did before."""
HOPELESS = 3
"""Failures in a row after which a start is given up."""


class Agent:
    """The verbs."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._keeper = Keeper(layout)
        self._releases = layout.base / "releases"
        self._said_before = 0
        """How long the file of what it says was when the node was started."""

    def look(self, request: Request) -> Request:
        """What is here, what runs, and what its node says of the ring."""
        nodes = processes.nodes_in(self._releases)
        members: list[ring.Member] = []
        said = "no node runs"
        if nodes:
            try:
                members, said = ring.members(self._where(request)), ""
            except Silent as error:
                said = str(error)
        supervised, uptime = self._keeper.supervisor() is not None, processes.age(nodes[0]) if nodes else 0.0
        return {
            "address": request["address"],
            "port": request["port"],
            "release": self._layout.release.name,
            "running": sorted(processes.used(self._releases) if nodes else ()),
            "node": nodes[0] if nodes else None,
            "supervised": supervised,
            "failing": supervised and uptime < STEADY_RUN and self._state().get("failures", 0) >= HOPELESS,
            "restarts": max(0, self._state().get("starts", 1) - 1),
            "uptime": uptime,
            "host_uptime": processes.host_uptime(),
            "renewing": self._layout.renewal.exists(),
            "data": self._layout.has_data,
            "certified": self._layout.trust.is_dir(),
            "bytes": self._layout.data_size(),
            "members": members,
            "said": said,
        }

    def start(self, request: Request) -> Request:
        """Start the node, or find it running; return when it serves, or waits for the others of its ring."""
        with self._layout.alone():
            had_data, kept = self._layout.has_data, ""
            was = self._keeper.supervisor() is not None
            if not was:
                processes.end(processes.nodes_in(self._releases), signal.SIGTERM, request["patience"])
                _check_port(request["address"], request["port"])
                words = [*request["words"], "--data", str(self._layout.data), "--log-file", str(self._layout.log)]
                orders = {"words": words, "environment": request["environment"], "release": self._layout.release.name}
                write_privately(self._layout.orders, json.dumps(orders))
                self._layout.state.unlink(missing_ok=True)
                self._said_before = self._layout.said.stat().st_size if self._layout.said.exists() else 0
                kept = self._keeper.start()
            state = self._until_up(request, started=not was, may_wait=had_data and request["may_wait"])
            self._layout.renewal.unlink(missing_ok=True)
            return {"state": state, "was_running": was, "kept": kept}

    def stop(self, request: Request) -> Request:
        """End the node and what supervises it; it leaves its ring, or only rests."""
        with self._layout.alone():
            ran = bool(processes.nodes_in(self._releases)) or self._keeper.supervisor() is not None
            began = time.monotonic()
            number = signal.SIGTERM if request["leave"] else signal.SIGUSR1
            if request.get("renew"):
                self._layout.renewal.touch()
            else:
                self._layout.renewal.unlink(missing_ok=True)
            killed = self._keeper.stop(number, request["patience"])
            if request.get("for_good"):
                self._keeper.forget()
            return {"ran": ran, "killed": killed, "seconds": time.monotonic() - began}

    def health(self, request: Request) -> Request:
        """How the replicas of the whole ring are."""
        try:
            problems, keys = ring.health(self._where(request))
        except Silent as error:
            raise SystemExit(str(error)) from None
        return {"problems": problems, "keys": keys}

    def whole(self, request: Request) -> Request:
        """Return when the ring lists all these members and, if asked, every replica is in order; how many are in it."""
        deadline = time.monotonic() + request["patience"]
        wanted = {tuple(address) for address in request["members"]}
        while True:
            problem = self._problem(request, wanted)
            if not problem:
                return {"members": len(ring.members(self._where(request)))}
            if time.monotonic() > deadline:
                raise SystemExit(f"not after {request['patience']:.0f} s: {problem}")
            time.sleep(0.2)

    def _where(self, request: Request) -> ring.Where:
        return request["address"], request["port"], self._layout.trust

    def _problem(self, request: Request, wanted: set[tuple[str, int]]) -> str:
        try:
            listed = {(host, port) for host, port, _ in ring.members(self._where(request))}
            if missing := wanted - listed:
                return "the ring does not list " + ", ".join(f"{host}:{port}" for host, port in sorted(missing))
            if not request["replicas"]:
                return ""
            problems, _ = ring.health(self._where(request))
        except Silent as error:
            return str(error)
        return problems[0] if problems else ""

    def _until_up(self, request: Request, *, started: bool, may_wait: bool) -> str:
        """Raises SystemExit, with what the node said, if it does not come up."""
        began = time.monotonic()
        while True:
            said = ""
            try:
                listed = ring.members(self._where(request))
                if any(member[:2] == (request["address"], request["port"]) for member in listed):
                    return "serves"
            except Silent as error:
                said = str(error)
            state = self._state()
            passed = time.monotonic() - began
            if state.get("failures", 0) >= HOPELESS or (passed > ABSENT and self._keeper.supervisor() is None):
                if started:
                    self._keeper.stop(signal.SIGTERM, request["patience"])
                raise SystemExit(self._last_words() or "the node does not start and says nothing")
            if may_wait and passed > STEADY and state.get("node") and not said.startswith("nothing listens"):
                return "waits"
            if passed > request["patience"]:
                raise SystemExit(f"started, but does not serve after {passed:.0f} s: {self._last_words() or said}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        """The last thing the node said since it was started."""
        with contextlib.suppress(OSError), self._layout.said.open("rb") as file:
            file.seek(self._said_before)
            said = [line for line in file.read().decode(errors="replace").splitlines() if " supervisor: " not in line]
            return said[-1].strip() if said else ""
        return ""

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._layout.state.read_text())
        except OSError:
            return {}
        return state


def _check_port(host: str, port: int) -> None:
    """Raises SystemExit if a node could not listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SystemExit(f"cannot listen on {host}:{port}: {error.strerror}") from None


def main() -> None:
    """Do what the one word says with the request on standard input; `logs` and `special` become other programs."""
    layout = Layout.here()
    agent, client = Agent(layout), Client(layout)
    verb, *rest = sys.argv[1:]
    if verb == "logs":
        os.execvp("tail", ["tail", "-q", *rest, *(str(path) for path in (layout.log, layout.said) if path.exists())])
    if verb == "special":
        client.special(*rest)
    verbs: dict[str, Callable[[Request], Request]] = {
        **{name: getattr(agent, name) for name in ("look", "start", "stop", "health", "whole")},
        **{name: getattr(client, name) for name in ("dump", "load", "clear", "token")},
    }
    print(json.dumps(verbs[verb](json.load(sys.stdin))))


if __name__ == "__main__":
    main()
