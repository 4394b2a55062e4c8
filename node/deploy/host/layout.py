"""Where things are in the directory of an installation."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Layout:
    """The directory that `setup_servers` made on this host."""

    base: Path

    @classmethod
    def here(cls) -> Layout:
        """The one this program was installed in: base/releases/NAME/venv."""
        return cls(Path(sys.prefix).resolve().parents[2])

    @property
    def release(self) -> Path:
        """The release that is in use from now on."""
        return (self.base / "current").resolve()

    def ordered(self, orders: dict[str, Any]) -> Path:
        """The release that the node was started with; the one in use if that is gone."""
        ordered = self.base / "releases" / str(orders.get("release"))
        return ordered if (ordered / "server.py").exists() else self.release

    @property
    def data(self) -> Path:
        """The data directory of the node."""
        return self.base / "data"

    @property
    def trust(self) -> Path:
        """The node's certificates, if its ring has any."""
        return self.data / "trust"

    @property
    def copy(self) -> Path:
        """Where a copy of the whole ring is on its way to or from here."""
        return self.base / "copy"

    @property
    def client(self) -> Path:
        """Where a client of this host keeps its certificate."""
        return self.base / "run" / "client"

    @property
    def log(self) -> Path:
        """What the node logs."""
        return self.base / "log" / "node.log"

    @property
    def said(self) -> Path:
        """What the supervisor says, and what the node says on standard output and error: why it does not start."""
        return self.base / "log" / "supervisor.log"

    @property
    def orders(self) -> Path:
        """What the supervisor is to run. Readable by its owner only: there may be a token in it."""
        return self.base / "run" / "orders.json"

    @property
    def renewal(self) -> Path:
        """There while an update has the node stopped, to start it again."""
        return self.base / "run" / "renewal"

    @property
    def state(self) -> Path:
        """How the node under the supervisor fares."""
        return self.base / "run" / "state.json"

    @property
    def pid(self) -> Path:
        """Locked by the supervisor as long as it runs."""
        return self.base / "run" / "supervisor.pid"

    @property
    def has_data(self) -> bool:
        """Whether a node has been here before."""
        return self.data.is_dir() and any(path.name != "settings.toml" for path in self.data.iterdir())

    def data_size(self) -> int:
        """Bytes of the data directory; its files come and go meanwhile."""
        size = 0
        for path in self.data.rglob("*"):
            with suppress(FileNotFoundError):
                size += path.stat().st_size if path.is_file() else 0
        return size

    @contextmanager
    def alone(self, patience: float = 120.0) -> Iterator[None]:
        """Keep other deployments out meanwhile."""
        with (self.base / ".lock").open("a") as file:
            deadline = time.monotonic() + patience
            while not locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise SystemExit(f"another deployment has been at work in {self.base} for {patience:.0f} s")
                time.sleep(0.1)
            yield


def locked(descriptor: int, within: float = 0.0) -> bool:
    """Take the lock of an open file, unless another process has it for so many seconds."""
    until = time.monotonic() + within
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        time.sleep(0.05)


def write_privately(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read, in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    half = path.with_suffix(".new")
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
