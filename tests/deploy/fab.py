"""`fab` as people type it, in a checkout of its own, from a place that reaches the hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.hosts.machines import Machines

ROOT = Path(__file__).resolve().parents[2]
TREE = ("fabfile.py", "fabric.yaml", "server.py", "main.py", "input.txt", "requirements.lock")


class Fab:
    """`fab("setup_servers", "run_server")`."""

    def __init__(self, hosts: Machines, directory: Path) -> None:
        self.hosts = hosts
        self.tree = directory / "checkout"
        self.tree.mkdir()
        self.inventory = self.tree / "hosts.toml"
        for name in TREE:
            shutil.copy(ROOT / name, self.tree)
        shutil.copytree(ROOT / "node", self.tree / "node", ignore=shutil.ignore_patterns("__pycache__"))
        self._environment = {**os.environ, "HOME": str(directory)}
        self._environment.pop("RPYCHORD_HOSTS", None)
        self._environment.pop("SSH_AUTH_SOCK", None)

    def __call__(self, *words: str, code: int | None = 0, patience: float = 240) -> str:
        """Type it; what it printed. With a code, fails unless that is how it exits."""
        entering = ["ip", "netns", "exec", self.hosts.namespace(0)]
        done = subprocess.run(
            [*entering, str(Path(sys.executable).with_name("fab")), *words],
            cwd=self.tree,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )
        assert code is None or done.returncode == code, f"fab {' '.join(words)}: {done.returncode}\n{done.stdout}"
        return done.stdout


def rows(output: str) -> dict[str, str]:
    """The last line that a table has of each host."""
    lines = [line.split(maxsplit=1) for line in output.splitlines()]
    return {words[0]: words[1] for words in lines if len(words) == 2 and words[0].count(".") == 3}
