"""Certificates as people meet them: typed commands, real processes, a stock client of RPyC."""

from __future__ import annotations

import base64
import os
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rpyc

from node import Ring
from node.errors import Unavailable
from tests.ports import free_ports
from tests.ring.nodes import PATIENCE, ROOT, NodeProcess, RingOfProcesses, eventually

LOUD = ("--log-level", "debug")
SECRET_LINE = re.compile(rb"-----BEGIN PRIVATE KEY-----\n(.+?)\n", re.DOTALL)


class SecureProcess(NodeProcess):
    """A node that its host's operator talks to with its own certificate."""

    def connect(self) -> Any:
        trust = self.directory / "trust"
        return stock_client(self.port, trust / "authority.pem", trust / "node.pem")

    @property
    def join_line(self) -> str:
        return str(eventually(lambda: self.output[2] if len(self.output) == 3 else ""))

    @property
    def token(self) -> str:
        return self.join_line.split()[-1]


def stock_client(port: int, authority: Path, identity: Path) -> Any:
    """As docs/operations.md says."""
    return rpyc.ssl_connect(
        "127.0.0.1",
        port,
        ca_certs=str(authority),
        certfile=str(identity),
        cert_reqs=ssl.CERT_REQUIRED,
        ssl_version=ssl.PROTOCOL_TLS_CLIENT,
        config={"sync_request_timeout": 20},
    )


class SecureRing(RingOfProcesses):
    """Its first node begins with `--secure`, the others come with tokens."""

    def first(self) -> SecureProcess:
        return self._of("--secure", *LOUD)

    def joined(self, first: SecureProcess, token: str) -> SecureProcess:
        file = self.directory / "token"
        file.write_text(token + "\n")
        return self._of("--token-file", file, *LOUD, first=first)

    def _of(self, *words: str | Path, first: SecureProcess | None = None) -> SecureProcess:
        node = SecureProcess(self.directory / f"node{len(self.nodes)}", *map(str, words), first=first)
        self.nodes.append(node)
        node.start()
        return node

    def typed(self, *words: str | int | Path) -> subprocess.CompletedProcess[str]:
        """A command as a person types it."""
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.directory / "config")}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=False, env=environment
        )

    def ring(self, *words: str | int | Path) -> str:
        """What a `ring` command prints; its refusal, if it is one."""
        done = self.typed("-m", "node.cli.ring", *words)
        assert "Traceback" not in done.stderr
        assert len((done.stdout + done.stderr).strip().splitlines()) == 1, (done.stdout, done.stderr)
        return (done.stdout if done.returncode == 0 else done.stderr).strip()


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[SecureRing]:
    """An empty one; whatever is started in it is killed at the end."""
    processes = SecureRing(tmp_path)
    try:
        yield processes
    finally:
        processes.close()


