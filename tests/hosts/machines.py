"""Some hosts on one Linux machine, reached over real ssh: namespaces on a bridge, nothing of them in the machine's own.

`python -m tests.hosts up 4` leaves them running for people, and says how to reach them; `down` removes them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOOLS = ("ip", "nft", "sshd", "ssh-keygen", "unshare", "nsenter", "mount")
NETWORK = "10.79.0"
START = 20.0
SSHD = """Port 22
ListenAddress {address}
HostKey /etc/ssh/key_of_host
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


def lacking() -> str:
    """Why there can be no such hosts here; empty if there can."""
    if os.geteuid() != 0:
        return "hosts of their own take root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        return (
            f"hosts of their own take {', '.join(missing)}: install openssh-server, iproute2, nftables and util-linux"
        )
    words = ["/usr/bin/python3", "-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"]
    try:
        python = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        python = False
    return "" if python else "hosts of their own take a /usr/bin/python3 of 3.11 or newer that can make environments"


needs_hosts = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


def sh(*words: str | Path) -> str:
    """Run a command of the system; what it said."""
    done = subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def drop_between(bridge: str, ways: Iterable[tuple[str, str]]) -> None:
    """In this namespace let no packet pass from one of these addresses to its other."""
    drops = [f"ip saddr {one} ip daddr {other} drop" for one, other in ways]
    lines = ["table bridge cut {", "chain f {", "type filter hook forward priority 0;", *drops, "}", "}"]
    nft = ["ip", "netns", "exec", bridge, "nft", "-f", "-"]
    subprocess.run(nft, input="\n".join(lines), text=True, check=True, capture_output=True)


def let_pass(bridge: str) -> None:
    """Take that back."""
    sh("ip", "netns", "exec", bridge, "nft", "delete", "table", "bridge", "cut")


