"""Real node processes for tests: typed as people type them, talked to with a stock RPyC client, killed by pid."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rpyc

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"^ready (\S+):(\d+) id=([0-9a-f]{40})$")
PATIENCE = 30.0
"""Seconds a test waits for what should take one: machines may be busy, a test that fails for that is worth nothing."""


def eventually(condition: Callable[[], Any], within: float = PATIENCE, what: str = "") -> Any:
    """The first true answer of `condition`; an AssertionError with its last answer if `within` seconds pass without."""
    deadline = time.monotonic() + within
    last: Any = None
    while True:
        try:
            last = condition()
        except Exception as error:  # a node that is away or coming up answers with anything
            last = error
        else:
            if last:
                return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}: {last!r}")
        time.sleep(0.05)


def is_remote(error: BaseException, name: str) -> bool:
    """Whether an error that a node raised is of this class, as a plain client sees it."""
    return any(kind.__name__ == f"node.errors.{name}" for kind in type(error).__mro__)


class NodeProcess:
    """One `python server.py ...`."""

    def __init__(self, directory: Path, *words: str | int, first: NodeProcess | None = None) -> None:
        self.directory = directory
        self.words = [str(word) for word in words]
        self.first = first
        self.port = free_port()
        self.host = "127.0.0.1"
        self.id = ""
        self.prefix: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.output: list[str] = []

    def start(self, *, wait: bool = True) -> NodeProcess:
        """Start it; the port stays the same over restarts."""
        first = [self.first.host, str(self.first.port), str(self.port)] if self.first else ["--port", str(self.port)]
        command = [
            *self.prefix,
            sys.executable,
            str(ROOT / "server.py"),
            *first,
            "--data",
            str(self.directory),
            *self.words,
        ]
        self.stderr = self.directory.with_suffix(".log").open("a")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.stderr, text=True, cwd=ROOT)
        self.output = []
        self._ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        return self.ready() if wait else self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line.rstrip("\n"))
            if found := READY.match(line):
                self.host, self.port, self.id = found[1], int(found[2]), found[3]
                self._ready.set()

    def ready(self, within: float = PATIENCE) -> NodeProcess:
        """Wait for the ready line."""
        deadline = time.monotonic() + within
        while not self._ready.wait(0.05):
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = self.directory.with_suffix(".log").read_text()
                raise AssertionError(f"no ready line from {self.words}, exit {self.process.poll()}: {log}")
        return self

    def connect(self) -> Any:
        """A stock RPyC client of it."""
        return rpyc.connect(self.host, self.port, config={"sync_request_timeout": 20})

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """The root of such a client."""
        connection = self.connect()
        try:
            yield connection.root
        finally:
            connection.close()

    def call(self, name: str, *arguments: Any) -> Any:
        """One remote call."""
        with self.connection() as root:
            return getattr(root, name)(*arguments)

    def members(self) -> tuple[str, ...]:
        """The ids of the ring as this node lists it."""
        with self.connection() as root:
            return tuple(info[2] for info in root.get_conn_info())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(PATIENCE)
        self.stderr.close()

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        self.stderr.close()
        return code


class RingOfProcesses:
    """Several node processes in one directory, all ended with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[NodeProcess] = []

    def node(self, *words: str | int, first: NodeProcess | None = None, start: bool = True) -> NodeProcess:
        """One more process."""
        node = NodeProcess(self.directory / f"node{len(self.nodes)}", *words, first=first)
        self.nodes.append(node)
        return node.start() if start else node

    def of(self, count: int, *words: str | int) -> list[NodeProcess]:
        """A ring of `count` processes that all list each other."""
        first = self.node(*words)
        rest = [self.node(*words, first=first, start=False) for _ in range(count - 1)]
        for node in rest:
            node.start(wait=False)
        for node in rest:
            node.ready()
        self.agreed(count)
        return [first, *rest]

    def agreed(self, count: int, nodes: list[NodeProcess] | None = None, within: float = PATIENCE) -> tuple[str, ...]:
        """Wait until all (or these) nodes list the same ring of `count` members."""
        asked = nodes if nodes is not None else self.nodes

        def same() -> tuple[str, ...] | None:
            lists = {node.members() for node in asked}
            return lists.pop() if len(lists) == 1 and all(len(each) == count for each in lists) else None

        return tuple(eventually(same, within, f"a ring of {count}"))

    def close(self) -> None:
        """Kill what is left."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
