"""What a client on this host does for the deploying machine, with the commands of the installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from cryptography import x509

from node.codec import Address
from node.deploy.host.layout import Layout
from node.logs import TOKEN

Request = dict[str, Any]
FORGOTTEN = 600.0
"""Seconds after which a file that nobody writes is one whose deployment was broken off. Who reads it has it open."""


class Client:
    """Its verbs take and give JSON as those of the agent do."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def dump(self, request: Request) -> Request:
        """Write all keys and values of the ring to a file in `copy`; how many."""
        return self._asked(request, "dump", "--out", str(self._layout.copy / request["file"]))

    def load(self, request: Request) -> Request:
        """Store what a file in `copy` holds; how many keys. Raises SystemExit if some were not."""
        return self._asked(request, "load", "--format", "jsonl", str(self._layout.copy / request["file"]))

    def clear(self, request: Request) -> Request:
        """Remove such a file, and those that nobody came back for."""
        self._layout.copy.mkdir(mode=0o700, exist_ok=True)
        for path in self._layout.copy.iterdir():
            with suppress(FileNotFoundError):
                if path.name == request["file"] or time.time() - path.stat().st_mtime > FORGOTTEN:
                    path.unlink()
        return {}

    def token(self, request: Request) -> Request:
        """What lets one more node, or client, into a ring with certificates. Raises SystemExit if it cannot be had."""
        kind = ["--client"] if request["client"] else []
        said = self._ring("token", *kind, "--data", str(self._layout.data))
        found = TOKEN.search(said)
        if found is None:
            raise SystemExit("`ring token` printed no token: try again")
        return {"token": found[0]}

    def special(self, file: str, host: str, port: str) -> NoReturn:
        """Become `main.py`, with this file, on this node."""
        self._be_let_in(Address(host, int(port)))
        main = str(self._layout.release / "main.py")
        words = [sys.executable, main, file, "--node", str(Address(host, int(port)))]
        os.execve(sys.executable, words, self._environment())

    def _asked(self, request: Request, *words: str) -> Request:
        """What a `ring` command answers about the ring of the node here."""
        node = Address(request["address"], request["port"])
        self._be_let_in(node)
        answer: Request = json.loads(self._ring(*words, "--node", str(node), "--json").splitlines()[-1])
        return answer

    def _be_let_in(self, node: Address) -> None:
        """Get a certificate, unless there is one that is good, if the ring of the node here has certificates."""
        if self._layout.trust.is_dir() and not self._is_let_in():
            token = self.token({"client": True})["token"]
            self._ring("login", "--node", str(node), token=token)

    def _is_let_in(self) -> bool:
        """Whether the certificate here has not ended, and is of the ring that the node here is in."""
        try:
            kept = tomllib.loads((self._layout.client / "rpychord" / "credentials.toml").read_text())
            own, issuer = (x509.load_pem_x509_certificate(kept[name].encode()) for name in ("certificate", "authority"))
            ring = x509.load_pem_x509_certificate((self._layout.trust / "authority.pem").read_bytes())
        except (OSError, ValueError, KeyError):
            return False
        return own.not_valid_after_utc > datetime.now(UTC) and issuer.public_key() == ring.public_key()

    def _ring(self, *words: str, token: str = "") -> str:
        """What a `ring` command prints. Raises SystemExit with its complaint."""
        command = [sys.executable, "-m", "node.cli.ring", *words]
        environment = self._environment() | ({"RPYCHORD_TOKEN": token} if token else {})
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr.strip() or f"ring {words[0]} ended with code {done.returncode}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Of clients: what they keep is in the installation, and goes with it."""
        return {**os.environ, "XDG_CONFIG_HOME": str(self._layout.client)}
