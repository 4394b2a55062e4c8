"""One host over ssh: files to it, one command at a time, and every failure as one line of what is wrong and what to do.

Keys of hosts are checked against known_hosts, whatever the ssh configuration says.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import socket
from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from fabric import Config, Connection  # type: ignore[import-untyped]

from node.deploy.inventory import Inventory
from node.errors import BadUsage, RingError

PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
FIND_PYTHON = """
for p do "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1 && exec "$p" -; done
for p do "$p" -V </dev/null; done 2>/dev/null | sort -u
exit 90
"""
NO_PYTHON, NO_COMMAND = 90, (126, 127)
CALL = "\nimport json, sys\nprint(json.dumps(main(json.loads({request!r}))))\n"
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its threads print tracebacks of what it raises as well
ANSWER = 300.0
"""Seconds a command may take unless it says otherwise."""
KEEPALIVE = 10
NO_KEY = re.compile(r"private key file|encountered \w+ key|base64|codec")
"""What paramiko says of a file that it cannot log in with."""
Request = dict[str, Any]


class HostFailed(RingError):
    """What was to be done on a host was not done; the message says why."""


class NotInstalled(HostFailed):
    """There is no installation on the host."""


class RemoteHost:
    """`with RemoteHost(...) as host: host.agent("look", {...})`. Every method raises HostFailed."""

    def __init__(self, name: str, inventory: Inventory, config: Config) -> None:
        """`config`: of this host alone. A Connection writes to it, and has it empty for a moment."""
        self.name = name
        self._place = inventory.host
        self._port = inventory.ring.port
        self._directory = inventory.host.directory.removeprefix("~/")
        ssh = inventory.ssh
        arguments: Request = {"banner_timeout": ssh.timeout, "auth_timeout": ssh.timeout}
        if ssh.key is not None:
            key = Path(ssh.key).expanduser()
            if not key.is_file():
                raise BadUsage(f"there is no key {key}: correct ssh.key in the file of hosts")
            arguments |= {"key_filename": [str(key)], "look_for_keys": False}
        self._known_hosts = ssh.known_hosts
        try:
            self._connection = Connection(
                name, user=ssh.user, port=ssh.port, config=config, connect_timeout=ssh.timeout, connect_kwargs=arguments
            )
        except ValueError:
            raise BadUsage(f"the ssh configuration has a port for {name} that is no number: correct it there") from None

    @property
    def where(self) -> Request:
        """Where its node listens, as requests say it."""
        return {"address": self.address, "port": self._port}

    @cached_property
    def address(self) -> str:
        """Where its node listens: the address that ssh reaches it at."""
        try:
            found = socket.getaddrinfo(self._connection.host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise HostFailed(f"no host {self._connection.host!r}: {error.strerror}; check the name") from None
        best = min(found, key=lambda info: info[0] != socket.AF_INET)
        return str(best[4][0])

    def __enter__(self) -> RemoteHost:
        client = self._connection.client
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for path, must in self._files_of_known_hosts():
            try:
                client.load_system_host_keys(str(path))
            except OSError as error:
                if must:
                    raise HostFailed(f"cannot read {path}: {error.strerror}; correct ssh.known_hosts") from None
            except (paramiko.hostkeys.InvalidHostKey, UnicodeDecodeError):
                raise HostFailed(f"{path} has a line that is no key of a host: correct or remove it") from None
        try:
            self._connection.open()
            self._connection.transport.set_keepalive(KEEPALIVE)
        except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
            self._connection.close()
            raise HostFailed(self._why(error)) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def agent(self, verb: str, request: Request, patience: float = ANSWER) -> Request:
        """Have the installation there do something; its answer."""
        command = shlex.join([f"{self._directory}/current/venv/bin/python", "-m", "node.deploy.host.agent", verb])
        return self._asked(command, json.dumps(request).encode(), patience)

    def script(self, module: Path, request: Request, patience: float = ANSWER) -> Request:
        """Run a module of ours that needs no installation; what its `main` returns."""
        source = module.read_text() + CALL.format(request=json.dumps({"directory": self._place.directory, **request}))
        pythons = [self._place.python] if self._place.python else PYTHONS
        return self._asked(shlex.join(["sh", "-c", FIND_PYTHON, "sh", *pythons]), source.encode(), patience)

    def put(self, content: bytes | Path, name: str) -> None:
        """Lay a file into the directory there."""
        file = BytesIO(content) if isinstance(content, bytes) else str(content)
        try:
            self._connection.put(file, f"{self._directory}/{name}")
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostFailed(f"{name} cannot be sent: {error} (is the disk there full?)") from None

    def get(self, name: str, local: Path) -> None:
        """Bring a file from the directory there; it has its name here only when it is whole."""
        part = local.with_name(f"{local.name}.{os.getpid()}.part")
        try:
            self._connection.get(f"{self._directory}/{name}", str(part.absolute()))
            part.replace(local)
        except (paramiko.SSHException, OSError, EOFError) as error:
            part.unlink(missing_ok=True)
            raise HostFailed(f"{name} cannot be brought to {local}: {error}") from None

    def show(self, words: list[str], said: Callable[[str], None]) -> int:
        """Run a program of the installation and hand over what it says line by line; its exit code."""
        command = shlex.join([f"{self._directory}/current/venv/bin/python", *words])
        try:
            channel = self._connection.create_session()
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            channel.shutdown_write()
            with channel.makefile("r") as lines:
                for line in lines:
                    said(line.rstrip("\n"))
            return int(channel.recv_exit_status())
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostFailed(self._why(error)) from None

    def there(self, name: str) -> str:
        """The path of something in the directory there, as a program that runs there is to be told."""
        return f"{self._directory}/{name}"

    def _asked(self, command: str, request: bytes, patience: float) -> Request:
        """The JSON that a command answers to a request. Its last line on standard error is why it failed."""
        try:
            channel = self._connection.create_session()
            channel.settimeout(patience)
            channel.exec_command(command)
            with contextlib.suppress(OSError):  # a command that is not there ends before it is told anything
                channel.sendall(request)
                channel.shutdown_write()
            with channel.makefile("rb") as output, channel.makefile_stderr("rb") as errors:
                answer, complaint = output.read(), errors.read().decode(errors="replace").strip()
            code = channel.recv_exit_status()
        except TimeoutError:
            raise HostFailed(f"no answer within {patience:.0f} s") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostFailed(self._why(error)) from None
        if code == NO_PYTHON:
            found = ", ".join(answer.decode().split("\n")).rstrip(", ") or "none"
            raise HostFailed(
                f"no Python 3.11 or newer there, found: {found}; install one, or say where it is in [host]"
            )
        if code in NO_COMMAND:
            raise NotInstalled("nothing is installed there: fab setup_servers")
        if code:
            raise HostFailed(complaint.splitlines()[-1] if complaint else f"ended with code {code} and said nothing")
        try:
            result: Request = json.loads(answer.splitlines()[-1])
        except (IndexError, ValueError):
            raise HostFailed(f"answered something else than was asked: {answer[-80:]!r}") from None
        return result

    def _files_of_known_hosts(self) -> list[tuple[Path, bool]]:
        """Where keys of hosts are looked up, and whether the file must be there."""
        if self._known_hosts is not None:
            return [(Path(self._known_hosts).expanduser(), True)]
        config = self._connection.ssh_config
        own = config.get("userknownhostsfile", "~/.ssh/known_hosts").split()
        everybodys = config.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split()
        return [(Path(name).expanduser(), False) for name in (*own, *everybodys)]

    def _why(self, error: Exception) -> str:
        """In words that say what to do."""
        where = f"{self._connection.user}@{self._connection.host}:{self._connection.port}"
        match error:
            case paramiko.BadHostKeyException():
                return (
                    f"the key of {where} is not the one in known_hosts: somebody is in between, or it was set up anew"
                )
            case paramiko.PasswordRequiredException():
                return f"the key for {where} has a passphrase: add it to an ssh agent"
            case paramiko.AuthenticationException():
                return f"{where} does not let us in: check user and key"
            case TimeoutError():
                return f"{where} does not answer: is the host up?"
            case paramiko.ssh_exception.NoValidConnectionsError() | ConnectionError():
                return f"{where} cannot be reached: is the host up, does sshd run there, is the port right?"
            case socket.gaierror():
                return f"there is no host {self._connection.host!r}: check the name"
            case OSError() if error.filename is not None:
                return f"cannot read {error.filename}: {error.strerror}; correct ssh.key, or the ssh configuration"
            case OSError():
                return f"{where} cannot be reached: {error.strerror or error}; check the address and the network"
            case paramiko.SSHException() if "banner" in str(error):
                return f"{where} does not speak ssh: is the port right?"
            case paramiko.SSHException() if "No authentication methods" in str(error):
                return f"{where}: there is no key to log in with: name one in [ssh], or add it to an ssh agent"
            case paramiko.SSHException() | ValueError() if NO_KEY.search(str(error)):
                return f"the key for {where} is no private key that can be read: correct ssh.key"
            case paramiko.SSHException() if "not found in known_hosts" in str(error):
                return f"the key of {where} is in no known_hosts: log in once with ssh, or add it with ssh-keyscan"
        return f"ssh to {where}: {error}"
