"""Starting, stopping and renewing the nodes of a ring that is on many hosts."""

from __future__ import annotations

from collections.abc import Sequence

from node.deploy.fleet import Fleet, Outcome
from node.deploy.inventory import Inventory
from node.deploy.security import security_of
from node.deploy.ssh import HostFailed, RemoteHost, Request

START, STOP, WHOLE = 60.0, 75.0, 180.0
"""Seconds a node has to start, to hand over and end, and a ring to become whole."""
FOR_NOW = "; until the next boot, after which nothing starts it: install cron there, or loginctl enable-linger USER"
REPLY = 60.0
"""Seconds more for the answer, after what was asked for had its time."""


class Seen:
    """What the hosts that answer said of their nodes, and where those listen."""

    def __init__(self, fleet: Fleet) -> None:
        found: dict[str, Request] = {}

        def on(host: RemoteHost) -> str:
            found[host.name] = look(host)
            return ""

        self.outcomes = fleet.everywhere().each(on)
        self.hosts = {name: found[name] for name in fleet.inventory.hosts if name in found}

    def others(self, name: str) -> dict[str, Request]:
        """All but one of them, the first host first."""
        return {other: said for other, said in self.hosts.items() if other != name}

    def running(self) -> list[str]:
        """The addresses of the nodes that run."""
        return [said["address"] for said in self.hosts.values() if said["node"]]


def look(host: RemoteHost) -> Request:
    """What a host says of its node."""
    return host.agent("look", host.where)


def run_first(fleet: Fleet) -> list[Outcome]:
    """Start the first node. It founds the ring, unless it has data of one, or others serve."""
    return _run(fleet, fleet.of(fleet.inventory.first))


def run_others(fleet: Fleet) -> list[Outcome]:
    """Start the others; they are done when each lists all that run."""
    outcomes = _run(fleet, fleet.of(*fleet.inventory.others))
    good = [each.host for each in outcomes if each.good]
    running = Seen(fleet).running()
    for_now = {each.host for each in outcomes if each.said.endswith(FOR_NOW)}

    def on(host: RemoteHost) -> str:
        return await_whole(host, running, replicas=False) + (FOR_NOW if host.name in for_now else "")

    whole = fleet.each(on, good)
    return [each for each in outcomes if not each.good] + whole


def _run(fleet: Fleet, hosts: Sequence[str]) -> list[Outcome]:
    seen = Seen(fleet)
    return fleet.each(lambda host: start(host, fleet, seen), hosts)


def start(host: RemoteHost, fleet: Fleet, seen: Seen) -> str:
    """Start the node of a host, if it does not run, and wait until it serves. One that fails whenever it is started is
    stopped first: it may be for what it is told, as with a token that is used up."""
    if (here := seen.hosts.get(host.name)) is not None and here["failing"]:
        stop_one(host, leave=False, renew=here["renewing"])
        seen.hosts[host.name] = look(host)
    inventory = fleet.inventory
    others = seen.others(host.name).values()
    role = _role(host, inventory, seen)
    security = security_of(host.name, fleet, seen.hosts)
    request = host.where | {
        "words": [*role, *_words(host, inventory), *security.words],
        "environment": security.environment,
        "patience": START,
        "may_wait": len(inventory.hosts) > 1 and not any(said["node"] for said in others),
    }
    silent = [name for name in inventory.hosts if name not in seen.hosts]
    founds = silent and not any(said["data"] or said["node"] for said in seen.hosts.values())
    answer = host.agent("start", request, START + STOP + REPLY)
    for_now = FOR_NOW if answer["kept"] == "nothing" else ""
    if answer["state"] == "waits":
        return "started, waits for the others of its ring: fab run_servers" + for_now
    if founds and not answer["was_running"]:
        return f"began a new ring, though {', '.join(silent)} cannot be asked for one{for_now}"
    return "runs" if answer["was_running"] else "started" + for_now


