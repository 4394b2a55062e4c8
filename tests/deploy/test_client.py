"""What a client on a host does for `backup`, `restore` and `the_special`; `ring` commands are only written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node.client import credentials
from node.codec import Address
from node.deploy.host.client import Client
from node.deploy.host.layout import Layout
from node.settings import Settings
from node.trust.certificates import Authority
from node.trust.guard import vouch
from node.trust.keyring import Keyring
from node.trust.token import Token
from tests.trust.rings import issued

WHERE = {"address": "10.0.0.1", "port": 18861}


class Host:
    """The installation of a node of a ring with certificates."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(base)
        self.layout.data.mkdir(parents=True)
        self.authority = Authority.new()
        vouch(Keyring(self.layout.data), self.authority, Settings())
        self.client = Client(self.layout)
        self.done: list[tuple[str, ...]] = []
        monkeypatch.setattr(self.client, "_ring", self._ring)

    def _ring(self, *words: str, token: str = "") -> str:
        self.done.append(words)
        if words[0] == "token":
            return Token.issue(self.authority, "client", 1, 0, 600).text
        if words[0] == "login":
            self.log_in(600.0)
        return json.dumps({"keys": 0})

    def log_in(self, life: float, authority: Authority | None = None) -> None:
        """Keep a certificate of the ring, or of another, for so many seconds."""
        file = self.layout.client / "rpychord" / "credentials.toml"
        own = issued(authority or self.authority, "client", "0123456789abcdef", life)
        credentials._write(file, own, Address("10.0.0.1", 18861))

    def back_up(self) -> list[str]:
        """The commands that this took."""
        self.done.clear()
        request: dict[str, Any] = WHERE | {"file": "ring.jsonl"}
        self.layout.copy.mkdir(exist_ok=True)
        self.client.dump(request)
        return [words[0] for words in self.done]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One on which nobody has logged in."""
    return Host(tmp_path / "base", monkeypatch)


def test_it_logs_in_once(host: Host) -> None:
    assert host.back_up() == ["token", "login", "dump"]
    assert host.back_up() == ["dump"]


def test_a_backup_a_month_later_logs_in_anew(host: Host) -> None:
    """Nobody renews a certificate that nobody uses."""
    host.log_in(-1.0)
    assert host.back_up() == ["token", "login", "dump"]


def test_where_the_host_has_come_into_another_ring_it_logs_in_anew(host: Host) -> None:
    host.log_in(600.0, Authority.new())
    assert host.back_up() == ["token", "login", "dump"]


def test_a_login_that_was_broken_off_is_done_again(host: Host) -> None:
    (host.layout.client / "rpychord").mkdir(parents=True)
    assert host.back_up() == ["token", "login", "dump"]
