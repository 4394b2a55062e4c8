"""Wheels for hosts without a package index: downloaded here for the Python and platform there, by the lock's hashes.

Kept in the user's cache directory, so that the next deployment needs no index here either.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.deploy.ssh import HostFailed

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "--retries", "2"]
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""The older names of the first platforms of wheels for glibc, by its minor version."""


class Wheelhouse:
    """What one deployment needs: each kind of host is looked after once, however many there are."""

    def __init__(self, lock: Path) -> None:
        self._lock_file = lock
        self._one = threading.Lock()
        self._found: dict[str, Path | HostFailed] = {}

    def archive(self, facts: Mapping[str, Any]) -> Path:
        """An archive of all wheels that a host of these facts needs. Raises HostFailed if they cannot be had."""
        version = ".".join(str(facts["version"]).split(".")[:2])
        platforms = platforms_of(facts)
        digest = hashlib.sha256(self._lock_file.read_bytes()).hexdigest()[:12]
        name = f"{digest}-{facts['implementation']}-{version}-{platforms[0]}.zip"
        with self._one:
            if name not in self._found:
                self._found[name] = self._had(name, version, platforms)
            found = self._found[name]
        if isinstance(found, HostFailed):
            raise found
        return found

    def _had(self, name: str, version: str, platforms: list[str]) -> Path | HostFailed:
        kept = _cache() / name
        if kept.exists():
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            wheels, archive = Path(directory, "wheels"), Path(directory, name)
            try:
                _download(self._lock_file, version, platforms, wheels)
            except HostFailed as failure:
                return failure
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
                for wheel in sorted(wheels.iterdir()):
                    packed.write(wheel, wheel.name)
            archive.replace(kept)
        return kept


def platforms_of(facts: Mapping[str, Any]) -> list[str]:
    """The names of the platforms whose wheels run on such a host, the newest first. Raises HostFailed for others."""
    machine, (libc, version) = facts["machine"], facts["libc"]
    if facts["system"] != "Linux" or facts["implementation"] != "cpython":
        raise HostFailed(
            f"wheels are found for CPython on Linux, not for {facts['implementation']} on {facts['system']}"
        )
    if libc != "glibc":
        return [f"musllinux_1_{minor}_{machine}" for minor in (2, 1, 0)]
    newest = int(version.split(".")[1])
    oldest = 5 if machine in ("x86_64", "i686") else 17
    names = []
    for minor in range(newest, oldest - 1, -1):
        names.append(f"manylinux_2_{minor}_{machine}")
        if minor in LEGACY:
            names.append(f"{LEGACY[minor]}_{machine}")
    return names


def _download(lock: Path, version: str, platforms: list[str], target: Path) -> None:
    asked = [word for platform in platforms for word in ("--platform", platform)]
    words = ["download", "--require-hashes", "--only-binary", ":all:", "--implementation", "cp"]
    done = subprocess.run(
        [*PIP, *words, "--python-version", version, *asked, "--dest", str(target), "-r", str(lock)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        said = errors[0].removeprefix("ERROR: ") if errors else "it said nothing"
        raise HostFailed(f"pip here cannot download wheels for Python {version} on {platforms[0]}: {said}")


def _cache() -> Path:
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    base = wanted if wanted.is_absolute() else Path.home() / ".cache"
    return base / "rpychord" / "wheels"
