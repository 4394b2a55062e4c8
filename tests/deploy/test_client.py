"""What a client on a host does for `backup`, `restore` and `the_special`; `ring` commands are only written down."""

from __future__ import annotations

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fabric import Config

from node.client import credentials
from node.codec import Address
from node.deploy import copying
from node.deploy.fleet import Fleet
from node.deploy.host.client import FORGOTTEN, Client
from node.deploy.host.layout import Layout
from node.deploy.inventory import parsed
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


# -- two who copy at the same time ---------------------------------------------------------------------------------


class Connected:
    """A host as the deploying machine has it, and what happens between two steps of one who works on it."""

    name = "10.0.0.1"
    where = WHERE

    def __init__(self, host: Host) -> None:
        self._host = host
        self.ring = ["in the ring"]
        self.meanwhile: dict[str, Any] = {}

    def agent(self, verb: str, request: dict[str, Any], _: float = 0.0) -> dict[str, Any]:
        if verb in self.meanwhile:
            self.meanwhile.pop(verb)()
        file = self._host.layout.copy / request["file"]
        if verb == "dump":
            file.write_text("\n".join(self.ring))
            return {"keys": len(self.ring)}
        if verb == "load":
            self.ring = file.read_text().splitlines()
            return {"stored": len(self.ring)}
        return self._host.client.clear(request)

    def put(self, content: Path, name: str) -> None:
        (self._host.layout.base / name).write_bytes(content.read_bytes())

    def get(self, name: str, local: Path) -> None:
        if "get" in self.meanwhile:
            self.meanwhile.pop("get")()
        local.write_bytes((self._host.layout.base / name).read_bytes())


@pytest.fixture
def connected(host: Host, monkeypatch: pytest.MonkeyPatch) -> Connected:
    """The only host of a fleet."""
    made = Connected(host)
    monkeypatch.setattr(copying, "_serving", lambda _: made.name)
    monkeypatch.setattr(Fleet, "connection", lambda *_: nullcontext(made))
    return made


FLEET = Fleet(parsed('first = "10.0.0.1"', "hosts.toml"), Config())


def test_who_restores_while_another_makes_a_backup_gets_what_is_in_the_file(
    connected: Connected, tmp_path: Path
) -> None:
    """Both used one file on the host: what was just stored there was the copy of the ring as it was."""
    (tmp_path / "old.jsonl").write_text("of the file")
    connected.meanwhile["load"] = lambda: copying.backup(FLEET, tmp_path / "new.jsonl")
    assert all(outcome.good for outcome in copying.restore(FLEET, tmp_path / "old.jsonl"))
    assert connected.ring == ["of the file"]
    assert (tmp_path / "new.jsonl").read_text() == "in the ring"


def test_two_who_make_a_backup_at_once_each_get_all_of_it(connected: Connected, tmp_path: Path) -> None:
    connected.meanwhile["get"] = lambda: copying.backup(FLEET, tmp_path / "b.jsonl")
    assert all(outcome.good for outcome in copying.backup(FLEET, tmp_path / "a.jsonl"))
    assert [(tmp_path / name).read_text() for name in ("a.jsonl", "b.jsonl")] == ["in the ring"] * 2


def test_nothing_stays_of_copies_even_where_the_line_was_cut(connected: Connected, host: Host, tmp_path: Path) -> None:
    host.layout.copy.mkdir()
    left = host.layout.copy / "of-somebody.jsonl"
    left.touch()
    os.utime(left, (0, time.time() - FORGOTTEN - 1))
    copying.backup(FLEET, tmp_path / "a.jsonl")
    assert list(host.layout.copy.iterdir()) == []
