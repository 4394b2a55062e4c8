"""The parts of a deployment that need no host: what is sent, which wheels, clocks, tables."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pexpect
import pytest
from fabric import Config
from paramiko.ssh_exception import NoValidConnectionsError, SSHException

from node import __version__
from node.deploy.fleet import AT_ONCE, Fleet, HostsFailed, Outcome, report
from node.deploy.host import installation
from node.deploy.installing import clock_problem
from node.deploy.inventory import parsed
from node.deploy.release import packed
from node.deploy.ssh import HostFailed
from node.deploy.wheelhouse import platforms_of
from node.errors import BadUsage

ROOT = Path(__file__).resolve().parents[2]
LINUX = {"system": "Linux", "implementation": "cpython", "machine": "x86_64", "libc": ["glibc", "2.36"]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout that may be changed."""
    for name in ("server.py", "main.py", "input.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "node", tmp_path / "node")
    return tmp_path


def test_a_release_is_named_after_all_that_is_in_it_and_nothing_else(tree: Path) -> None:
    release = packed(tree)
    assert release.name.startswith(f"{__version__}-")
    (tree / "node" / "__pycache__").mkdir(exist_ok=True)
    (tree / "node" / "__pycache__" / "errors.pyc").write_bytes(b"1")
    (tree / "notes.txt").write_text("of somebody")
    (tree / "main.py").touch()
    assert packed(tree) == release, "neither times nor what is not shipped count"
    (tree / "main.py").write_text("pass\n")
    assert packed(tree).name != release.name
    assert packed(tree).lock == release.lock
    names = zipfile.ZipFile(BytesIO(release.archive)).namelist()
    assert {"server.py", "requirements.lock", "node/deploy/host/agent.py"} <= set(names)


def test_a_release_is_complete_once_all_of_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power otherwise leaves empty files in what every later installation takes for complete."""
    before: list[list[Path]] = []
    monkeypatch.setattr(os, "sync", lambda: before.append(list(tmp_path.iterdir())))
    installation._declare_complete(tmp_path, "an environment")
    assert before == [[]] and (tmp_path / ".complete").read_text() == "an environment"


def test_a_release_in_use_outlives_an_installation_for_another_python_that_fails(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of the Python on the host, with no package index in reach: the node could not start again."""
    base, release = tmp_path_factory.mktemp("base"), packed(tree)
    there = base / "releases" / release.name
    for directory in (there, base / "incoming", base / "environments"):
        directory.mkdir(parents=True)
    (there / "server.py").write_text("in use")
    (there / ".complete").write_text("for the Python before")
    (base / "incoming" / "archive").write_bytes(release.archive)

    def fails(words: list[str], failed: str) -> None:
        raise SystemExit(failed)

    monkeypatch.setattr(installation, "_run", fails)
    request = {"release": release.name, "environment": "for another", "archive": "archive", "wheels": ""}
    with pytest.raises(SystemExit, match="cannot make an environment"):
        installation._install(base, request)
    assert (there / "server.py").read_text() == "in use" and (there / ".complete").exists()


def test_a_tree_that_is_not_whole_is_not_deployed(tree: Path) -> None:
    (tree / "requirements.lock").unlink()
    with pytest.raises(BadUsage, match=r"requirements.lock: No such file .*whole checkout"):
        packed(tree)


def test_wheels_are_those_of_the_hosts_glibc_and_older_the_newest_first() -> None:
    names = platforms_of(LINUX)
    assert names[0] == "manylinux_2_36_x86_64"
    assert "manylinux2014_x86_64" in names and "manylinux_2_17_x86_64" in names
    assert "manylinux_2_37_x86_64" not in names
    assert platforms_of(LINUX | {"machine": "aarch64"})[-1] == "manylinux2014_aarch64"
    assert platforms_of(LINUX | {"libc": ["", ""]})[0] == "musllinux_1_2_x86_64"


def test_no_wheels_are_looked_for_where_there_are_none() -> None:
    with pytest.raises(HostFailed, match="not for pypy on Linux"):
        platforms_of(LINUX | {"implementation": "pypy"})


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        (100.5, ""),
        (98.5, ""),
        (102.9, ""),
        (103.1, "its clock is 2.1 s ahead of the one here"),
        (90.0, "its clock is 10.0 s behind the one here"),
    ],
)
def test_a_clock_is_wrong_only_if_the_way_there_cannot_explain_it(there: float, problem: str) -> None:
    assert clock_problem(100.0, there, 101.0, 2.0).startswith(problem)
    assert bool(clock_problem(100.0, there, 101.0, 2.0)) == bool(problem)


