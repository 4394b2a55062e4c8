"""`server.py` and `main.py` find the project's own environment, or say how to get it; `ring` starts quickly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_DEPENDENCIES = [sys.executable, "-S"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The doors and what they need of the tree, without an environment."""
    for door in ("server.py", "main.py"):
        shutil.copy(ROOT / door, tmp_path)
    shutil.copytree(ROOT / "node", tmp_path / "node", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


@pytest.mark.parametrize("door", ["server.py", "main.py"])
def test_without_dependencies_or_environment_it_says_what_to_do(checkout: Path, door: str) -> None:
    done = run(*WITHOUT_DEPENDENCIES, checkout / door)
    assert done.returncode == 1
    assert done.stderr == f"{door}: what the project needs is not installed: run `make setup` first\n"


@pytest.mark.parametrize("door", ["server.py", "main.py"])
def test_without_dependencies_it_goes_on_in_the_environment_beside_it(checkout: Path, door: str) -> None:
    ours = checkout / ".venv" / "bin" / "python"
    ours.parent.mkdir(parents=True)
    ours.write_text('#!/bin/sh\necho "$@"\n')
    ours.chmod(0o755)
    done = run(*WITHOUT_DEPENDENCIES, door, "one", "two words", cwd=checkout)
    assert (done.returncode, done.stdout) == (0, f"{door} one two words\n")


def test_an_environment_that_lacks_them_too_is_entered_once(checkout: Path) -> None:
    ours = checkout / ".venv" / "bin" / "python"
    ours.parent.mkdir(parents=True)
    ours.write_text(
        f'#!/bin/sh\nexec -a "$0" {sys.executable} -S "$@"\n'.replace("/bin/sh", shutil.which("bash") or "")
    )
    ours.chmod(0o755)
    done = run(*WITHOUT_DEPENDENCIES, "server.py", cwd=checkout)
    assert done.returncode == 1
    assert "make setup" in done.stderr


@pytest.mark.parametrize("door", ["server.py", "main.py"])
def test_the_doors_work_from_anywhere(door: str, tmp_path: Path) -> None:
    done = run(sys.executable, ROOT / door, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {door}")


def test_ring_lists_its_commands_without_importing_them() -> None:
    program = "import sys; from node.cli.ring import main; code = main(); print(*sys.modules); sys.exit(code)"
    done = run(sys.executable, "-c", program, "--help")
    assert done.returncode == 0
    *text, modules = done.stdout.splitlines()
    for command in ("serve", "load", "local"):
        assert any(line.split()[:1] == [command] for line in text)
    assert not {"rpyc", "rocksdict", "uvloop", "asyncio", "node.cli.load"} & set(modules.split())


@pytest.mark.parametrize("command", ["serve", "load", "local"])
def test_every_command_of_ring_has_help(command: str) -> None:
    done = run(sys.executable, "-m", "node.cli.ring", command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: ring {command}")


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [(["dance"], "dance"), (["local", "0"], "0"), (["local", "x"], "x"), (["load", "/no/such/file"], "/no/such/file")],
)
def test_a_mistake_in_a_command_of_ring_is_one_line(words: list[str], mentioned: str) -> None:
    done = run(sys.executable, "-m", "node.cli.ring", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("ring") and done.stderr.count("\n") == 1 and mentioned in done.stderr


def test_an_input_file_that_may_not_be_read_or_is_a_directory(tmp_path: Path) -> None:
    done = run(sys.executable, "main.py", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"main.py: cannot read {tmp_path}: {os.strerror(21)}\n"