def test_three_processes_a_stock_client_and_no_secret_anywhere(ring: SecureRing) -> None:
    first = ring.first()
    assert re.fullmatch(rf"python server.py 127\.0\.0\.1 {first.port} --token ring1\.[\w-]+", first.join_line)
    tokens = [first.token]
    second = ring.joined(first, first.token)
    tokens.append(ring.ring("token", "--data", second.directory).split()[-1])
    third = ring.joined(second, tokens[1])
    ring.agreed(3)

    login = ring.ring("token", "--client", "--data", third.directory)
    tokens.append(login.split()[2])
    assert login == f"ring login {tokens[2]} --node 127.0.0.1:{third.port}"
    assert "welcome" in ring.ring(*login.split()[1:])
    assert "used up" in ring.ring(*login.split()[1:])
    file = ring.directory / "config" / "rpychord" / "credentials.toml"
    for node in (first, second, third):
        connection = stock_client(node.port, file, file)
        assert connection.root.put(f"at {node.port}", node.port) > (0, 0)
        assert connection.root.get(f"at {node.port}") == node.port
        connection.close()
    with pytest.raises((EOFError, ConnectionError)):
        rpyc.connect("127.0.0.1", first.port).root.get("k")

    node = ("--node", f"127.0.0.1:{second.port}")
    assert ring.typed("main.py", *node).returncode == 0
    assert ring.ring("get", f"at {first.port}", *node) == str(first.port)
    keys = ring.typed("-m", "node.cli.ring", "keys", "at ", *node).stdout.splitlines()
    assert sorted(keys) == sorted(f"at {each.port}" for each in ring.nodes)

    for process in ring.nodes:
        process.kill()
    for process in ring.nodes:
        process.start(wait=False)
    for process in ring.nodes:
        process.ready()
    ring.agreed(3)
    eventually(lambda: second.call("get", f"at {first.port}") == first.port)

    private = [path for node in ring.nodes for path in (node.directory / "trust").iterdir()]
    for path in (*private, file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path.parent
    secrets = [token.encode() for token in tokens]
    secrets += [
        base64.urlsafe_b64decode(token[6:] + "=" * (-len(token[6:]) % 4))[47:79].hex().encode() for token in tokens
    ]
    secrets += [line for path in (*private, file) for line in SECRET_LINE.findall(path.read_bytes())]
    assert len(secrets) == 2 * 3 + 2 * 3 + 1
    for node in ring.nodes:
        said = node.directory.with_suffix(".log").read_bytes() + "\n".join(node.output).encode()
        assert said
        assert not [secret for secret in secrets if secret in said]


def test_operators_commands(ring: SecureRing, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ring.first()
    assert f"node 127.0.0.1:{first.port}" in ring.ring("revoke", "nobody", "--data", first.directory)
    old = ring.ring("token", "--client", "--uses", 5, "--valid", 0.5, "--data", first.directory).split()[2]
    login = ("login", old, "--node", f"127.0.0.1:{first.port}")
    assert "welcome" in ring.ring(*login)
    file = ring.directory / "config" / "rpychord" / "credentials.toml"
    connection = stock_client(first.port, file, file)
    assert connection.root.get("k") is None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(ring.directory / "config"))
    client = Ring.connect(f"127.0.0.1:{first.port}", timeout=3)
    client["k"] = "straight"
    assert client["k"] == "straight" == connection.root.get("k")
    lines = client._ring._lines
    eventually(lambda: client["k"] and lines is not None and any(lines._free.values()), what="asked straight")
    new = ring.ring("rotate-tokens", "--data", first.directory).split()[-1]
    assert "void" in ring.ring(*login)
    name = re.search(r"client (\S+@\S+)", ring.ring("revoke", "nobody", "--data", first.directory))
    assert name is not None
    assert ring.ring("revoke", name[1], "--data", first.directory).startswith(f"revoked client {name[1]}")
    with pytest.raises((EOFError, ConnectionError)):
        connection.root.get("k")
    with pytest.raises(Unavailable, match="revoked"):
        client.get("k")
    client.close()
    ring.joined(first, new)
    ring.agreed(2)


def test_who_logs_out_has_no_certificate_any_more(ring: SecureRing) -> None:
    first = ring.first()
    file = ring.directory / "config" / "rpychord" / "credentials.toml"
    ring.ring(*ring.ring("token", "--client", "--data", first.directory).split()[1:])
    at = ("get", "k", "--node", f"127.0.0.1:{first.port}")
    assert "there is no key" in ring.ring(*at)
    assert ring.ring("logout") == f"logged out of the ring of 127.0.0.1:{first.port}: {file} is removed"
    assert not file.exists()
    assert "certificates" in ring.ring(*at)
    done = ring.typed("-m", "node.cli.ring", "logout")
    assert (done.returncode, done.stderr) == (2, f"ring: nobody is logged in: there is no {file}\n")
    file.write_text("damaged")
    assert "one cannot tell" in ring.ring("logout") and not file.exists()


def test_an_open_ring_does_not_get_certificates_by_mistake(ring: SecureRing) -> None:
    node = NodeProcess(ring.directory / "node0")
    ring.nodes.append(node)
    assert node.start().terminate() == 0
    done = ring.typed("server.py", "--secure", "--port", 0, "--data", node.directory)
    assert done.returncode == 2 and "without certificates" in done.stderr
    node.start()


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["--token", "ring1.AAAA"], "token"),
        (["--secure", "--insecure"], "--insecure"),
        (["127.0.0.1", "1", "--secure"], "ring token"),
        (["127.0.0.1", "1", "--listen", "10.1.2.3"], "--token"),
        (["--token-file", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(ring: SecureRing, words: list[str], mentioned: str) -> None:
    done = ring.typed("server.py", *words, "--port", 0, "--data", ring.directory / "data")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and mentioned in done.stderr
    assert not (ring.directory / "data" / "trust").exists()


def test_who_comes_without_a_token_is_told_so_and_with_one_of_another_ring_too(ring: SecureRing) -> None:
    first, other = ring.first(), ring.first()
    join = ("server.py", "127.0.0.1", first.port, 0, "--data", ring.directory / "data")
    done = ring.typed(*join)
    assert done.returncode == 1 and "certificates" in done.stderr and len(done.stderr.splitlines()) == 1
    done = ring.typed(*join, "--token", other.token)
    assert done.returncode == 1 and "token" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (ring.directory / "data").exists()
    first.terminate()
    done = ring.typed("server.py", "--data", first.directory, "--port", 0, "--insecure")
    assert done.returncode == 2 and "--insecure" in done.stderr
    done = ring.typed("server.py", "127.0.0.1", other.port, "--data", first.directory, "--token", other.token)
    assert done.returncode == 2 and "another ring" in done.stderr
    ring.nodes.remove(first)


@contextmanager
def several(*words: str | int | Path) -> Iterator[list[str]]:
    """What `server.py --servers 2` prints until both nodes are ready, and all it printed after it was told to end."""
    command = [sys.executable, "server.py", "--servers", 2, "--log-level", "info", *words]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        while sum(line.startswith("ready ") for line in said) < 2:
            said.append(process.stdout.readline())
            assert said[-1], said
        yield said
        process.terminate()
        said += process.stdout
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_the_first_of_several_servers_lets_the_others_in_and_they_come_back_together(
    ring: SecureRing, tmp_path: Path
) -> None:
    base = free_ports(2)
    words = ("--secure", "--port", base, "--data", tmp_path / "several")
    trust = tmp_path / "several" / str(base) / "trust"
    with several(*words) as said:
        first = stock_client(base, trust / "authority.pem", trust / "node.pem")
        first.root.put("k", "v")
        assert len(first.root.get_conn_info()) == 2
    assert sum("stopped: resting" in line for line in said) == 2
    token = next(line for line in said if line.startswith("python server.py")).split()[-1]
    with several(*words):
        other = stock_client(base + 1, trust / "authority.pem", trust / "node.pem")
        assert other.root.get("k") == "v"
        (tmp_path / "token").write_text(token)
        joining = ("127.0.0.1", base, free_ports(2), "--token-file", tmp_path / "token", "--data", tmp_path / "more")
        with several(*joining) as said:
            eventually(lambda: len(other.root.get_conn_info()) == 4)
        assert not any("Type this" in line for line in said)


def test_a_certificate_is_kept_though_the_start_failed_for_its_token_is_used_up(ring: SecureRing) -> None:
    first = ring.first()
    join = ("server.py", "127.0.0.1", first.port, 0, "--data", ring.directory / "data")
    done = ring.typed(*join, "--token", first.token, "--replicas", "7")
    assert done.returncode == 2 and "leave --replicas out" in done.stderr
    done = ring.typed(*join, "--replicas", "7")
    assert done.returncode == 2 and "leave --replicas out" in done.stderr


def test_who_logged_in_on_this_machine_still_reaches_its_open_rings(ring: SecureRing, tmp_path: Path) -> None:
    first = ring.first()
    words = ring.ring("token", "--client", "--data", first.directory).split()[1:]
    ring.ring(*words)
    others = RingOfProcesses(tmp_path / "open")
    others.directory.mkdir()
    try:
        node = others.node()
        for each in (node, first):
            done = ring.typed("-m", "node.cli.ring", "put", "k", each.port, "--node", f"127.0.0.1:{each.port}")
            assert (done.returncode, done.stderr) == (0, "")
            assert ring.ring("get", "k", "--node", f"127.0.0.1:{each.port}") == str(each.port)
        assert "an open one" in ring.ring(*words[:-1], f"127.0.0.1:{node.port}")
    finally:
        others.close()


def test_a_token_of_the_other_kind_is_refused_and_not_used_up(ring: SecureRing) -> None:
    first = ring.first()
    for_client = ring.ring("token", "--client", "--data", first.directory).split()[2]
    for_node = ring.ring("token", "--data", first.directory).split()[-1]
    words = ("127.0.0.1", first.port, "0", "--data", ring.directory / "second", "--token")
    done = ring.typed("server.py", *words, for_client)
    assert (done.returncode, done.stdout) == (2, "")
    assert "for a client, not for a node: `ring token` makes one" in done.stderr
    assert "for a node, not for a client" in ring.ring("login", for_node, "--node", f"127.0.0.1:{first.port}")
    ring.joined(first, for_node)
    ring.agreed(2)
    assert "welcome" in ring.ring("login", for_client, "--node", f"127.0.0.1:{first.port}")
