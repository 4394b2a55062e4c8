"""The supervisor with programs that do as a node does: serve, fail, leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.deploy.host.installation import _prune
from node.deploy.host.keeper import Keeper
from node.deploy.host.layout import Layout
from tests.ring.nodes import PATIENCE, eventually

SERVES = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR1, lambda *_: (print("rests"), sys.exit(0)))
signal.signal(signal.SIGHUP, lambda *_: print("reads", flush=True))
print("serves", os.environ.get("RPYCHORD_TOKEN"), *sys.argv[1:], flush=True)
time.sleep(600)
"""
SUPERVISE = """
import sys
from node.deploy.host import layout, supervisor
from node.logs import LogFile
layout.Layout.here = classmethod(lambda cls: cls(layout.Path(sys.argv[1])))
supervisor.LogFile = lambda path: LogFile(path, 2000)
sys.exit(supervisor.main())
"""


class Installation:
    """What the supervisor finds on a host."""

    def __init__(self, base: Path) -> None:
        self.layout = Layout(base)
        self._processes: list[subprocess.Popen[bytes]] = []
        python = base / "releases" / "one" / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (base / "releases" / "one" / "environment").symlink_to("../../environments/of-all")
        (base / "current").symlink_to("releases/one")
        (base / "run").mkdir()
        orders = {"words": ["--port", "7"], "environment": {"RPYCHORD_TOKEN": "secret"}, "release": "one"}
        self.layout.orders.write_text(json.dumps(orders))

    def install(self, name: str, program: str) -> None:
        """Make another release the current one."""
        release = self.layout.base / "releases" / name
        shutil.copytree(self.layout.release, release, symlinks=True)
        (release / "server.py").write_text(program)
        (release / "environment").unlink(missing_ok=True)
        (release / "environment").symlink_to("../../environments/of-all")
        (self.layout.base / "current").unlink()
        (self.layout.base / "current").symlink_to(f"releases/{name}")

    def supervise(self, program: str) -> subprocess.Popen[bytes]:
        """Start a supervisor of a node that runs this program."""
        (self.layout.release / "server.py").write_text(program)
        process = subprocess.Popen([sys.executable, "-c", SUPERVISE, str(self.layout.base)])
        self._processes.append(process)
        return process

    def state(self) -> dict[str, int]:
        """What the supervisor wrote down."""
        found: dict[str, int] = json.loads(self.layout.state.read_text())
        return found

    def log(self) -> str:
        """All that was said."""
        return self.layout.said.read_text()

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """One without a node."""
    made = Installation(tmp_path / "base")
    try:
        yield made
    finally:
        made.close()


def test_a_killed_node_is_started_again_with_its_words_and_secrets(installation: Installation) -> None:
    supervisor = installation.supervise(SERVES)
    eventually(lambda: installation.log().count("serves secret --port 7\n") == 1)
    os.kill(installation.state()["node"], signal.SIGKILL)
    eventually(lambda: installation.log().count("serves secret --port 7\n") == 2)
    assert "the node was killed by SIGKILL: it is started again in 0.1 s" in installation.log()
    assert installation.state()["starts"] == 2
    arguments = Path(f"/proc/{supervisor.pid}/cmdline").read_text()
    assert "secret" not in arguments and "server.py" not in arguments


def test_a_node_comes_again_as_the_release_it_was_started_with(installation: Installation) -> None:
    """What is installed is started by `update_servers`, one node after the other, and not by whichever node fails."""
    installation.supervise(SERVES)
    eventually(lambda: installation.log().count("serves secret") == 1)
    installation.install("two", "import sys; sys.exit('another release')")
    os.kill(installation.state()["node"], signal.SIGKILL)
    eventually(lambda: installation.log().count("serves secret") == 2 or "another" in installation.log())
    assert "another release" not in installation.log()


def test_an_installation_keeps_the_release_that_the_node_was_started_with(installation: Installation) -> None:
    base = installation.layout.base
    (base / "environments" / "of-all").mkdir(parents=True)
    for name in ("two", "three"):
        installation.install(name, SERVES)
    _prune(base)
    assert sorted(path.name for path in (base / "releases").iterdir()) == ["one", "three"]


