"""What keeps the supervisor running: a systemd user unit that outlives the login, or a process of its own and cron.

A user unit ends with the last login of its user unless that user lingers, so without lingering it is not used.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from node.deploy.host import processes
from node.deploy.host.layout import Layout, locked

MODULE = "node.deploy.host.supervisor"
UNIT = """[Unit]
Description=a node of an rpychord ring
After=network-online.target

[Service]
ExecStart="{python}" -m {module}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
KillMode=mixed
TimeoutStopSec=90

[Install]
WantedBy=default.target
"""
QUICK = 20.0
"""Seconds that systemd, loginctl and crontab have to answer."""


class Keeper:
    """Starts and ends the supervisor of an installation."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._python = layout.base / "current" / "venv" / "bin" / "python"
        self._unit = re.sub(r"[^\w.-]", "-", layout.base.name) + ".service"
        self._unit_file = Path.home() / ".config" / "systemd" / "user" / self._unit
        self._mark = f"# rpychord in {layout.base}"

    def supervisor(self) -> int | None:
        """The process that supervises, if one does."""
        try:
            with self._layout.pid.open("r+") as file:
                if locked(file.fileno()):
                    return None
                return int(file.read() or 0) or None
        except OSError:
            return None

    def start(self) -> str:
        """Have a supervisor run from now on, also after this host has started anew; by what means: `nothing` starts it
        then where there is neither systemd for this user nor cron."""
        if _systemd():
            self._unit_file.parent.mkdir(parents=True, exist_ok=True)
            self._unit_file.write_text(UNIT.format(python=self._python, module=MODULE))
            for words in (["daemon-reload"], ["enable", self._unit], ["restart", self._unit]):
                if (done := _run("systemctl", "--user", *words)) is None or done.returncode:
                    raise SystemExit(
                        f"systemctl --user {' '.join(words)}: {done.stderr.strip() if done else 'no answer'}"
                    )
            return "systemd"
        kept = self._at_reboot([f"@reboot {shlex.quote(str(self._python))} -m {MODULE} {self._mark}"])
        subprocess.Popen(
            [sys.executable, "-m", MODULE],
            cwd=self._layout.release,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors(),
            start_new_session=True,
        )
        return "supervisor" if kept else "nothing"

    def stop(self, number: int, patience: float) -> bool:
        """End the supervisor and its node by a signal, and have none start by itself; whether it took a kill."""
        if self._unit_file.exists():
            _run("systemctl", "--user", "disable", self._unit)
        self._at_reboot([])
        pid = self.supervisor()
        nodes = processes.nodes_in(self._layout.base / "releases")
        if pid is None:
            return bool(processes.end(nodes, number, patience))
        processes.tell([pid], number)
        if not processes.gone([pid, *nodes], patience):
            return False
        # The node first: its supervisor then ends as it was told to. One that was killed systemd would start again.
        processes.end(processes.nodes_in(self._layout.base / "releases"), signal.SIGKILL, 5.0)
        if processes.gone([pid], 5.0):
            processes.tell([pid], signal.SIGKILL)
            processes.end(processes.nodes_in(self._layout.base / "releases"), signal.SIGKILL, 5.0)
        return True

    def forget(self) -> None:
        """Leave no trace outside of the directory."""
        if self._unit_file.exists():
            self._unit_file.unlink()
            _run("systemctl", "--user", "daemon-reload")

    def _errors(self) -> int:
        """Where a supervisor that cannot even start says so."""
        self._layout.said.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(self._layout.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _at_reboot(self, lines: list[str]) -> bool:
        """What cron starts of this installation; whether there is a cron that does."""
        if shutil.which("crontab") is None:
            return False
        listed = _run("crontab", "-l")
        if listed is None or (listed.returncode and "no crontab" not in listed.stderr):
            return False
        before = listed.stdout.splitlines() if listed.returncode == 0 else []
        after = [line for line in before if not line.endswith(self._mark)] + lines
        if after == before:
            return True
        written = _run("crontab", "-", text="".join(f"{line}\n" for line in after))
        return written is not None and not written.returncode


def _systemd() -> bool:
    """Whether units of this user can run, and go on without a login."""
    shown = _run("systemctl", "--user", "show-environment")
    if shown is None or shown.returncode:
        return False
    user = getpass.getuser()
    _run("loginctl", "enable-linger", user)
    linger = _run("loginctl", "show-user", user, "--property=Linger")
    return linger is not None and linger.stdout.strip() == "Linger=yes"


def _run(*words: str, text: str = "") -> subprocess.CompletedProcess[str] | None:
    """Run a command of the system; None if there is none, or if it does not answer."""
    runtime = f"/run/user/{os.getuid()}"
    environment = {**os.environ, **({"XDG_RUNTIME_DIR": runtime} if os.path.isdir(runtime) else {})}
    try:
        return subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=QUICK, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
