"""`python -m tests.hosts up [N]` and `down`: hosts for people to try a deployment on, with a file of hosts for fab."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.hosts.machines import Machines, lacking

DIRECTORY = Path(tempfile.gettempdir()) / "rpychord-hosts"


def main() -> int:
    """Make the hosts, or remove them."""
    verb, count = (*sys.argv[1:], "4")[:2] if len(sys.argv) > 1 else ("", "4")
    if verb not in ("up", "down") or not count.isdecimal():
        print("usage: python -m tests.hosts up [N] | down", file=sys.stderr)
        return 2
    if problem := lacking():
        print(f"tests.hosts: {problem}", file=sys.stderr)
        return 1
    machines = Machines(DIRECTORY, int(count), "rpych")
    if verb == "down":
        machines.down()
        return 0
    if DIRECTORY.exists():
        print("tests.hosts: there are some already: python -m tests.hosts down", file=sys.stderr)
        return 1
    machines.__enter__()
    hosts = DIRECTORY / "hosts.toml"
    hosts.write_text(machines.inventory())
    print(f"try: RPYCHORD_HOSTS={hosts} ip netns exec {machines.namespace(0)} .venv/bin/fab status")
    return 0


if __name__ == "__main__":
    sys.exit(main())