def test_where_that_release_is_gone_the_current_one_is_started(installation: Installation) -> None:
    installation.supervise("print('one')").wait(PATIENCE)
    installation.layout.state.unlink()
    installation.install("two", "print('two')")
    shutil.rmtree(installation.layout.base / "releases" / "one")
    assert installation.supervise("print('two')").wait(PATIENCE) == 0
    assert installation.log().count("two\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_it_passes_that_on_and_ends_with_the_node(installation: Installation, number: int) -> None:
    supervisor = installation.supervise(SERVES)
    eventually(lambda: "serves" in installation.log())
    node = installation.state()["node"]
    supervisor.send_signal(number)
    assert supervisor.wait(PATIENCE) == 0
    assert not Path(f"/proc/{node}").exists()
    assert ("rests" in installation.log()) == (number == signal.SIGUSR1)


def test_a_node_that_has_to_be_killed_takes_its_supervisor_with_it_in_good_order(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts a supervisor again that was killed, and with it the node that was to be stopped."""
    monkeypatch.setattr("node.deploy.host.keeper._run", lambda *_, **__: None)
    supervisor = installation.supervise(SERVES.replace("sys.exit(0)", "None"))
    eventually(lambda: installation.log().count("serves secret") == 1)
    node = installation.state()["node"]
    assert Keeper(installation.layout).stop(signal.SIGTERM, 0.5)
    assert supervisor.wait(PATIENCE) == 0
    assert not Path(f"/proc/{node}").exists()


def test_a_node_that_has_left_is_not_started_again(installation: Installation) -> None:
    for _ in range(2):  # the second time as after a boot
        assert installation.supervise("print('left')").wait(PATIENCE) == 0
        assert installation.log().count("left\n") == 1
    installation.layout.state.unlink()  # as `fab run_servers` does
    assert installation.supervise("print('left')").wait(PATIENCE) == 0
    assert installation.log().count("left\n") == 2


def test_a_node_that_was_told_to_end_with_its_supervisor_comes_after_a_boot(installation: Installation) -> None:
    """As all processes are when a host is shut down."""
    supervisor = installation.supervise(SERVES)
    eventually(lambda: installation.log().count("serves secret") == 1)
    supervisor.terminate()
    assert supervisor.wait(PATIENCE) == 0
    installation.supervise(SERVES)
    eventually(lambda: installation.log().count("serves secret") == 2)


def test_it_waits_longer_after_each_failure_but_two_seconds_at_most(installation: Installation) -> None:
    installation.supervise("import sys; sys.exit('hosts.toml is wrong')")
    eventually(lambda: installation.state()["failures"] == 6)
    waits = [line.split()[-2] for line in installation.log().splitlines() if "started again" in line]
    assert waits[:6] == ["0.1", "0.2", "0.4", "0.8", "1.6", "2.0"]
    assert "hosts.toml is wrong" in installation.log()


def test_a_full_disk_does_not_end_it(installation: Installation) -> None:
    installation.layout.state.with_suffix(".new").mkdir()  # nobody can write there, root neither
    supervisor = installation.supervise("import sys; sys.exit('fails')")
    eventually(lambda: installation.log().count("is started again") >= 3 or supervisor.poll() is not None)
    assert supervisor.poll() is None


def test_a_node_that_cannot_even_be_started_is_tried_again(installation: Installation) -> None:
    """As where there is no memory for one more process, which may be what ended the node."""
    python = installation.layout.release / "venv" / "bin" / "python"
    python.rename(away := python.with_name("away"))
    supervisor = installation.supervise(SERVES)
    eventually(lambda: installation.log().count("cannot be started") >= 2 or supervisor.poll() is not None)
    away.rename(python)
    eventually(lambda: "serves secret" in installation.log() or supervisor.poll() is not None)
    assert supervisor.poll() is None


def test_there_is_one_supervisor(installation: Installation) -> None:
    installation.supervise(SERVES)
    eventually(lambda: "serves" in installation.log())
    assert installation.supervise(SERVES).wait(PATIENCE) == 0
    assert installation.state()["starts"] == 1


def test_the_log_does_not_grow_for_ever(installation: Installation) -> None:
    assert installation.supervise("for n in range(1000): print('line', n)").wait(PATIENCE) == 0
    logs = sorted(installation.layout.said.parent.iterdir())
    assert len(logs) == 5 and all(path.stat().st_size <= 2000 for path in logs)
    assert "line 999" in installation.log()


def test_a_node_that_is_to_read_its_settings_is_told_so_and_goes_on(installation: Installation) -> None:
    supervisor = installation.supervise(SERVES)
    eventually(lambda: "serves" in installation.log())
    supervisor.send_signal(signal.SIGHUP)
    eventually(lambda: "reads\n" in installation.log())
    assert installation.state()["starts"] == 1 and supervisor.poll() is None
