"""The tasks of the fabfile on hosts of their own, over real ssh."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.deploy.wheelhouse import Wheelhouse
from node.simulation.history import History
from node.simulation.linearizability import check
from tests.deploy.fab import ROOT, Fab, rows
from tests.hosts.machines import Machines, needs_hosts, sh
from tests.ring.nodes import eventually

PORT = 18861
HOME = "/home/chord"
FACTS = """
import json, platform, sys
print(json.dumps({"version": platform.python_version(), "implementation": sys.implementation.name,
    "machine": platform.machine(), "libc": platform.libc_ver(), "system": platform.system()}))
"""
OLD_PYTHON = """#!/bin/sh
[ "$1" = -V ] && echo Python 3.9.2
exit 1"""
BOTH, OUT, BACK = {}, {"back": False}, {"out": False}
"""Ways of a cut."""
WHOLE = "every arc has all its replicas, and they agree"
pytestmark = [needs_hosts, pytest.mark.timeout(400)]


@pytest.fixture
def fab(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fab]:
    """Hosts with nothing on them, four unless said otherwise, and a fab that has their wheels but no network."""
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("deploy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    Wheelhouse(ROOT / "requirements.lock").archive(json.loads(sh("/usr/bin/python3", "-c", FACTS)))
    with Machines(tmp_path / "hosts", getattr(request, "param", 4)) as hosts:
        made = Fab(hosts, tmp_path)
        made.inventory.write_text(hosts.inventory(ring="insecure = true\n"))
        yield made


def ask(hosts: Machines, number: int, expression: str) -> str:
    """What a plain client of the node on a host gets, asked from outside."""
    code = f"import rpyc; ring = rpyc.connect('{hosts.address(number)}', {PORT}).root; print({expression})"
    return hosts.run(0, sys.executable, "-c", code).strip()


def node_of(hosts: Machines, number: int) -> str:
    """The process of the node on a host."""
    return hosts.run(number, "pgrep", "-f", "server.py", check=False).strip()


def test_a_ring_is_deployed_survives_and_rests(fab: Fab) -> None:
    hosts = fab.hosts
    began = time.monotonic()
    said = fab("setup_servers", "run_server", "run_servers", "the_special")
    assert time.monotonic() - began < 120
    assert "0 wrong, 0 malformed" in said
    ring = ask(hosts, 3, "ring.get_conn_info()")
    assert all(hosts.address(number) in ring for number in hosts.numbers)

    nodes = [node_of(hosts, number) for number in hosts.numbers]
    fab("setup_servers", "run_server", "run_servers", "the_special")
    assert [node_of(hosts, number) for number in hosts.numbers] == nodes, "the same processes, one a host"
    assert ask(hosts, 2, "ring.get_conn_info()") == ring

    its_data_comes_back_after_a_kill(fab)
    it_rests_and_comes_back(fab)
    nothing_is_left_of_it(fab)


@pytest.mark.soak
@pytest.mark.parametrize("fab", [2], indirect=True)
def test_a_ring_with_certificates_is_restarted_copied_and_restored(fab: Fab) -> None:
    fab.inventory.write_text(fab.hosts.inventory())
    fab("setup_servers", "run_server", "run_servers", "the_special")
    fab("restart_servers", "the_special", "backup", "--file", "copy.jsonl", "restore", "--file", "copy.jsonl")


@pytest.mark.soak
@pytest.mark.parametrize("fab", [2], indirect=True)
def test_an_open_ring_gets_certificates_as_the_manual_says(fab: Fab) -> None:
    hosts = fab.hosts
    fab("setup_servers", "run_server", "run_servers", "the_special", "stop_servers")

    def typed(number: int, words: str) -> str:
        return hosts.run(number, "su", "-", "chord", "-c", words)

    certify = "rpychord/current/venv/bin/ring certify --data rpychord/data"
    typed(1, certify)
    trust = typed(1, "tar -C rpychord/data -c trust | base64 -w 0").strip()
    typed(2, f"mkdir -m 700 authority && echo {trust} | base64 -d | tar -C authority -x")
    typed(2, f"{certify} --authority authority && rm -r authority")
    fab.inventory.write_text(hosts.inventory())
    assert "0 wrong, 0 malformed" in fab("run_server", "run_servers", "the_special")
    assert WHOLE in fab("status")
    assert "EOFError" in failure(hosts, 1), "who has no certificate gets nothing"


@pytest.mark.soak
def test_a_ring_is_copied_and_restored_and_renewed_under_load(fab: Fab) -> None:
    fab("setup_servers", "run_server", "run_servers", "the_special")
    it_is_copied_and_restored(fab)
    one_leaves_and_comes_back(fab)
    a_release_that_does_not_start_takes_down_one_node(fab)
    it_is_renewed_under_load(fab)


def its_data_comes_back_after_a_kill(fab: Fab) -> None:
    hosts = fab.hosts
    killed = node_of(hosts, 2)
    hosts.run(2, "pkill", "-9", "-f", "server.py")
    back = time.monotonic() + 5
    eventually(lambda: node_of(hosts, 2) not in ("", killed) and ask(hosts, 2, "ring.get_conn_info()"))
    assert time.monotonic() < back, "a killed node serves again within five seconds"
    eventually(lambda: ask(hosts, 2, "ring.get('city/lisbon')") == "Lisbon", what="its data")
    assert " 1 " in rows(fab("status", code=None))[hosts.address(2)], "its restart is counted"
    assert "killed by SIGKILL" in fab("-H", hosts.address(2), "logs")


def it_rests_and_comes_back(fab: Fab) -> None:
    hosts = fab.hosts
    hosts.run(4, "pkill", "-STOP", "-f", "server.py")
    stopped = rows(fab("stop_servers", "--patience", "3"))
    assert "had to be killed after 3 s; its data stays" in stopped[hosts.address(4)]
    assert all("stopped in" in stopped[hosts.address(number)] for number in (1, 2, 3))
    assert not any(node_of(hosts, number) for number in hosts.numbers)
    assert "no node runs" in rows(fab("status", code=1))[hosts.address(1)]
    assert "crontab" not in hosts.run(1, "sh", "-c", "crontab -u chord -l 2>&1 | grep rpychord || true")
    fab("run_server", "run_servers")
    for number in hosts.numbers:
        assert ask(hosts, number, "ring.get('full name')") == "Ada Augusta, Countess of Lovelace"
    assert hosts.run(1, "crontab", "-u", "chord", "-l").count("@reboot") == 1


def it_is_copied_and_restored(fab: Fab) -> None:
    hosts, file = fab.hosts, fab.tree / "copy.jsonl"
    assert "keys in " in fab("backup", "--file", str(file))
    assert "name another file" in fab("backup", "--file", str(file), code=2)
    assert ask(hosts, 1, "ring.delete('city/lisbon'), ring.put('counter', 99), ring.put('new', 1)")
    assert f"{len(file.read_text().splitlines())} keys stored" in fab("restore", "--file", str(file))
    assert ask(hosts, 2, "(ring.get('city/lisbon'), ring.get('counter'), ring.get('new'))") == "('Lisbon', '3', 1)"
    assert hosts.run(1, "ls", f"{HOME}/rpychord/copy").split() == []


def one_leaves_and_comes_back(fab: Fab) -> None:
    hosts = fab.hosts
    fab("-H", hosts.address(3), "stop_servers")
    assert hosts.address(3) not in ask(hosts, 1, "ring.get_conn_info()")
    fab("-H", hosts.address(3), "run_servers")
    assert hosts.address(3) in ask(hosts, 1, "ring.get_conn_info()")


def a_release_that_does_not_start_takes_down_one_node(fab: Fab) -> None:
    hosts, module = fab.hosts, fab.tree / "node" / "remote" / "node.py"
    good = module.read_text()
    module.write_text(good + "\nNode.start = None\n")
    for _ in range(2):
        assert "not restarted, for" in fab("update_servers", "--offline", code=1)
        assert len(literal_eval(ask(hosts, 2, "ring.get_conn_info()"))) == 3
    killed = node_of(hosts, 3)
    hosts.run(3, "pkill", "-9", "-f", "server.py")
    eventually(lambda: node_of(hosts, 3) not in ("", killed) and ask(hosts, 3, "ring.get_conn_info()"))
    module.write_text(good)
    assert "restarted, serves in a ring of 4" in rows(fab("update_servers", "--offline"))[hosts.address(1)]
    assert WHOLE in fab("status")


def it_is_renewed_under_load(fab: Fab) -> None:
    with (fab.tree / "main.py").open("a") as file:
        file.write("# of another release\n")
    fab("setup_servers", "--offline")
    with load(fab) as met:
        said = fab("update_servers")
    assert said.count("restarted, serves in a ring of 4") == 4
    assert not met["errors"], "our own client, which tries again, meets none"
    assert met["plain"]["ok"] > 1000 and met["ours"]["ok"] > 1000 and met["longest"] < 30
    assert WHOLE in fab("status")
    assert "runs this release" in fab("update_servers")


@contextmanager
def load(fab: Fab) -> Iterator[dict[str, Any]]:
    """16 clients of all hosts meanwhile, half of them stock ones. What they met is in the dict at the end, and their
    history is linearizable."""
    hosts, file = fab.hosts, fab.tree / "history"
    nodes = [f"{hosts.address(number)}:{PORT}" for number in hosts.numbers]
    words = [sys.executable, "-m", "tests.deploy.load", str(file), "8", *nodes]
    clients = subprocess.Popen(
        ["ip", "netns", "exec", hosts.namespace(0), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    met: dict[str, Any] = {}
    try:
        yield met
        met |= json.loads(clients.communicate(timeout=90)[0])
    finally:
        clients.kill()
        clients.wait()
    print({**met, "errors": len(met["errors"])})
    assert not met["broken"]
    verdict = check(History.load(file))
    assert verdict, f"{verdict}\nthe history is in {file}"
    print(verdict)


@pytest.mark.soak
def test_a_host_that_is_cut_off_under_load_refuses_and_is_back_when_the_cut_is_healed(fab: Fab) -> None:
    fab("setup_servers", "run_server", "run_servers")
    hosts = fab.hosts
    eventually(lambda: WHOLE in fab("status", code=None), what="a whole ring")
    with load(fab) as met:
        for number, ways in zip((1, 2, 3), (BOTH, OUT, BACK), strict=True):
            it_is_cut_off_and_comes_back(hosts, number, ways)
    assert met["plain"]["ok"] > 1000 and met["ours"]["ok"] > 1000 and met["plain"]["NoQuorum"]
    fab("status")


def it_is_cut_off_and_comes_back(hosts: Machines, cut_off: int, ways: dict[str, bool]) -> None:
    """For longer than the others wait until they do without it."""
    other = cut_off % len(hosts.numbers) + 1
    hosts.cut(cut_off, **ways)
    began = time.monotonic()
    eventually(lambda: "NoQuorum" in failure(hosts, cut_off), what="a host cut off that says so")

    def works() -> bool:
        return ask(hosts, other, "(ring.put('during', 1) and ring.get('during'))") == "1"

    eventually(works, what="a ring that goes on without it")
    gone = f"ring.get_conn_info() and '{hosts.address(cut_off)}' in str(ring.verify())"
    eventually(lambda: ask(hosts, other, gone) == "False", what="copies in its place")
    assert "NoQuorum" in failure(hosts, cut_off), "and it refuses all the while"
    print(f"host {cut_off} was cut off ({ways}) for {time.monotonic() - began:.0f} s")
    hosts.heal()
    healed = time.monotonic()
    for number in hosts.numbers:
        eventually(lambda number=number: len(literal_eval(ask(hosts, number, "ring.get_conn_info()"))) == 4)
    back = "all(not arc[4] or 'not compared' in arc[4] for arc in ring.verify())"
    back += f" and '{hosts.address(cut_off)}' in str(ring.verify())"
    eventually(lambda: ask(hosts, cut_off, back) == "True", what="all replicas, on all hosts")
    print(f"all is back {time.monotonic() - healed:.0f} s after it was healed")


def failure(hosts: Machines, number: int) -> str:
    """The kind of error that a plain client of the node on a host gets for a read."""
    code = f"import rpyc\ntry: print(rpyc.connect('{hosts.address(number)}', {PORT}).root.get('during'))\n"
    code += "except Exception as error: print(type(error).__name__)"
    return hosts.run(0, sys.executable, "-c", code).strip()


def nothing_is_left_of_it(fab: Fab) -> None:
    hosts = fab.hosts
    assert "say --yes" in fab("destroy", code=2)
    assert node_of(hosts, 1)
    fab("destroy", "--yes")
    for number in hosts.numbers:
        assert not node_of(hosts, number)
        assert hosts.run(number, "ls", "-A", "/home/chord").split() == [".bash_logout", ".bashrc", ".profile", ".ssh"]
    fab("destroy", "--yes")


@pytest.mark.parametrize("fab", [2], indirect=True)
def test_unless_told_otherwise_a_ring_has_certificates_and_tokens_are_seen_by_nobody(fab: Fab) -> None:
    hosts = fab.hosts
    fab.inventory.write_text(hosts.inventory())
    said = fab("setup_servers", "run_server", "run_servers", "the_special", "status")
    assert "0 wrong, 0 malformed" in said and "ring of 2: " in said
    stranger = f"import rpyc; rpyc.connect('{hosts.address(1)}', {PORT}).root.get('city/lisbon')"
    with pytest.raises(AssertionError, match="EOFError|closed|reset"):
        hosts.run(0, sys.executable, "-c", stranger)
    assert "ring1." in hosts.run(2, "cat", f"{HOME}/rpychord/run/orders.json"), "the second node came with a token"
    assert hosts.run(2, "stat", "-c", "%a", f"{HOME}/rpychord/run/orders.json").strip() == "600"
    assert "ring1." not in hosts.run(2, "sh", "-c", "cat /proc/[0-9]*/cmdline")
    assert "ring1." not in said and "ring1." not in hosts.run(1, "sh", "-c", f"cat {HOME}/rpychord/log/*.log")
    hosts.run(2, "pkill", "-9", "-f", "server.py")
    eventually(lambda: "ring of 2: " in fab("status"), what="the killed node, with its certificate")
    it_is_revoked_and_let_in_again(fab, 2)


def it_is_revoked_and_let_in_again(fab: Fab, number: int) -> None:
    """As the manual says."""
    hosts = fab.hosts
    words = f"rpychord/current/venv/bin/ring revoke {hosts.address(number)} --data rpychord/data"
    assert "revoked node" in hosts.run(1, "su", "-", "chord", "-c", words)
    eventually(lambda: "is revoked" in fab("-H", hosts.address(number), "logs"), what="a node that has heard of it")
    fab("-H", hosts.address(number), "stop_servers")
    hosts.run(number, "rm", "-r", f"{HOME}/rpychord/data/trust")
    assert "serves in a ring of 2" in fab("-H", hosts.address(number), "run_servers")


@pytest.mark.parametrize("fab", [7], indirect=True)
def test_the_summary_names_every_host_that_fails_and_why_and_the_others_are_done(fab: Fab) -> None:
    hosts = fab.hosts
    good, crashed, strange, refused, full, taken, old = map(hosts.address, hosts.numbers)
    hosts.crash(2)
    keys = [line.split() for line in hosts.known_hosts.read_text().splitlines()]
    keys[2][2] = keys[0][2]
    hosts.known_hosts.write_text("".join(" ".join(words) + "\n" for words in keys))
    hosts.run(4, "rm", f"{HOME}/.ssh/authorized_keys")
    hosts.run(5, "install", "-d", "-o", "chord", "-g", "chord", f"{HOME}/rpychord")
    hosts.run(5, "mount", "-t", "tmpfs", "-o", "size=40m,uid=chord,gid=chord", "none", f"{HOME}/rpychord")
    server = f"import socket, time; s = socket.create_server(('{taken}', {PORT})); time.sleep(600)"
    hosts.run(6, "sh", "-c", f'/usr/bin/python3 -c "{server}" >/dev/null 2>&1 &')
    eventually(
        lambda: (
            hosts.run(0, sys.executable, "-c", f"import socket; socket.create_connection(('{taken}', {PORT}))") == ""
        )
    )
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        hosts.write(7, f"/usr/local/bin/{name}", OLD_PYTHON)

    said = fab("setup_servers", "run_server", "run_servers", "the_special", code=1)
    assert "0 wrong, 0 malformed" in said, "what can be done is done"
    seen = rows(said.partition("what  result")[0])
    assert seen[good].split()[:2] == ["setup", "ok"]
    reasons = {
        crashed: f"chord@{crashed}:22 cannot be reached",
        strange: f"the key of chord@{strange}:22 is not the one in known_hosts",
        refused: f"chord@{refused}:22 does not let us in: check user and key",
        full: f"the disk of {HOME}/rpychord is too full: ",
        taken: f"port {PORT} is in use by another program",
        old: "no Python 3.11 or newer there, found: Python 3.9.2",
    }
    for host, reason in reasons.items():
        assert seen[host].startswith("setup  FAILED"), seen
        assert reason in seen[host], seen
    for host in reasons:
        assert "left out: it failed before" in rows(said)[host]

    fab.inventory.write_text(hosts.inventory(ring="insecure = true\n") + "[host]\nfree_mb = 0\n")
    said = fab("-H", full, "setup_servers", code=1)
    assert f"the disk of {HOME}/rpychord is full" in said
    assert hosts.run(5, "ls", f"{HOME}/rpychord/releases").split() == []
    assert hosts.run(5, "ls", f"{HOME}/rpychord/incoming").split() == []
