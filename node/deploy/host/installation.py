"""Installing a release that lies here as an archive, and removing it all. Sent to a host and run by the Python there.

A release is a directory of its own, complete when the file `.complete` is in it; `current` leads to the one in use and
is switched in one step. Releases with the same lock share the environment that was made of it. What is not complete is
removed, now or by the next installation. Imports nothing but the standard library. A failure is one line on standard
error and exit code 1.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FULL = 5_000_000
"""Bytes. Programs that fail on a disk with less room have failed for that, whatever they say."""


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
    release, environment = base / "releases" / request["release"], base / "environments" / request["environment"]
    try:
        if not _complete(release) or (release / ".complete").read_text() != environment.name:
            archive = base / "incoming" / request["archive"]
            release.parent.mkdir(exist_ok=True)
            _check(release, archive)
            if not _complete(environment):  # before the release, which may be in use with another one
                wheels = base / "incoming" / request["wheels"] if request["wheels"] else None
                _make_environment(environment, archive, wheels)
            _unpack(release, archive)
            _furnish(release, environment)
        _switch(base, release)
    except BaseException as error:
        full = shutil.disk_usage(base).free < FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
        for each in (release, environment):
            if not _complete(each):
                shutil.rmtree(each, ignore_errors=True)
        if full:
            raise SystemExit(f"the disk of {base} is full: nothing was changed") from None
        raise
    finally:
        _empty(base / "incoming")
    _prune(base)
    return {}


def _check(release: Path, archive: Path) -> None:
    if hashlib.sha256(archive.read_bytes()).hexdigest()[:12] != release.name.rpartition("-")[2]:
        raise SystemExit(f"{archive.name} arrived damaged: try again")


def _unpack(release: Path, archive: Path) -> None:
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir()
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(release)


def _make_environment(environment: Path, archive: Path, wheels: Path | None) -> None:
    """What the lock in the archive names, from wheels, or from an index where there are none. Releases with one lock
    share it."""
    shutil.rmtree(environment, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(environment)], "cannot make an environment (is python3-venv installed?)")
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    with zipfile.ZipFile(archive) as packed:
        lock = packed.extract("requirements.lock", environment)
    locked = ["--require-hashes", "--only-binary", ":all:", "-r", lock]
    if wheels is None:
        _run([*pip, "install", *locked], "pip cannot install from its index (send wheels with --offline)")
    else:
        place = environment / "wheels"
        with zipfile.ZipFile(wheels) as packed:
            packed.extractall(place)
        source = ["--isolated", "install", "--no-index", "--find-links", str(place)]
        _run([*pip, *source, *locked], "pip cannot install from the wheels sent")
        shutil.rmtree(place)
    _declare_complete(environment, "")


def _furnish(release: Path, environment: Path) -> None:
    """Give a release a Python that finds the release and the environment, and try it."""
    python = str(release / "venv" / "bin" / "python")
    _run([sys.executable, "-m", "venv", "--without-pip", str(release / "venv")], "cannot make an environment")
    places = [_packages(environment / "bin" / "python"), str(release)]
    Path(_packages(python), "rpychord.pth").write_text("".join(f"{place}\n" for place in places))
    (release / "environment").symlink_to(environment)
    command = release / "venv" / "bin" / "ring"
    command.write_text(f'#!/bin/sh\nexec "{python}" -m node.cli.ring "$@"\n')
    command.chmod(0o700)
    _run([python, str(release / "server.py"), "--help"], "what was installed does not start")
    _declare_complete(release, environment.name)


def _packages(python: str | Path) -> str:
    """Where this Python looks for packages."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True).stdout.strip()


def _complete(directory: Path) -> bool:
    return (directory / ".complete").exists()


def _declare_complete(directory: Path, made_for: str) -> None:
    os.sync()  # what is in it first: after a loss of power files that were just written may be empty
    with (directory / ".complete").open("w") as file:
        file.write(made_for)
        file.flush()
        os.fsync(file.fileno())


def _run(words: list[str], failed: str) -> None:
    """Run a command. Raises SystemExit with what it said last."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
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
    """Remove releases but the current one, the one before, and those that something runs from or is to run from."""
    keep = {(base / "current").resolve().name}
    if (base / "previous").exists():
        keep.add((base / "previous").read_text())
    with suppress(OSError, ValueError):
        keep.add(json.loads((base / "run" / "orders.json").read_text()).get("release"))
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
    used = {Path(os.readlink(release / "environment")).name for release in (base / "releases").iterdir()}
    for environment in (base / "environments").iterdir():
        if environment.name not in used:
            shutil.rmtree(environment, ignore_errors=True)


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
