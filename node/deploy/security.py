"""What a host's node is told about who may join it: the one place to change when that changes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Security:
    """Words stand on the command line of a node, where everybody on its host can read them; what is secret goes into
    the environment, which travels on the standard input of ssh and lies in a file that only the owner can read."""

    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def security_of(host: str) -> Security:
    """For the node on this host."""
    return Security(words=("--insecure",))
