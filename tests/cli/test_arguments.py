"""Words and flags of `server.py` and what is said of wrong ones, without starting a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from node.cli import serve
from node.cli.arguments import USAGE, AddressType, run
from node.cli.settings_file import Configuration
from node.codec import Address
from node.errors import BadUsage, DirectoryInUse, Unreachable
from node.identifiers import Identifier
from node.logs import LogOptions
from node.remote.node import NodeOptions
from node.settings import Settings


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What `server.py` would start for these words."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    started: list[tuple[NodeOptions, Configuration]] = []

    async def record(options: NodeOptions, configuration: Configuration) -> int:
        started.append((options, configuration))
        return 0

    monkeypatch.setattr(serve, "serve", record)

    def type_(*words: str) -> tuple[NodeOptions, Configuration]:
        assert run(serve.command, "server.py", list(words)) == 0
        return started[-1]

    return type_


def test_no_words_are_a_first_node(typed: Any, tmp_path: Path) -> None:
    options, configuration = typed()
    assert options == NodeOptions(data=tmp_path / "rpychord" / "18861")
    assert configuration.settings == Settings.profile("local")
    assert configuration.logging == LogOptions("warning", "text", None)


@pytest.mark.parametrize(
    ("words", "first", "port"),
    [
        (["10.0.0.1"], Address("10.0.0.1", 18861), 18861),
        (["10.0.0.1", "5000"], Address("10.0.0.1", 5000), 18861),
        (["10.0.0.1", "5000", "6000"], Address("10.0.0.1", 5000), 6000),
        (["10.0.0.1", "--port", "6000"], Address("10.0.0.1", 18861), 6000),
        (["10.0.0.1", "5000", "6000", "--port", "6000"], Address("10.0.0.1", 5000), 6000),
        (["::1", "5000", "6000"], Address("::1", 5000), 6000),
        (["--port", "6000"], None, 6000),
    ],
)
def test_words_of_any_other_node(typed: Any, words: list[str], first: Address | None, port: int) -> None:
    options, _ = typed(*words)
    assert (options.first, options.port) == (first, port)
    assert options.data.name == str(port)


def test_every_flag(typed: Any, tmp_path: Path) -> None:
    identifier = "0123456789abcdef" * 2 + "01234567"
    flags = f"--listen ::1 --port 0 --data {tmp_path} --members 3 --id {identifier} --alone --insecure --profile wan"
    (tmp_path / "own.toml").write_text("")
    logged = f"--log-level debug --log-format json --log-file {tmp_path}/log --settings {tmp_path}/own.toml"
    options, configuration = typed(*flags.split(), *logged.split())
    assert options == NodeOptions(
        data=tmp_path,
        listen="::1",
        port=0,
        members=3,
        id=Identifier.from_hex(identifier),
        alone=True,
        insecure=True,
    )
    assert configuration.settings == Settings.profile("wan")
    assert configuration.logging == LogOptions("debug", "json", tmp_path / "log")
    assert configuration.path == tmp_path / "own.toml"


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["127.0.0.1", "1", "2", "--port", "3"], "two local ports: 2 as the third word and --port 3"),
        (["127.0.0.1", "1", "2", "--port", "0"], "two local ports"),
        (["127.0.0.1", "0"], "'0' is no port: give a number from 1 to 65535"),
        (["127.0.0.1", "65536"], "'65536' is no port"),
        (["127.0.0.1", "1", "65536"], "from 0 to 65535"),
        (["--port", "+-1"], "'+-1' is no port"),
        (["--port", "0"], "--data"),
        ([""], "FIRST_IP is empty"),
        (["--id", "0x12"], "40 hex digits"),
        (["--log-level", "loud"], "loud"),
        (["--log-format", "xml"], "xml"),
        (["--settings", "/nowhere/at/all"], "/nowhere/at/all: No such file"),
        (["--membrs", "3"], "--membrs"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], words: list[str], mentioned: str) -> None:
    assert run(serve.command, "server.py", words) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("server.py: ") and err.count("\n") == 1
    assert mentioned in err


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serve.command, "server.py", ["--help"]) == 0
    out = capsys.readouterr().out
    for parameter in serve.command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and parameter.opts[0] in out


@pytest.mark.parametrize(
    ("raised", "code"),
    [(BadUsage("b"), 2), (DirectoryInUse("d"), 2), (Unreachable("u"), 1), (KeyboardInterrupt(), 130)],
)
def test_what_is_raised_decides_the_exit_code(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int
) -> None:
    @click.command
    def command() -> None:
        raise raised

    assert run(command, "x.py", []) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_relative_data_home_is_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert serve.default_directory(5) == tmp_path / ".local" / "share" / "rpychord" / "5"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h:5", Address("h", 5)),
        ("h", Address("h", 18861)),
        ("[::1]:5", Address("::1", 5)),
        ("[::1]", Address("::1", 18861)),
        ("127.0.0.1:65535", Address("127.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert AddressType().convert(text, None, None) == address


@pytest.mark.parametrize("text", [":5", "h:", "h:x", "h:0", "h:65536", "", "[]:5", "::1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.UsageError):
        AddressType().convert(text, None, None)