class Machines:
    """`with Machines(directory, 4) as hosts: hosts.run(1, "pgrep", "-f", "server.py")`. Hosts are numbered from 1."""

    def __init__(self, directory: Path, count: int = 4, name: str = "") -> None:
        self.directory = directory
        self.numbers = range(1, count + 1)
        self.key = directory / "key"
        self.known_hosts = directory / "known_hosts"
        self.name = name or f"rm{os.getpid()}"
        self._bridge = f"{self.name}b"

    def __enter__(self) -> Machines:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def address(self, number: int) -> str:
        """Where a host is; 0 is where its users are."""
        return f"{NETWORK}.{10 + number if number else 1}"

    def namespace(self, number: int) -> str:
        """The name of its network namespace."""
        return f"{self.name}h{number}"

    def up(self) -> None:
        """Make the network, then start every host. Their disks are in memory: there may be no overlay on an overlay."""
        self.directory.mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", self.directory)
        sh("ip", "netns", "add", self._bridge)
        sh("ip", "-n", self._bridge, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self._bridge, "link", "set", "br0", "up")
        for number in (0, *self.numbers):
            self._plug_in(number)
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        for number in self.numbers:
            self._furnish(number)
            self.boot(number)
        self.known_hosts.write_text("".join(self._line_of_known_hosts(number) for number in self.numbers))

    def _plug_in(self, number: int) -> None:
        space, cable = self.namespace(number), f"h{number}"
        sh("ip", "netns", "add", space)
        sh("ip", "-n", space, "link", "set", "lo", "up")
        peer = ("peer", "name", cable, "netns", self._bridge)
        sh("ip", "-n", space, "link", "add", "eth0", "type", "veth", *peer)
        sh("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        sh("ip", "-n", space, "link", "set", "eth0", "up")
        sh("ip", "-n", self._bridge, "link", "set", cable, "master", "br0", "up")

    def _furnish(self, number: int) -> None:
        own = self.directory / str(number)
        for part in ("upper/etc/ssh", "work", "root", "own/root", "own/home"):
            (own / part).mkdir(parents=True)
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / "upper/etc/ssh/key_of_host")
        (own / "upper/etc/ssh/sshd_of_host").write_text(SSHD.format(address=self.address(number)))
        shutil.copy(self.key.with_suffix(".pub"), own / "authorized_keys")

    def _line_of_known_hosts(self, number: int) -> str:
        public = self.directory / str(number) / "upper/etc/ssh/key_of_host.pub"
        return f"{self.address(number)} {' '.join(public.read_text().split()[:2])}\n"

    def inventory(self, *, ring: str = "") -> str:
        """A file of hosts that names them all, for fab."""
        first, *others = [f'"{self.address(number)}"' for number in self.numbers]
        ssh = f'[ssh]\nuser = "chord"\nkey = "{self.key}"\nknown_hosts = "{self.known_hosts}"\ntimeout = 5\n'
        return f"first = {first}\nothers = [{', '.join(others)}]\n{ssh}[ring]\n{ring}"

    def boot(self, number: int) -> None:
        """Start a host; its disk is as it was left."""
        own, space = self.directory / str(number), self.namespace(number)
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        with (own / "console.log").open("w") as console:
            process = subprocess.Popen(
                ["ip", "netns", "exec", space, *apart, "sh", str(HERE / "init.sh"), str(own), space],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        (own / "unshare.pid").write_text(str(process.pid))
        asking = f"import socket; socket.create_connection(('{self.address(number)}', 22), 1)"
        deadline = time.monotonic() + START
        while subprocess.run(
            ["ip", "netns", "exec", space, "/usr/bin/python3", "-c", asking], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, f"host {number} does not start: {(own / 'console.log').read_text()}"
            assert process.poll() is None, f"host {number} does not start: {(own / 'console.log').read_text()}"

    def crash(self, number: int) -> None:
        """End everything on a host at once."""
        note = self.directory / str(number) / "unshare.pid"
        if not note.exists():
            return
        pid = int(note.read_text())
        for each in (self._first_process(number), pid):
            if each:
                os.kill(each, signal.SIGKILL)
        deadline = time.monotonic() + START
        while _runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        note.unlink()

    def _first_process(self, number: int) -> int:
        """Process 1 of a host, as it is called here; 0 if there is none."""
        pid = (self.directory / str(number) / "unshare.pid").read_text()
        try:
            return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        except (OSError, IndexError):
            return 0

    def run(self, number: int, *words: str | Path, check: bool = True) -> str:
        """Run a command on a host as its root, without ssh; 0: where its users are. What it said."""
        if number:
            entering = ["nsenter", "-t", str(self._first_process(number)), "-n", "-m", "-p", "-u", "-r", "-w", "--"]
        else:
            entering = ["ip", "netns", "exec", self.namespace(0)]
        done = subprocess.run([*entering, *map(str, words)], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"{words} on host {number}: {done.stderr}"
        return done.stdout

    def write(self, number: int, path: str, text: str) -> None:
        """Lay a program into a host."""
        self.run(number, "sh", "-c", f"cat > {path} <<'END'\n{text}\nEND\nchmod 755 {path}")

    def cut(self, number: int, *, out: bool = True, back: bool = True) -> None:
        """No packet passes from a host to the others, or back, or neither; its users reach it."""
        own = self.address(number)
        others = [self.address(other) for other in self.numbers if other != number]
        ways = [(own, other) for other in others if out] + [(other, own) for other in others if back]
        drop_between(self._bridge, ways)

    def heal(self) -> None:
        """All packets pass again."""
        let_pass(self._bridge)

    def down(self) -> None:
        """Remove every host, and all of the network, whatever there is of it."""
        for own in self.directory.glob("[0-9]*"):
            self.crash(int(own.name))
        for space in sh("ip", "netns", "list").split():
            if space == self._bridge or space.startswith(f"{self.name}h"):
                sh("ip", "netns", "del", space)
        subprocess.run(["umount", "-l", str(self.directory)], check=False, capture_output=True)
        shutil.rmtree(self.directory)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
