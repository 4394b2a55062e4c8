"""The file of hosts: read strictly, every mistake one line that names it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from node.deploy.inventory import Place, Ring, Ssh, parsed, read
from node.errors import BadUsage

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_shows_every_entry_there_is() -> None:
    text = (ROOT / "hosts.example.toml").read_text()
    shown = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert parsed(text, "hosts.toml").hosts == ("10.0.0.11", "10.0.0.12", "10.0.0.13")
    entries = {section: set(entry) for section, entry in tomllib.loads(shown).items() if isinstance(entry, dict)}
    assert entries == {"ssh": fields(Ssh), "ring": fields(Ring), "host": fields(Place)}
    parsed(shown, "hosts.toml")


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind)}


def test_what_is_said_there_is_taken() -> None:
    hosts = 'first = "a"\nothers = ["b"]\n[ssh]\nuser = "chord"\n'
    text = hosts + '[ring]\nreplicas = 5\nport = 7000\n[host]\ndirectory = "/srv/r"'
    inventory = parsed(text, "hosts.toml")
    assert inventory.hosts == ("a", "b")
    assert (inventory.ssh.user, inventory.ssh.port) == ("chord", None)
    assert (inventory.ring.replicas, inventory.ring.port, inventory.host.directory) == (5, 7000, "/srv/r")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "hosts.toml: first: this entry is needed, and is not there"),
        ("first = 3", "hosts.toml: first: expected text in quotes, not a whole number"),
        ('first = "root@a"', "hosts.toml: first: expected a host name or address, without user or port"),
        ('first = "a:22"', "hosts.toml: first: expected a host name or address, without user or port"),
        ('first = "a"\nfrist = "b"', "hosts.toml: frist: there is no such entry: is it first?"),
        ('first = "a"\n[ssh]\nprot = 22', "hosts.toml: ssh.prot: there is no such entry: is it port?"),
        ('first = "a"\nothers = ["b", "a"]', "hosts.toml: a stands there twice: name each host once"),
        ('first = "a"\nothers = ["b c"]', "hosts.toml: others[0]: expected a host name or address"),
        ('first = "a"\n[ring]\nport = 0', "hosts.toml: ring.port: expected a whole number >= 1"),
        ('first = "a"\n[ring]\nprofile = "moon"', "hosts.toml: ring.profile: 'moon' is none of 'local', 'lan', 'wan'"),
        ('first = "a"\n[ring]\nlog_level = "x"', "hosts.toml: ring.log_level: 'x' is none of 'debug', 'info', "),
        ('first = "a"\nothers = "b"', "hosts.toml: others: expected a list in [ ], not text"),
        ('first = "a"\n[host]\nxyzzy = 1', "hosts.toml: host.xyzzy: there is no such entry: there are directory, "),
        ('first = "a"\n[ssh]\nuser = ""', "hosts.toml: ssh.user: expected text that is not empty"),
        ('first = "a"\n[ring]\nreplicas = 2.5', "hosts.toml: ring.replicas: expected a whole number, not a fraction"),
        ('first = "a"\n[host]\ndirectory = "here"', "hosts.toml: host.directory: expected a directory from ~/ or /"),
        ("first =", "hosts.toml:1: this is not TOML: there is no such value"),
        ("\n\nfirst = a", "hosts.toml:3: this is not TOML: there is no such value; text stands in quotes"),
        ('first = "a"\nfirst = "b"\n', "hosts.toml:2: this is not TOML: an entry stands there twice"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(text: str, complaint: str) -> None:
    with pytest.raises(BadUsage) as refused:
        parsed(text, "hosts.toml")
    assert str(refused.value).startswith(complaint)
    assert "\n" not in str(refused.value)


def test_the_environment_may_name_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts.toml").write_text('first = "a"')
    (tmp_path / "mine.toml").write_text('first = "b"')
    assert read(tmp_path).first == "a"
    monkeypatch.setenv("RPYCHORD_HOSTS", str(tmp_path / "mine.toml"))
    assert read(tmp_path).first == "b"
    monkeypatch.setenv("RPYCHORD_HOSTS", str(tmp_path / "none.toml"))
    with pytest.raises(BadUsage, match=r"cannot read .*none.toml: No such file"):
        read(tmp_path)


def test_without_a_file_it_says_where_to_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPYCHORD_HOSTS", raising=False)
    with pytest.raises(BadUsage, match=r"copy hosts.example.toml there"):
        read(tmp_path)