def test_the_summary_has_a_line_for_every_host_and_fails_for_those_that_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(HostsFailed) as failure:
        report("setup", [Outcome("a", True, "done"), Outcome("long-name", False, "no disk")])
    assert failure.value.hosts == {"long-name"} and failure.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "host       what   result  reason",
        "a          setup  ok      done",
        "long-name  setup  FAILED  no disk",
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "cannot be reached: is the host up, does sshd run there"),
        (NoValidConnectionsError({("::1", 22): OSError()}), "cannot be reached: is the host up, does sshd run there"),
        (socket.gaierror(-2, "Name or service not known"), "there is no host 'a': check the name"),
        (OSError(101, "Network is unreachable"), "cannot be reached: Network is unreachable; check the address"),
        (PermissionError(13, "Permission denied", "/k"), "cannot read /k: Permission denied; correct ssh.key"),
        (SSHException("not a valid OPENSSH private key file"), "no private key that can be read: correct ssh.key"),
        (SSHException("base64 decoding error: Incorrect padding"), "no private key that can be read: correct ssh.key"),
        (UnicodeDecodeError("utf-8", b"?", 0, 1, "?"), "no private key that can be read: correct ssh.key"),
    ],
)
def test_why_a_host_is_not_reached_is_told_in_words_that_say_what_to_do(error: Exception, said: str) -> None:
    host = Fleet(parsed('first = "a"', "hosts.toml"), Config()).connection("a")
    assert said in host._why(error)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("logs --lines x", 2, "fab: --lines x: expected a whole number >= 1"),
        ("logs --lines 0", 2, "fab: --lines 0: expected a whole number >= 1"),
        ("stop_servers --patience -1", 2, "fab: --patience -1: expected a whole number >= 0"),
        ("-H b status", 2, "fab: b: not among the hosts, which are 127.0.0.1"),
        ("the_special --file nowhere", 2, "fab: there is no file nowhere: name one with --file"),
        ("restore --file nowhere", 2, "fab: there is no file nowhere: name one that `fab backup` wrote"),
        ("backup --file new", 1, "fab: no node serves: fab run_server run_servers"),
        ("-H 127.0.0.1, uptime", 1, "127.0.0.1  uptime  FAILED"),
    ],
)
def test_a_mistake_on_the_line_of_fab_is_told_in_one(tmp_path: Path, words: str, code: int, said: str) -> None:
    (tmp_path / "hosts.toml").write_text('first = "127.0.0.1"\n[ssh]\nport = 1')
    done = subprocess.run(
        [sys.executable, "-m", "fabric", "-r", str(ROOT), *words.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "RPYCHORD_HOSTS": "hosts.toml"},
        check=False,
    )
    assert done.returncode == code and "Traceback" not in done.stderr
    assert said in (done.stdout + done.stderr).splitlines()[-1]


@pytest.mark.parametrize("answer", ["no\n", "\x04"])
def test_who_does_not_say_yes_keeps_everything(tmp_path: Path, answer: str) -> None:
    (tmp_path / "hosts.toml").write_text('first = "127.0.0.1"')
    environment = {**os.environ, "RPYCHORD_HOSTS": "hosts.toml"}
    words = ["-m", "fabric", "-r", str(ROOT), "destroy"]
    fab = pexpect.spawn(sys.executable, words, cwd=tmp_path, env=environment, timeout=30, encoding="utf-8")
    fab.expect_exact("Type yes: ")
    fab.send(answer)
    fab.expect_exact("fab: nothing was removed")
    fab.expect(pexpect.EOF)
    fab.close()
    assert fab.exitstatus == 1


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config", "Host a\nPort x", "the ssh configuration has a port for a that is no number"),
        ("known_hosts", "a ssh-rsa AAA", "has a line that is no key of a host: correct or remove it"),
    ],
)
def test_a_damaged_file_of_ssh_is_named(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(text)
    inventory = parsed(f'first = "a"\n[ssh]\nknown_hosts = "{tmp_path}/known_hosts"', "hosts.toml")
    with pytest.raises((BadUsage, HostFailed), match=said):
        fleet = Fleet(inventory, Config(runtime_ssh_path=str(tmp_path / "config") if file == "config" else None))
        with fleet.connection("a"):
            pass


def test_many_hosts_are_worked_on_at_the_same_time() -> None:
    """Fabric's configuration is no place for threads to share."""
    names = ", ".join(f'"10.0.0.{number}"' for number in range(1, 200))
    fleet = Fleet(parsed(f'first = "10.0.0.200"\nothers = [{names}]', "hosts.toml"), Config())

    def made(host: str) -> str:
        return fleet.connection(host).name

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert list(pool.map(made, fleet.hosts)) == list(fleet.hosts)
    finally:
        sys.setswitchinterval(before)
