"""Installing a release that lies here as an archive, and removing it all. Sent to a host and run by the Python there.

A release is a directory of its own, complete when the file `.complete` is in it; `current` leads to the one in use and
is switched in one step. What is not complete is removed, now or by the next installation. Imports nothing but the
standard library. A failure is one line on standard error and exit code 1.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
LOCKED = ["--require-hashes", "--only-binary", ":all:"]


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Install, or remove, in this directory."""
    base = Path(request["directory"]).expanduser()
    if request["what"] == "remove":
        return _remove(base)
    os.umask(0o077)
    with _alone(base):
        return _install(base, request)


def _install(base: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Bring a release here and switch to it. Never leaves half of one."""
    release = base / "releases" / request["release"]
    archive = base / "incoming" / request["archive"] if request["archive"] else None
    was_there = (release / ".complete").exists()
    try:
        if not was_there:
            if archive is None:
                raise SystemExit(f"{release.name} is not complete: try again")
            _build(release, archive, base / "incoming" / request["wheels"] if request["wheels"] else None)
        _switch(base, release)
    except BaseException as error:
        if not was_there:
            shutil.rmtree(release, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise SystemExit(f"the disk of {base} is full: nothing was changed") from None
        raise
    finally:
        _empty(base / "incoming")
    _prune(base)
    return {}


def _build(release: Path, archive: Path, wheels: Path | None) -> None:
    """A complete release, from the archive and the wheels, or from an index where there are none."""
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir(parents=True)
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest()[:12] != release.name.rpartition("-")[2]:
        raise SystemExit(f"{archive.name} arrived damaged: try again")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(release)
    environment = release / "venv"
    _run([sys.executable, "-m", "venv", str(environment)], "cannot make an environment (is python3-venv installed?)")
    python = str(environment / "bin" / "python")
    lock = ["-r", str(release / "requirements.lock")]
    if wheels is None:
        _run(
            [python, *PIP, "install", *LOCKED, *lock], "pip cannot install from its index (send wheels with --offline)"
        )
    else:
        with zipfile.ZipFile(wheels) as packed:
            packed.extractall(release / "wheels")
        source = ["--isolated", "install", "--no-index", "--find-links", str(release / "wheels")]
        _run([python, *PIP, *source, *LOCKED, *lock], "pip cannot install from the wheels sent")
        shutil.rmtree(release / "wheels")
    _finish(release, python)


def _finish(release: Path, python: str) -> None:
    """Make the project importable there, try it, and declare it complete."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    Path(packages, "rpychord.pth").write_text(f"{release}\n")
    command = release / "venv" / "bin" / "ring"
    command.write_text(f'#!/bin/sh\nexec "{python}" -m node.cli.ring "$@"\n')
    command.chmod(0o700)
    _run([python, str(release / "server.py"), "--help"], "what was installed does not start")
    with (release / ".complete").open("w") as file:
        os.fsync(file.fileno())


def _run(words: list[str], failed: str) -> None:
    """Run a command. Raises SystemExit with what it said last."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        if "No space left on device" in done.stdout:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        telling = [line for line in said if line.startswith("ERROR")] or said[-1:]
        raise SystemExit(f"{failed}: {telling[0].removeprefix('ERROR: ')}")


def _switch(base: Path, release: Path) -> None:
    """From now on this release is the current one."""
    new = base / "current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(release.relative_to(base))
    previous = os.readlink(base / "current") if (base / "current").is_symlink() else None
    if previous is not None and base / previous != release:
        (base / "previous").write_text(Path(previous).name)
    new.replace(base / "current")


def _prune(base: Path) -> None:
    """Remove releases but the current one, the one before, and those that something runs from."""
    keep = {(base / "current").resolve().name}
    if (base / "previous").exists():
        keep.add((base / "previous").read_text())
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            where = Path(os.readlink(f"/proc/{name}/cwd"))
        except OSError:  # it has ended, or is somebody else's
            continue
        if where.parent == (base / "releases").resolve():
            keep.add(where.name)
    for release in (base / "releases").iterdir():
        if release.name not in keep:
            shutil.rmtree(release, ignore_errors=True)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def _remove(base: Path) -> dict[str, Any]:
    """Remove the directory, if it is one of ours; whether it was there."""
    if not base.exists():
        return {"was_there": False}
    if not (base / ".rpychord").exists():
        raise SystemExit(f"{base} is not a directory of ours: nothing was removed")
    with _alone(base):
        mark = base / ".rpychord"
        for path in sorted(base.iterdir(), key=lambda path: path == mark):  # the mark last: a second try finds it
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    base.rmdir()
    return {"was_there": True}


@contextmanager
def _alone(base: Path, patience: float = 120.0) -> Iterator[None]:
    """Keep other deployments out meanwhile."""
    with (base / ".lock").open("a") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SystemExit(f"another deployment has been at work in {base} for {patience:.0f} s") from None
                time.sleep(0.1)
        yield
