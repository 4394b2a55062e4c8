"""The command `ring` as people type it, on a ring of real processes: what it prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner

from node.cli.arguments import run
from node.cli.ring import COMMANDS, group
from tests.ports import free_ports
from tests.ring.nodes import PATIENCE, ROOT, RingOfProcesses, eventually

Answer = tuple[int, str, str]


def ring_at(node: str, *words: str, stdin: str = "", home: Path | None = None) -> Answer:
    """Exit code, output, complaints of `ring words`."""
    places = {"XDG_DATA_HOME": str(home), "XDG_STATE_HOME": str(home)} if home else {}
    environment = {**os.environ, "RPYCHORD_NODE": node, **places}
    done = subprocess.run(
        [sys.executable, "-m", "node.cli.ring", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RingOfProcesses]:
    started = RingOfProcesses(tmp_path_factory.mktemp("commands"))
    try:
        started.of(3)
        yield started
    finally:
        started.close()


@pytest.fixture
def node(processes: RingOfProcesses) -> str:
    return f"127.0.0.1:{processes.nodes[0].port}"


def test_put_get_delete(node: str) -> None:
    assert ring_at(node, "put", "city", "Lisbon") == (0, "", "")
    assert ring_at(node, "get", "city") == (0, "Lisbon\n", "")
    code, out, _ = ring_at(node, "get", "city", "--json")
    assert code == 0
    assert json.loads(out)["value"] == "Lisbon"
    assert ring_at(node, "delete", "city") == (0, "", "")
    code, out, err = ring_at(node, "get", "city")
    assert (code, out) == (3, "")
    assert "no key 'city'" in err
    code, _, err = ring_at(node, "delete", "city", "town")
    assert code == 3
    assert "'city'" in err
    assert "'town'" in err


def test_values_of_other_kinds(node: str) -> None:
    assert ring_at(node, "put", "n", "5", "--as", "int")[0] == 0
    assert ring_at(node, "increment", "n", "3")[1] == "8\n"
    assert ring_at(node, "increment", "n", "0.5")[1] == "8.5\n"
    assert ring_at(node, "put", "j", '{"a": [1, null]}', "--as", "json")[0] == 0
    assert ring_at(node, "get", "j")[1] == '{"a": [1, null]}\n'
    assert ring_at(node, "put", "in", "-", "--as", "bytes", stdin="two\nlines\n")[0] == 0
    assert ring_at(node, "get", "in")[1] == "two\nlines\n"
    assert ring_at(node, "put", "once", "1", "--if-absent")[0] == 0
    code, _, err = ring_at(node, "put", "once", "2", "--if-absent")
    assert code == 1
    assert "version" in err


def test_many_and_all(node: str) -> None:
    assert ring_at(node, "put-many", "m 1=a", "m 2=b=c")[0] == 0
    assert sorted(ring_at(node, "keys", "m ")[1].split("\n")) == ["", "m 1", "m 2"]
    assert ring_at(node, "get", "m 2")[1] == "b=c\n"
    assert int(ring_at(node, "count")[1]) >= 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["get"], 2, "KEY"),
        (["get", "k", "--node", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (["get", "k", "--node", "nowhere.invalid"], 1, "nowhere.invalid"),
        (["get", "k", "--node", "a:b:c"], 2, "HOST:PORT"),
        (["get", "k", "--timeout", "soon"], 2, "soon"),
        (["put", "k", "{", "--as", "json"], 2, "json"),
        (["put", "k", "x", "--as", "int"], 2, "int"),
        (["put", "k", "x", "--ttl", "0"], 2, "ttl"),
        (["put", "k" * 5000, "x"], 1, "5000"),
        (["put-many", "pair"], 2, "KEY=VALUE"),
        (["increment", "k", "much"], 2, "much"),
        (["increment", "k", "nan"], 2, "nan"),
        (["range-insert", "-1"], 2, "-1"),
        (["rm-server", "0"], 2, "port"),
        (["rm-server", "1"], 3, "the ring has no node on port 1 of this machine"),
        (["rm-server", "564ffc0f"], 2, "'564ffc0f' is no port"),
        (["depart", "564ffc0f"], 1, "no host '564ffc0f'"),
        (["depart", "127.0.0.1:1"], 1, "`ring overlay` shows where nodes listen"),
        (["join", "127.0.0.1:1", "--timeout", "0.5"], 1, "127.0.0.1:1"),
        (["local", "0"], 2, "0"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_a_mistake_is_one_clear_line(node: str, words: list[str], code: int, says: str) -> None:
    ended, out, err = ring_at(node, *words)
    assert (ended, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["load", "/nowhere/f"], 2),
        (["file", "put", "/nowhere/f"], 2),
        (["dump", "--out", "/nowhere/f"], 2),
        (["put-many", "k=v", "--node", "a:b:c"], 2),
        (["add-server", "18861", "--data", "/proc/none/f"], 2),
        (["add-server", "PORT", "--data", "DATA"], 2),
        (["serve", "--port", "PORT", "--data", "DATA"], 2),
        (["serve", "--servers", "2", "--port", "PORT", "--data", "DATA"], 2),
        (["login", "--token-file", "/nowhere/f"], 2),
    ],
)
def test_the_same_mistake_has_the_same_code_in_every_command(
    node: str, tmp_path: Path, words: list[str], code: int
) -> None:
    places = {"PORT": node.rpartition(":")[2], "DATA": str(tmp_path / "data")}
    ended, out, err = ring_at(node, *(places.get(word, word) for word in words))
    assert (ended, out) == (code, "")
    assert any(place in err for place in ("/nowhere/f", "/proc/none", "a:b:c", node)), err
    assert not list(tmp_path.iterdir())


def test_rm_server_takes_a_node_of_this_machine_and_of_this_ring_only(
    node: str, ring: RingOfProcesses, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ring.node()
    other = ring.node("--listen", "127.0.0.2", first=first)
    ended, _, err = ring_at(node, "rm-server", str(other.port))
    assert (ended, err) == (3, f"ring rm-server: the ring has no node on port {other.port} of this machine\n")
    at = ["--node", f"127.0.0.1:{first.port}"]
    with monkeypatch.context() as patched:
        patched.setattr("node.cli.servers._is_here", lambda each: each.host != "127.0.0.2")
        assert run(group, "ring", ["rm-server", str(other.port), *at]) == 3
    assert f"there is 127.0.0.2:{other.port}: ring depart 127.0.0.2:{other.port}" in capsys.readouterr().err
    assert len(first.members()) == 2
    assert ring_at(node, "rm-server", str(other.port), *at)[:2] == (0, f"127.0.0.2:{other.port} has left\n")


def test_every_command_has_help_that_says_what_it_does(node: str) -> None:
    code, listed, _ = ring_at(node, "--help")
    assert code == 0
    assert [line.split()[0] for line in listed.split("Commands:\n")[1].splitlines() if line] == list(COMMANDS)
    for name in COMMANDS:
        told = CliRunner().invoke(group, [name, "--help"], prog_name="ring")
        assert told.exit_code == 0
        assert told.output.startswith(f"Usage: ring {name} ")
        assert len(told.output.splitlines()) > 4


def test_looking_at_the_ring(node: str, processes: RingOfProcesses) -> None:
    ports = [str(each.port) for each in processes.nodes]
    out = ring_at(node, "overlay")[1]
    assert all(port in out for port in ports)
    assert len(ring_at(node, "overlay", "--json")[1].splitlines()) == 3
    way = ring_at(node, "lookup", "key")[1].splitlines()
    assert way[0].split() == ["hop", "node", "id"]
    assert len(json.loads(ring_at(node, "replicas", "key", "--json")[1])["replicas"]) == 3
    assert eventually(lambda: ring_at(node, "verify")[0] == 0)
    code, out, _ = ring_at(node, "status")
    assert code == 0
    assert out.count("serving") == 3
    assert "3 replicas" in out


def test_watch_prints_changes(node: str) -> None:
    command = [sys.executable, "-m", "node.cli.ring", "watch", "seen", "--count", "2", "--json", "--node", node]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        number = 0
        while watching.poll() is None:  # from some put on it watches
            ring_at(node, "put", "seen", str(number))
            number += 1
            assert time.monotonic() < deadline
        assert watching.stdout is not None
        first, second = (json.loads(line) for line in watching.stdout)
        assert int(second["value"]) == int(first["value"]) + 1
    finally:
        watching.kill()
        watching.wait()


def test_ctrl_c_ends_a_command_with_130_and_no_word(node: str) -> None:
    command = [sys.executable, "-m", "node.cli.ring", "watch", "nothing", "--node", node]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    eventually(lambda: _has_connection(watching.pid))
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=30)
    assert (watching.returncode, out, err.strip()) == (130, "", "")


def _has_connection(pid: int) -> bool:
    """Whether a socket of the process is an established TCP connection."""
    open_files = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(fields[3] == "01" and f"socket:[{fields[9]}]" in open_files for fields in connections)


def test_the_classic_walk_through(tmp_path: Path) -> None:
    """range-insert, range-search, rm-server, range-search, add-server, range-search: no error line."""
    base = free_ports(4)
    command = [sys.executable, ROOT / "server.py", "--servers", "4", "--port", str(base), "--data", "data"]
    servers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert servers.stdout is not None
        lines = [servers.stdout.readline() for _ in range(4)]
        assert sorted(line.split()[1] for line in lines) == [f"127.0.0.1:{base + n}" for n in range(4)]
        assert {each.name for each in (tmp_path / "data").iterdir()} >= {str(base + n) for n in range(4)}
        node = f"127.0.0.1:{base}"
        assert ring_at(node, "range-insert", "300") == (0, "stored 0..300\n", "")
        found = (0, "searched 0..300: 0 missing, 0 wrong\n", "")
        assert ring_at(node, "range-search", "300") == found
        assert ring_at(node, "rm-server", str(base + 2))[0] == 0
        assert ring_at(node, "range-search", "300") == found
        code, out, err = ring_at(node, "add-server", str(base + 2), home=tmp_path)
        assert (code, err) == (0, ""), err
        assert out.startswith(f"ready 127.0.0.1:{base + 2} ")
        assert ring_at(node, "range-search", "300") == found
        assert ring_at(node, "rm-server", str(base + 2))[0] == 0
        ring_at(node, "delete", "7")
        code, out, err = ring_at(node, "range-search", "300")
        assert (code, err) == (1, "missing: 7\n")
        servers.terminate()
        assert servers.wait(30) == 0
    finally:
        servers.kill()
        servers.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_several_servers_come_back_together_with_their_keys(tmp_path: Path, number: int) -> None:
    base = free_ports(2)
    node = f"127.0.0.1:{base}"
    command = [sys.executable, ROOT / "server.py", "--servers", "2", "--port", str(base), "--data", "data"]
    for attempt in range(2):
        servers = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        try:
            assert servers.stdout is not None
            lines = [servers.stdout.readline() for _ in range(2)]
            assert {line.split()[1] for line in lines} == {f"127.0.0.1:{base + n}" for n in range(2)}
            if attempt:
                assert ring_at(node, "get", "k") == (0, "v\n", "")
            else:
                assert ring_at(node, "put", "k", "v")[0] == 0
            servers.send_signal(number)
            _, said = servers.communicate(timeout=30)
            assert servers.returncode == (0 if number != signal.SIGKILL else -signal.SIGKILL)
            assert "not-handed-over" not in said and "Traceback" not in said
        finally:
            servers.kill()
            servers.wait()
        eventually(lambda: ring_at(node, "get", "k")[0] == 1, what="no node any more")


def test_several_servers_on_free_ports_come_back_to_the_same(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "server.py", "--servers", "3", "--port", "0", "--data", "data"]
    ports: list[set[int]] = []
    for _ in range(2):
        servers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        try:
            assert servers.stdout is not None
            ports.append({int(re.split(r"[: ]", servers.stdout.readline())[2]) for _ in range(3)})
            servers.terminate()
            assert servers.wait(PATIENCE) == 0
        finally:
            servers.kill()
            servers.wait()
    assert len(ports[0]) == 3 and not ports[0] & set(range(18861, 18861 + 3))
    assert ports[0] == ports[1] == {int(each.name) for each in (tmp_path / "data").iterdir()}


def test_a_local_ring_that_stays(tmp_path: Path) -> None:
    code, out, err = ring_at("", "local", "2", "--detach", home=tmp_path)
    assert (code, err) == (0, ""), err
    address = out.split()[1]
    try:
        assert ring_at(address, "put", "k", "v")[0] == 0
        assert ring_at("", "local", "--detach", home=tmp_path)[0] == 2
    finally:
        assert ring_at("", "local", "--stop", home=tmp_path)[:2] == (0, "2 nodes ended\n")
    assert ring_at("", "local", "--stop", home=tmp_path)[0] == 2
    assert ring_at(address, "get", "k")[0] == 1


def test_the_shell_from_a_pipe(node: str) -> None:
    lines = (
        "insert 'two words' \"a value\"\nquery 'two words'\n# nothing\nfrob\nsetnode 1\ncount --json\nexit\nput x y\n"
    )
    code, out, err = ring_at(node, "shell", stdin=lines)
    assert code == 2
    assert out.splitlines()[0] == "a value"
    assert "'frob'" in err
    assert json.loads(out.splitlines()[1])["keys"] > 0
    assert ring_at(node, "get", "x")[0] == 3
    assert ring_at(node, "shell", stdin="setnode a:b:c\n")[0] == ring_at(node, "count", "--node", "a:b:c")[0] == 2


@pytest.mark.parametrize("line", ["put stolen -", "put stolen - --as bytes", "load -", "file put - stolen"])
def test_a_shell_that_reads_from_standard_input_leaves_it_to_nobody(node: str, line: str) -> None:
    code, out, err = ring_at(
        node, "shell", stdin=f"{line}\nput kept {len(line)}\nget kept\nget stolen\nfile stat stolen\n"
    )
    assert (code, out) == (2, f"{len(line)}\n")
    assert "standard input, which these commands come from" in err.splitlines()[0]
    assert len(err.splitlines()) == 3


def test_the_shell_on_a_terminal(node: str, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "RPYCHORD_NODE": node}
    environment["PROMPT_TOOLKIT_NO_CPR"] = "1"  # pexpect does not say where the cursor is
    words = ["-m", "node.cli.ring"]
    shell = pexpect.spawn(
        sys.executable, words, cwd=str(ROOT), env=environment, timeout=30, encoding="utf-8", dimensions=(24, 120)
    )
    try:
        shell.expect_exact(f"{node}>")
        shell.send("insert greeting 'hello there'\r")
        shell.expect_exact(f"{node}>")
        shell.send("query greeting\r")
        shell.expect_exact("hello there\r\n")
        shell.expect_exact(f"{node}>")
        shell.send("overl\t")
        shell.expect_exact("overlay")
        shell.send("\r")
        shell.expect("share")
        shell.expect_exact(f"{node}>")
        shell.send("setnode 99\r")
        shell.expect("numbered 0 to 2")
        shell.expect_exact(">")
        shell.send("watch greeting\r")
        eventually(
            lambda: ring_at(node, "put", "greeting", "hi")[0] == 0 and shell.expect(['"hi"', pexpect.TIMEOUT], 1) == 0
        )
        shell.sendintr()
        shell.expect_exact(f"{node}>")
        shell.send("help\r")
        shell.expect("setnode")
        shell.expect_exact(f"{node}>")
        shell.sendeof()
        shell.expect(pexpect.EOF)
        shell.close()
        assert shell.exitstatus == 0
    finally:
        shell.close(force=True)
    assert "query greeting" in (tmp_path / "rpychord" / "history").read_text()
