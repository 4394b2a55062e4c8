"""Deploy a ring: `fab setup_servers run_server run_servers the_special`. Hosts are in hosts.toml.

See docs/operations.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fabric import task
from invoke.exceptions import Exit

from node.deploy import copying, inventory
from node.deploy.fleet import Fleet, fail_for, report, show
from node.deploy.installing import install, remove
from node.deploy.running import renew, run_first, run_others, stop
from node.deploy.telling import run_special, show_logs, show_status, uptimes
from node.errors import BadUsage

TREE = Path(__file__).resolve().parent


def fleet(c):
    """The hosts that a task of this line is for."""
    return Fleet(inventory.read(TREE), c.config, c.config.named_hosts, c.config.failed_hosts)


def number(option, text, least):
    """What an option of a task says; Fabric would end in a traceback."""
    if not text.isdecimal() or int(text) < least:
        raise BadUsage(f"--{option} {text}: expected a whole number >= {least}")
    return int(text)


def agreed(question):
    """Whether a person said yes."""
    try:
        return input(question) == "yes"
    except EOFError:
        return False


@task(help={"offline": "do not look for a package index on the hosts, send wheels from here"})
def setup_servers(c, offline=False):
    """Install this tree on every host; a host that has it already is left as it is."""
    report("setup", install(fleet(c), TREE, offline=offline))


@task
def run_server(c):
    """Start the first node, and return when it serves."""
    report("run", run_first(fleet(c)))


@task
def run_servers(c):
    """Start the other nodes, and return when the ring lists them all."""
    report("run", run_others(fleet(c)))


@task(help={"patience": "seconds until a node that does not end is killed"})
def stop_servers(c, patience="75"):
    """End every node; the data stays. With -H those hand over to the others and leave."""
    report("stop", stop(fleet(c), number("patience", patience, least=0)))


@task
def restart_servers(c):
    """Stop every node, then start them all. For a ring that goes on meanwhile: update_servers."""
    hosts = fleet(c)
    stopped = show("stop", stop(hosts))
    first = show("run", run_first(hosts))
    fail_for([*stopped, *first, *show("run", run_others(hosts))])


@task(help={"offline": "as for setup_servers"})
def update_servers(c, offline=False):
    """Install this tree and restart one node after the other, each when the ring is whole."""
    hosts = fleet(c)
    installed = show("setup", install(hosts, TREE, offline=offline))
    renewed = show("update", renew(hosts, [each.host for each in installed if each.good]))
    fail_for([*installed, *renewed])


@task(help={"file": "the input file, input.txt unless said otherwise"})
def the_special(c, file=str(TREE / "input.txt")):
    """Run main.py with an input file on the first host; exits as it does."""
    run_special(fleet(c), Path(file))


@task
def status(c):
    """Show the ring, the state of its replicas, and what runs on each host."""
    show_status(fleet(c))


@task(help={"lines": "how many of the last lines", "follow": "go on until Ctrl-C"})
def logs(c, lines="20", follow=False):
    """Show the last lines of each node's log."""
    report("logs", show_logs(fleet(c), number("lines", lines, least=1), follow=follow))


@task
def uptime(c):
    """Show how long each node and its host have been up."""
    report("uptime", uptimes(fleet(c)))


@task(help={"file": "the file to write"})
def backup(c, file):
    """Write all keys and values of the ring to a file here."""
    report("backup", copying.backup(fleet(c), Path(file)))


@task(help={"file": "a file that backup wrote"})
def restore(c, file):
    """Store all keys and values of a file; keys that are not in it stay."""
    report("restore", copying.restore(fleet(c), Path(file)))


@task(help={"yes": "do not ask"})
def destroy(c, yes=False):
    """Stop every node and remove the installation and all data."""
    hosts = fleet(c)
    if not yes and not sys.stdin.isatty():
        raise BadUsage("destroy removes all data: say --yes")
    if not yes and not agreed(f"Remove the ring and all its data on {', '.join(hosts.hosts)}? Type yes: "):
        raise Exit("fab: nothing was removed", code=1)
    report("destroy", remove(hosts))
