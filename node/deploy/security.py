"""What a host's node is told about who may join it, and what it needs to join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.deploy.fleet import Fleet
from node.deploy.ssh import Request


@dataclass(frozen=True, slots=True)
class Security:
    """Words stand on the command line of a node, where everybody on its host can read them; what is secret goes into
    the environment, which travels on the standard input of ssh and lies in a file that only the owner can read."""

    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def security_of(name: str, fleet: Fleet, seen: Mapping[str, Request]) -> Security:
    """For the node on this host. The first founds a ring with certificates; those that have none, as one that was
    revoked and is to come back, get a token from a host that serves. Raises HostFailed if that gives none."""
    if fleet.inventory.ring.insecure:
        return Security(words=("--insecure",))
    here = seen.get(name)
    serving = [other for other, said in seen.items() if other != name and said["members"]]
    if not serving or (here is not None and (here["certified"] or here["node"])):
        return Security()
    with fleet.connection(serving[0]) as giver:
        token = giver.agent("token", {"client": False})["token"]
    return Security(environment={"RPYCHORD_TOKEN": token})
