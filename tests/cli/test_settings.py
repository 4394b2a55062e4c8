"""The file of settings: what may stand in it, what goes before it, and reading it anew at SIGHUP."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node.cli.settings_file import Configuration, Log, Tuning, Typed
from node.errors import BadUsage
from node.logs import LogOptions
from node.settings import Settings
from tests.ports import free_ports
from tests.ring.nodes import PATIENCE, ROOT, NodeProcess, RingOfProcesses, eventually

NEEDS_AGREEMENT = {"lease", "lease_margin", "max_key", "max_value", "max_frame", "max_skip", "max_future", "grace"}
OF_A_LIFE = {"successors", "forget_after", "regroup", "lookup", "most_siblings"}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events_of(path: Path) -> list[str]:
    return [line["event"] for line in lines_of(path) if "event" in line]


def test_all_settings_may_change_but_those_that_nodes_agree_on_or_that_are_used_once() -> None:
    there = {field.name for field in dataclasses.fields(Settings)}
    assert {field.name for field in msgspec.structs.fields(Tuning)} == there - NEEDS_AGREEMENT - OF_A_LIFE


def test_every_profile_is_within_the_bounds_of_the_file(tmp_path: Path) -> None:
    for name in ("local", "lan", "wan"):
        profile = Settings.profile(name)
        said = [f"{field.name} = {getattr(profile, field.name)}" for field in msgspec.structs.fields(Tuning)]
        (tmp_path / "settings.toml").write_text("\n".join(["[settings]", *said]))
        assert Configuration(Typed(tmp_path)).settings == dataclasses.replace(
            Settings(), **{field.name: getattr(profile, field.name) for field in msgspec.structs.fields(Tuning)}
        )


def test_what_is_typed_goes_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    assert Configuration(Typed(tmp_path)).logging == LogOptions("warning", "text", None)
    (tmp_path / "settings.toml").write_text(
        '[log]\nlevel = "error"\nformat = "json"\nfile = "n"\n[settings]\nevict = 3'
    )
    found = Configuration(Typed(tmp_path, "wan"))
    assert found.settings == dataclasses.replace(Settings.profile("wan"), evict=3.0)
    assert found.logging == LogOptions("error", "json", tmp_path / "log" / "n")
    typed = Typed(tmp_path, log_level="debug", log_format="text", log_file=tmp_path / "x")
    assert Configuration(typed).logging == LogOptions("debug", "text", tmp_path / "x")
    assert Configuration(Typed(tmp_path, log_file=tmp_path / "x")).logging.level == "error"
    (tmp_path / "settings.toml").write_text("")
    assert Configuration(Typed(tmp_path, log_file=tmp_path / "x")).logging.level == "info", "in a file"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[settings]\nevict = 'x'", "settings.evict: expected a number, not text"),
        ("[settings]\nevict = 0", "settings.evict: expected a number >= 0.01"),
        ("[settings]\nevict = nan", "settings.evict: expected a number >= 0.01"),
        ("[settings]\nmax_connections = 1.5", "settings.max_connections: expected a whole number, not a fraction"),
        ("[settings]\nlease = 5.0", "settings.lease is of the whole ring or of a node's life"),
        ("[settings]\nport = 5", "settings.port: there is no such entry: there are stabilize_period, "),
        ('[log]\nlevel = "loud"', "log.level: 'loud' is none of 'debug', 'info', 'warning', 'error'"),
        ("[log]\nfiles = 0", "log.files: expected a whole number >= 1"),
        ("[ring]\nreplicas = 5", "ring: there is no such entry: there are log, settings"),
        ("evict =", ":1: this is not TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(BadUsage) as refused:
        Configuration(Typed(tmp_path, file=file))
    assert str(refused.value).startswith(str(file)) and complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_defaults_of_the_file_are_those_of_logs() -> None:
    assert (Log().size, Log().files) == (LogOptions().size, LogOptions().files)


def test_at_sighup_a_node_reads_its_settings_anew(ring: RingOfProcesses, tmp_path: Path) -> None:
    log, other, directory = tmp_path / "log.json", tmp_path / "other.json", tmp_path / "node"
    directory.mkdir()
    settings = directory / "settings.toml"
    settings.write_text("[settings]\nmax_connections = 5\n")
    node = NodeProcess(directory, "--log-file", str(log), "--log-format", "json")
    ring.nodes.append(node)
    node.start()
    eventually(lambda: events_of(log) == ["start", "joined", "ready"], what="all that is logged at a start")
    assert lines_of(log)[-1]["id"] == node.id and lines_of(log)[-1]["address"] == f"127.0.0.1:{node.port}"

    def answers() -> list[dict[str, Any]]:
        return [line for line in lines_of(log) if str(line.get("event")).startswith("settings-")]

    def told_to_read(text: str) -> dict[str, Any]:
        count = len(answers())
        settings.write_text(text)
        node.signal(signal.SIGHUP)
        line: dict[str, Any] = eventually(lambda: (answers()[count:] or [None])[0], what="an answer in the log")
        return line

    connections: list[Any] = []

    def connects() -> bool:
        connections.append(node.connect())
        with suppress(EOFError, OSError):
            return bool(connections[-1].root.get("k") is None)
        return False

    assert not all(connects() for _ in range(6)), "the sixth at the latest is one too many"
    eventually(lambda: "peer-refused" in events_of(log))
    refused = told_to_read("[settings]\nmax_connections = 'x'\nevict = 3")
    assert (refused["event"], refused["level"]) == ("settings-refused", "warning")
    assert f"{settings}: settings.max_connections: expected a whole number, not text" in refused["message"]
    assert not connects()
    read = told_to_read("[settings]\nmax_connections = 100\nevict = 3")
    assert read["event"] == "settings-read"
    assert read["message"] == f"{settings}: evict 10.0 -> 3.0, max_connections 5 -> 100"
    assert connects()
    assert "nothing is different" in told_to_read("[settings]\nmax_connections = 100\nevict = 3")["message"]
    assert (
        "log level info -> debug"
        in told_to_read(f'[log]\nlevel = "debug"\nfile = "{other}"\n[settings]\nmax_connections = 100\nevict = 3')[
            "message"
        ]
    ), "the file that was typed stays"
    assert not other.exists()
    log.rename(tmp_path / "log.old")
    node.signal(signal.SIGHUP)
    eventually(log.exists, what="another file in place of the one that was moved away")
    for connection in connections:
        connection.close()
    assert node.terminate() == 0
    assert events_of(log)[-2:] == ["leaving", "stopped"]
    assert not node.directory.with_suffix(".log").read_text()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of one."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_when_its_terminal_is_closed_a_node_leaves(tmp_path: Path, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    log = tmp_path / "log"
    words = ["--port", "0", "--data", str(tmp_path / "node"), "--log-file", str(log), "--log-format", "json"]
    node = subprocess.Popen(
        [sys.executable, str(ROOT / "server.py"), *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        eventually(lambda: "ready" in events_of(log))
        node.send_signal(signal.SIGHUP)
        eventually(lambda: "settings-read" in events_of(log))
        os.close(theirs)
        os.close(ours)
        for _ in range(2):
            node.send_signal(signal.SIGHUP)
        assert node.wait(PATIENCE) == 0
        assert events_of(log)[-1] == "stopped"
    finally:
        node.kill()
        node.wait()


def test_several_nodes_log_into_files_of_their_own_and_all_read_anew(tmp_path: Path) -> None:
    settings = tmp_path / "all.toml"
    settings.write_text("")
    words = ["--data", str(tmp_path / "d"), "--log-file", str(tmp_path / "n.log"), "--settings", str(settings)]
    several = subprocess.Popen(
        [sys.executable, str(ROOT / "server.py"), "--servers", "2", "--port", str(free_ports(2)), *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert several.stdout is not None
        ports = [re.split(r"[: ]", several.stdout.readline())[2] for _ in range(2)]
        settings.write_text("[settings]\nevict = 7")
        several.send_signal(signal.SIGHUP)
        for port in ports:
            eventually(lambda port=port: "evict 10.0 -> 7.0" in (tmp_path / f"n-{port}.log").read_text())
    finally:
        several.terminate()
        several.wait(PATIENCE)
