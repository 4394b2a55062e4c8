"""Logs: lines, what never stands in them, files that rotate and are rotated."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.errors import BadUsage, Unreachable
from node.events import Event
from node.logs import Lines, LogFile, LogOptions, Logs
from tests.ring.nodes import ROOT

log = logging.getLogger("node.somewhere")
TOKEN = "ring1.AAABAAAA_-x"
VALUE = "what somebody stored"
KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Any]:
    """`logs(format="json")` begins to log into the file `log`; ended, and the root logger as it was, at the end."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    made: list[Logs] = []

    def begin(**options: Any) -> Logs:
        made.append(Logs(LogOptions("info", file=tmp_path / "log", **options)))
        return made[-1]

    try:
        yield begin
    finally:
        for each in made:
            each.close()
        root.handlers[:] = before
        root.setLevel(level)


def test_a_line_in_json_has_time_level_logger_event_message_and_names(logs: Any, tmp_path: Path) -> None:
    begun = logs(format="json")
    begun.names = lambda: {"address": "127.0.0.1:1", "id": "ff"}
    Event.NODE_SILENT.tell(log, "%s is\nsilent", "10.0.0.1:1")
    log.debug("not at this level")
    begun.close()
    (line,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "node.somewhere",
        "event": "node-silent",
        "message": "10.0.0.1:1 is\nsilent",
        "address": "127.0.0.1:1",
        "id": "ff",
    }


def test_a_line_of_text_cannot_be_forged(logs: Any, tmp_path: Path) -> None:
    begun = logs()
    log.warning("garbage: %s", "x\n2026-01-01T00:00:00.000Z INFO node: all is well\x1b[2J")
    begun.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.match(r"\S+Z WARNING node\.somewhere: garbage: x\\n2026", line) and "\x1b" not in line


def test_that_peers_have_gone_is_no_news(logs: Any, tmp_path: Path) -> None:
    begun = logs()
    for text in ("SSL connection is closed", "socket.send() raised exception.", "something else of a SSL connection"):
        logging.getLogger("asyncio").warning(text)
    begun.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("something else of a SSL connection")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_secrets_and_what_foreign_errors_quote_are_left_out(logs: Any, tmp_path: Path, kind: str) -> None:
    begun = logs(format=kind)
    log.warning("came with %s and %s", TOKEN, KEY)
    try:
        try:
            int(VALUE)
        except ValueError as error:
            raise Unreachable(f"no way, with {TOKEN}") from error
    except Unreachable:
        log.exception("it failed")
    begun.close()
    said = (tmp_path / "log").read_text()
    assert "AAAB" not in said and "MC4C" not in said and VALUE not in said
    assert "Unreachable: no way, with (a token)" in said and "ValueError" in said and "test_logs.py" in said


def test_a_file_rotates_by_size_and_so_many_are_kept(logs: Any, tmp_path: Path) -> None:
    begun = logs(size=2000, files=3)
    for n in range(200):
        log.info("line %d", n)
    begun.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2000 for path in files)
    assert "line 199\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("how", ["moved", "removed", "truncated"])
def test_a_file_that_others_rotate_is_gone_on_with(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    file.handle(logging.makeLogRecord({"msg": "before"}))
    if how == "moved":
        path.rename(tmp_path / "old")
    elif how == "removed":
        path.unlink()
    else:
        path.write_text("")
    file.handle(logging.makeLogRecord({"msg": "after"}))
    file.close()
    assert path.read_text() == "after\n"
    assert how != "moved" or (tmp_path / "old").read_text() == "before\n"


def test_a_full_disk_stops_nobody_and_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(Path("/dev/full"), size=0)
    for n in range(3):
        file.handle(logging.makeLogRecord({"msg": f"secret {n}"}))
    file.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/dev/full" in said and "No space left" in said and "secret" not in said


def test_a_file_that_cannot_be_written_is_one_line_that_names_it(logs: Any, tmp_path: Path) -> None:
    begun = logs()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadUsage, match=r"cannot write the log .*/file/log: "):
        begun.change(LogOptions(file=tmp_path / "file" / "log"))
    log.info("as before")
    begun.close()
    assert "as before" in (tmp_path / "log").read_text()


def test_while_it_runs_it_may_log_otherwise(logs: Any, tmp_path: Path) -> None:
    begun = logs()
    log.info("one")
    begun.change(LogOptions("debug", "json", tmp_path / "other"))
    log.debug("two")
    begun.close()
    assert (tmp_path / "log").read_text().count("\n") == 1
    assert json.loads((tmp_path / "other").read_text())["message"] == "two"


def test_what_cannot_be_formatted_is_not_quoted(logs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logs()
    log.info("%d", VALUE)
    assert capsys.readouterr().err == "cannot log what node.somewhere says: TypeError\n"


def test_every_event_is_documented_with_its_level() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (info|warning|error) \|", page, re.MULTILINE))
    assert told == {event.label: logging.getLevelName(event.level).lower() for event in Event}


def test_lines_need_no_names() -> None:
    assert json.loads(Lines("json", dict).format(logging.makeLogRecord({"msg": "x"})))["message"] == "x"
