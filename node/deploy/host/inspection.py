"""Whether a node can be installed and can listen here. Sent to a host and run by the Python found there.

Imports nothing but the standard library. A failure is one line on standard error and exit code 1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

MARK = ".rpychord"
"""What tells a directory of ours from one of somebody else's."""
INDEX, INDEX_PATIENCE = ("pypi.org", 443), 3.0
"""Where pip finds packages unless told otherwise, and how many seconds it has to answer."""


def main(request: dict[str, Any]) -> dict[str, Any]:
    """The facts an installation goes by. Raises SystemExit with all that stands in its way."""
    now = time.time()
    base = Path(request["directory"]).expanduser()
    problems = [_directory_problem(base), _port_problem(base, request["address"], request["port"])]
    if not problems[0]:
        problems.append(_space_problem(base, request["free_mb"], base / "releases" / request["release"]))
    found = [problem for problem in problems if problem]
    if found:
        raise SystemExit("; ".join(found))
    environment = f"{request['lock']}-{sys.implementation.name}-{platform.python_version()}"
    has_environment = (base / "environments" / environment / ".complete").exists()
    return {
        "now": now,
        "directory": str(base.resolve()),
        "python": sys.executable,
        "version": platform.python_version(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "libc": list(platform.libc_ver()),
        "system": platform.system(),
        "index": request["ask_index"] and not has_environment and _reaches(*INDEX),
        "environment": environment,
        "has_environment": has_environment,
        "installed": has_environment and _made_for(base / "releases" / request["release"]) == environment,
    }


def _directory_problem(base: Path) -> str:
    """Why this directory cannot be ours; it is made, and marked, if it can."""
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (base / MARK).exists():
            if any(base.iterdir()):
                return f"{base} holds something else: name another directory in [host] of hosts.toml"
            (base / MARK).touch()
        (base / "incoming").mkdir(exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return f"the disk of {base} is full"
        return f"cannot use {base}: {error.strerror}"
    return ""


def _made_for(release: Path) -> str:
    """The environment that a release was completed with; it is another one once the Python here is."""
    try:
        return (release / ".complete").read_text()
    except OSError:
        return ""


def _space_problem(base: Path, wanted: int, release: Path) -> str:
    free = shutil.disk_usage(base).free // 1_000_000
    if free >= wanted or (release / ".complete").exists():
        return ""
    return f"the disk of {base} is too full: {free} MB are free and {wanted} are wanted"


def _port_problem(base: Path, host: str, port: int) -> str:
    """Why a node cannot listen there, unless the one that does is ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"cannot listen on {host}:{port}: {error.strerror}"
            return "" if _ours(base / "releases") else f"port {port} is in use by another program"
    return ""


def _reaches(host: str, port: int) -> bool:
    """Whether that host answers, and not a proxy for it. Asking for its name may take longer than one wants to wait."""
    answers: list[bool] = []

    def reach() -> None:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, port), INDEX_PATIENCE)
            with ssl.create_default_context().wrap_socket(connection, server_hostname=host):
                answers.append(True)

    asking = threading.Thread(target=reach, daemon=True)
    asking.start()
    asking.join(INDEX_PATIENCE)
    return bool(answers)


def _ours(releases: Path) -> bool:
    """Whether a node of this installation runs."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if b"server.py" in words and Path(os.readlink(f"/proc/{name}/cwd")).is_relative_to(releases.resolve()):
                return True
        except OSError:  # it has ended, or is somebody else's
            continue
    return False
