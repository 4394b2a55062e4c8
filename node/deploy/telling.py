"""What the hosts and their ring say of themselves, and what they are asked to do for once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from node.deploy.fleet import Fleet, HostsFailed, Outcome, print_table
from node.deploy.running import Seen
from node.deploy.ssh import HostFailed, RemoteHost, Request
from node.errors import BadUsage

AGENT = "node.deploy.host.agent"


def show_status(fleet: Fleet) -> None:
    """Print a line for each host, the state of the replicas, and how many are in the ring. Raises HostsFailed."""
    seen = Seen(fleet)
    health: Request = {"problems": [], "keys": {}}
    serving = [name for name, said in seen.hosts.items() if said["members"]]
    if serving:
        try:
            with fleet.connection(serving[0]) as host:
                health = host.agent("health", host.where)
        except HostFailed as failure:
            health["problems"] = [f"the replicas cannot be compared: {failure}"]
    rows = [_row(each, seen.hosts.get(each.host), health["keys"]) for each in seen.outcomes if each.host in fleet.hosts]
    print_table(("host", "node", "release", "up", "restarts", "keys", "bytes", "problem"), rows)
    members = seen.hosts[serving[0]]["members"] if serving else []
    print(f"ring of {len(members)}: " + " ".join(f"{host}:{port}={id[:8]}" for host, port, id in members))
    for problem in health["problems"]:
        print(problem)
    if serving and not health["problems"]:
        print("every arc has all its replicas, and they agree")
    bad = [row[0] for row in rows if row[-1]]
    if bad or health["problems"] or not serving:
        raise HostsFailed(bad)


def _row(outcome: Outcome, said: Request | None, keys: dict[str, int]) -> Sequence[str]:
    if said is None:
        return (outcome.host, "-", "-", "-", "-", "-", "-", outcome.said)
    held = str(keys.get(f"{said['address']}:{said['port']}", "-"))
    up = _in_words(said["uptime"]) if said["node"] else "-"
    releases = ",".join(said["running"]) or said["release"]
    unsupervised = "runs without a supervisor: fab run_servers" if said["node"] and not said["supervised"] else ""
    state = "serves" if said["members"] else "up" if said["node"] else "down"
    return (
        outcome.host,
        state,
        releases,
        up,
        str(said["restarts"]),
        held,
        f"{said['bytes']:,}",
        said["said"] or unsupervised,
    )


def _in_words(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def uptimes(fleet: Fleet) -> list[Outcome]:
    """How long the node of each host has been up, and the host."""

    def on(host: RemoteHost) -> str:
        said = host.agent("look", host.where)
        if not said["node"]:
            raise HostFailed(f"no node runs; the host is up {_in_words(said['host_uptime'])}")
        return f"node up {_in_words(said['uptime'])}, host up {_in_words(said['host_uptime'])}"

    return fleet.each(on)


def show_logs(fleet: Fleet, lines: int, *, follow: bool) -> list[Outcome]:
    """Print the last lines of each host's log, each with its host in front; with `follow` go on until Ctrl-C."""
    words = ["-m", AGENT, "logs", "-n", str(lines), *(["-F"] if follow else [])]
    outcomes: list[Outcome] = []

    def on(host: RemoteHost) -> str:
        if host.show(words, lambda line: print(f"{host.name}  {line}", flush=True)):
            raise HostFailed("there is no log yet")
        return "shown"

    def tell(name: str) -> None:
        outcomes.append(fleet.one(name, on))

    # Not in a pool: Ctrl-C is not to wait for them.
    threads = [threading.Thread(target=tell, args=(name,), daemon=True) for name in fleet.hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes, key=lambda each: fleet.hosts.index(each.host))


def run_special(fleet: Fleet, file: Path) -> None:
    """Do what an input file says, on the first host against the ring, and print what it says. Raises HostsFailed with
    the exit code, BadUsage if there is no such file."""
    if not file.is_file():
        raise BadUsage(f"there is no file {file}: name one with --file")
    first = fleet.inventory.first

    def on(host: RemoteHost) -> str:
        host.put(file, "input.txt")
        words = ["-m", AGENT, "special", host.there("input.txt"), host.address, str(fleet.inventory.ring.port)]
        if code := host.show(words, lambda line: print(line, flush=True)):
            raise HostsFailed([host.name], code)
        return "done"

    outcome = fleet.one(first, on)
    if not outcome.good:
        print_table(("host", "what", "result", "reason"), [(first, "special", "FAILED", outcome.said)])
        raise HostsFailed([first])
