"""Keeps one node running: starts it again whenever it fails, and writes down what it says.

It runs the release that it was ordered to, which an installation of another does not change. Waits longer after each
failure in a row, two seconds at most. Signals are passed on; after SIGTERM and SIGUSR1, when the node has ended, so
does this. A node that ends by itself without a failure has left its ring on purpose and is not started again, not even
after a boot, until `fab` does so. The supervisor's own command line does not name the node's script, so that whoever
looks for nodes finds nodes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from node.deploy.host.layout import Layout, locked, write_privately
from node.logs import LogFile, without_secrets

FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
STEADY = 10.0
"""Seconds after which a node has not failed in a row with the time before."""
LOOK = 1.0
"""Seconds in which whoever looks whether a supervisor runs lets go of its lock."""


class Supervisor:
    """`run` returns when the node has ended for good."""

    def __init__(self, layout: Layout, log: logging.Logger) -> None:
        self._layout = layout
        self._log = log
        self._child: subprocess.Popen[str] | None = None
        self._told = threading.Event()
        self._told_by = signal.SIGTERM.value
        self._starts = 0
        self._failures = 0
        self._last = ""

    def tell(self, number: int, _: Any = None) -> None:
        """Pass a signal on."""
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(number)

    def stop(self, number: int, _: Any = None) -> None:
        """Pass a signal to leave or to rest on, and do not start the node again."""
        self._told_by = number
        self._told.set()
        self.tell(number)

    def run(self) -> int:
        """Start the node, again and again; what to exit with."""
        wait = FIRST_WAIT
        if self._has_left():
            self._note("the node has left its ring: it is not started by itself")
            return 0
        while not self._told.is_set():
            began = time.monotonic()
            code = self._once()
            if code == 0 or self._told.is_set():
                self._note(f"the node has ended with code {code}")
                if not self._told.is_set():
                    self._write_state(None, left=True)
                return 0
            if time.monotonic() - began > STEADY:
                wait, self._failures = FIRST_WAIT, 0
            self._failures += 1
            self._last = f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            self._note(f"the node {self._last}: it is started again in {wait:.1f} s")
            self._write_state(None)
            self._told.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        return 0

    def _once(self) -> int:
        orders = json.loads(self._layout.orders.read_text())
        release = self._layout.ordered(orders)
        self._starts += 1
        try:
            self._child = subprocess.Popen(
                [str(release / "venv" / "bin" / "python"), "server.py", *orders["words"]],
                cwd=release,
                env={**os.environ, **orders["environment"], "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:  # too little memory, too many processes
            self._log.info("the node cannot be started: %s", error)
            return 1
        self._write_state(self._child.pid)
        if self._told.is_set():  # told between two starts
            self._child.send_signal(self._told_by)
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._log.info(without_secrets(line.rstrip("\n")))
        return self._child.wait()

    def _has_left(self) -> bool:
        """Whether the node has ended on purpose since it was last started by `fab`."""
        try:
            return bool(json.loads(self._layout.state.read_text()).get("left"))
        except (OSError, ValueError):
            return False

    def _write_state(self, pid: int | None, *, left: bool = False) -> None:
        state = {"node": pid, "starts": self._starts, "failures": self._failures, "last": self._last, "left": left}
        with contextlib.suppress(OSError):  # a full disk is no reason to leave the node alone
            write_privately(self._layout.state, json.dumps(state))

    def _note(self, text: str) -> None:
        self._log.info("%s supervisor: %s", time.strftime("%Y-%m-%d %H:%M:%S"), text)


def main() -> int:
    """Supervise the node of this installation, if nobody does."""
    layout = Layout.here()
    layout.said.parent.mkdir(mode=0o700, exist_ok=True)
    with layout.pid.open("a+") as pid:
        if not locked(pid.fileno(), LOOK):
            return 0
        pid.truncate(0)
        pid.write(f"{os.getpid()}\n")
        pid.flush()
        log = logging.getLogger("said")
        log.setLevel(logging.INFO)
        log.addHandler(LogFile(layout.said))
        supervisor = Supervisor(layout, log)
        signal.signal(signal.SIGHUP, supervisor.tell)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, supervisor.stop)
        return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