def _role(host: RemoteHost, inventory: Inventory, seen: Seen) -> list[str]:
    """How a node begins: whom it joins, or what the ring it founds is like. Raises HostFailed if it can do neither."""
    here = seen.hosts.get(host.name) or look(host)
    others = seen.others(host.name)
    serving = [said["address"] for said in others.values() if said["members"]]
    up = serving or [said["address"] for said in others.values() if said["node"]]
    has_data = here["data"] or here["node"]
    if serving or (up and not has_data):
        return [up[0], str(inventory.ring.port), str(inventory.ring.port)]
    port = ["--port", str(inventory.ring.port)]
    if has_data:
        return port
    if host.name != inventory.first:
        raise HostFailed("there is no node to join: start the first one with fab run_server")
    if with_data := [name for name, said in others.items() if said["data"]]:
        raise HostFailed(f"has no data of the ring that {', '.join(with_data)} have: start those with fab run_servers")
    return [*port, *_policy(inventory)]


def _policy(inventory: Inventory) -> list[str]:
    """What belongs to the ring as a whole."""
    ring = inventory.ring
    named = {"--replicas": ring.replicas, "--consistency": ring.consistency, "--durability": ring.durability}
    words = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    return [*words, *(["--siblings"] if ring.siblings else [])]


def _words(host: RemoteHost, inventory: Inventory) -> list[str]:
    """What every node is told."""
    ring = inventory.ring
    words = ["--listen", host.address, "--members", str(ring.members), "--profile", ring.profile]
    logged = {"--log-level": ring.log_level, "--log-format": ring.log_format}
    return words + [word for name, value in logged.items() if value is not None for word in (name, value)]


def await_whole(host: RemoteHost, running: Sequence[str], *, replicas: bool) -> str:
    """Wait until the node of a host lists all that run, and, if asked, until every arc has all its replicas."""
    members = [(address, host.where["port"]) for address in running]
    request = host.where | {"members": members, "replicas": replicas, "patience": WHOLE}
    listed = host.agent("whole", request, WHOLE + REPLY)["members"]
    return f"serves in a ring of {listed}"


def stop(fleet: Fleet, patience: float = STOP) -> list[Outcome]:
    """End the nodes. All of them rest: each keeps its replicas and its place. Some of them hand over and leave."""
    leave = fleet.hosts != fleet.inventory.hosts
    return fleet.each(lambda host: stop_one(host, leave=leave, patience=patience))


def stop_one(host: RemoteHost, *, leave: bool, patience: float = STOP, renew: bool = False) -> str:
    """End the node of a host; it is killed if it has not ended in time. With `renew` the host remembers that it is to
    be started again, whatever happens meanwhile."""
    answer = host.agent("stop", {"patience": patience, "leave": leave, "renew": renew}, patience + REPLY)
    if answer["killed"]:
        return f"had to be killed after {answer['seconds']:.0f} s; its data stays"
    return f"stopped in {answer['seconds']:.1f} s" if answer["ran"] else "did not run"


def renew(fleet: Fleet, hosts: Sequence[str]) -> list[Outcome]:
    """Restart the nodes that run an older release, one host at a time, each when the ring is whole."""
    outcomes: list[Outcome] = []
    for name in hosts:
        failed = [each.host for each in outcomes if not each.good]
        if failed:
            outcomes.append(Outcome(name, False, f"not restarted, for {failed[0]} failed before: fab update_servers"))
        else:
            outcomes.append(fleet.one(name, lambda host: _renew_one(host, fleet)))
    return outcomes


def _renew_one(host: RemoteHost, fleet: Fleet) -> str:
    seen = Seen(fleet)
    here = seen.hosts.get(host.name) or look(host)
    if not here["node"] and not here["renewing"]:
        return "does not run"
    if here["running"] == [here["release"]]:
        return "runs this release"
    running = list(dict.fromkeys([*seen.running(), here["address"]]))
    if here["node"]:
        await_whole(host, running, replicas=True)
        stop_one(host, leave=True, renew=True)
    start(host, fleet, Seen(fleet))
    return await_whole(host, running, replicas=True).replace("serves", "restarted, serves")
