"""Bringing the tree to the hosts, and taking everything away again."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from node.deploy.fleet import Fleet, Outcome
from node.deploy.host import inspection, installation
from node.deploy.inventory import Inventory
from node.deploy.release import Release, packed
from node.deploy.running import Seen, await_whole, look
from node.deploy.ssh import HostFailed, NotInstalled, RemoteHost, Request
from node.deploy.wheelhouse import Wheelhouse

CHECK = Path(inspection.__file__)
SCRIPT = Path(installation.__file__)
STOP = 75.0
"""Seconds a node has to hand over and end."""


def install(fleet: Fleet, tree: Path, *, offline: bool) -> list[Outcome]:
    """Install the release that this tree is on every host. Hosts without a package index get the wheels from here."""
    release = packed(tree)
    wheelhouse = Wheelhouse(tree / "requirements.lock")

    def on(host: RemoteHost) -> str:
        facts = inspected(host, fleet.inventory, release, ask_index=not offline)
        request: Request = {"what": "install", "release": release.name, "archive": "", "wheels": ""}
        request["environment"] = facts["environment"]
        if facts["installed"]:
            host.script(SCRIPT, request)
            return f"{release.name} was there"
        request["archive"] = f"{release.name}.zip"
        host.put(release.archive, f"incoming/{request['archive']}")
        source = "its index" if facts["index"] else "wheels sent"
        if facts["has_environment"]:
            source = "the lock before"
        elif not facts["index"]:
            wheels = wheelhouse.archive(facts)
            request["wheels"] = wheels.name
            host.put(wheels, f"incoming/{wheels.name}")
        host.script(SCRIPT, request)
        return f"{release.name} with Python {facts['version']}, {source}"

    return fleet.each(on)


def inspected(host: RemoteHost, inventory: Inventory, release: Release, *, ask_index: bool) -> Request:
    """What a host says of itself. Raises HostFailed if a node cannot be there."""
    place = inventory.host
    request: Request = {"address": host.address, "port": inventory.ring.port, "free_mb": place.free_mb}
    request |= {"release": release.name, "lock": release.lock, "ask_index": ask_index}
    before = time.time()
    facts = host.script(CHECK, request)
    if problem := clock_problem(before, facts["now"], time.time(), place.clock_seconds):
        raise HostFailed(problem)
    return facts


def clock_problem(before: float, there: float, after: float, most: float) -> str:
    """What is wrong with a clock that was read between two looks at ours, if it surely differs by more."""
    offset = there - after if there > after else there - before if there < before else 0.0
    if abs(offset) <= most:
        return ""
    direction = "ahead of" if offset > 0 else "behind"
    return f"its clock is {abs(offset):.1f} s {direction} the one here: have both set by NTP"


def remove(fleet: Fleet) -> list[Outcome]:
    """Stop the nodes and remove everything; of some hosts of a ring that goes on, once others have what they hold."""
    leave = fleet.hosts != fleet.inventory.hosts

    def on(host: RemoteHost) -> str:
        with contextlib.suppress(NotInstalled):
            host.agent("stop", {"patience": STOP, "leave": leave, "for_good": True})
            if leave and look(host)["data"]:
                _await_taken_over(fleet)
        return "removed" if host.script(SCRIPT, {"what": "remove"})["was_there"] else "nothing was there"

    return fleet.each(on)


def _await_taken_over(fleet: Fleet) -> None:
    """Wait until the nodes of the other hosts have all replicas, if they serve. Raises HostFailed if they do not."""
    seen = Seen(fleet)
    others = [name for name, said in seen.hosts.items() if said["members"] and name not in fleet.hosts]
    if not others:
        return
    try:
        with fleet.connection(others[0]) as other:
            await_whole(other, [], replicas=True)
    except HostFailed as error:
        raise HostFailed(
            f"stopped, but its data stays, for others may not have it ({error}): fab run_servers"
        ) from None
