"""The file that a node's settings are read from, when it starts and at SIGHUP: only what may change while it runs.

What all nodes of a ring must agree on (leases, sizes of keys and values) and what a node is (ports, ids) is not in it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from node import toml
from node.errors import BadUsage
from node.events import Event
from node.logs import FILES, SIZE, LogOptions, Logs
from node.settings import KIB, MIB, Settings, differences
from node.toml import Strict

log = logging.getLogger(__name__)

NAME = "settings.toml"

Seconds = Annotated[float, Meta(ge=0.01, le=1e8)]
Count = Annotated[int, Meta(ge=1, le=10**9)]
Text = Annotated[str, Meta(min_length=1)]


class Log(Strict, frozen=True):
    """What is logged, and where."""

    level: Literal["debug", "info", "warning", "error"] | None = None
    format: Literal["text", "json"] | None = None
    file: Text | None = None
    """A relative one is below `log` in the data directory."""
    size: Annotated[int, Meta(ge=10_000)] = SIZE
    files: Annotated[int, Meta(ge=1, le=1000)] = FILES


class Tuning(Strict, frozen=True):
    """Those of node/settings.py that are read each time they are needed and that nodes need not agree on."""

    stabilize_period: Seconds | None = None
    fingers_period: Seconds | None = None
    probe: Seconds | None = None
    indirect_probes: Annotated[int, Meta(ge=0, le=100)] | None = None
    call: Seconds | None = None
    reunion_period: Seconds | None = None
    lease_at_rest: Seconds | None = None
    evict: Seconds | None = None
    settle_period: Seconds | None = None
    freeze: Seconds | None = None
    chunk: Annotated[int, Meta(ge=4 * KIB, le=4 * MIB)] | None = None
    operation: Seconds | None = None
    watch: Seconds | None = None
    sweep_period: Seconds | None = None
    leave: Seconds | None = None
    compare_period: Seconds | None = None
    reminders: Count | None = None
    certificate: Annotated[float, Meta(ge=60, le=1e8)] | None = None
    token: Seconds | None = None
    trust_period: Seconds | None = None
    connect: Seconds | None = None
    handshake: Seconds | None = None
    half_frame: Seconds | None = None
    half_frame_bytes: Count | None = None
    idle: Annotated[float, Meta(ge=0, le=1e8)] | None = None
    user_timeout: Seconds | None = None
    backoff: Seconds | None = None
    backoff_limit: Seconds | None = None
    max_in_flight: Count | None = None
    max_in_work: Count | None = None
    max_unfinished: Count | None = None
    max_connections: Count | None = None
    write_high: Count | None = None
    write_limit: Count | None = None


class SettingsFile(Strict, frozen=True):
    """The whole file."""

    log: Log = Log()
    settings: Tuning = Tuning()


def read(path: Path, *, needed: bool) -> SettingsFile:
    """What the file says; nothing, if there is none and none is needed. Raises BadUsage."""
    try:
        text = toml.read_text(path)
    except FileNotFoundError as error:
        if needed:
            raise BadUsage(f"cannot read {path}: {error.strerror}") from None
        return SettingsFile()
    try:
        return toml.parsed(text, str(path), SettingsFile)
    except BadUsage as error:
        for field in fields(Settings):
            if f" settings.{field.name}: there is no such entry" in str(error):
                raise BadUsage(
                    f"{path}: settings.{field.name} is of the whole ring or of a node's life: it comes with --profile"
                ) from None
        raise


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed of that, which goes before what the file says."""

    directory: Path
    """The data directory."""
    profile: str = "local"
    file: Path | None = None
    """None: settings.toml in the data directory, if it is there."""
    log_level: str | None = None
    log_format: str | None = None
    log_file: Path | None = None


class Configuration:
    """The settings of a node, and how it logs: by its command line, else by its file, else by default."""

    def __init__(self, typed: Typed) -> None:
        """Raises BadUsage for a file that cannot be read."""
        self._typed = typed
        self.path = typed.file or typed.directory / NAME
        self.settings, self.logging = self._read()

    def _read(self) -> tuple[Settings, LogOptions]:
        file = read(self.path, needed=self._typed.file is not None)
        said = {name: value for name, value in msgspec.structs.asdict(file.settings).items() if value is not None}
        return replace(Settings.profile(self._typed.profile), **said), self._log_options(file.log)

    def _log_options(self, said: Log) -> LogOptions:
        """Without a word: warnings on standard error; news too in a file, where they disturb nobody."""
        typed = self._typed
        file = typed.log_file or (typed.directory / "log" / said.file if said.file is not None else None)
        level = typed.log_level or said.level or ("warning" if file is None else "info")
        return LogOptions(level, typed.log_format or said.format or "text", file, said.size, said.files)

    def reread(self, logs: Logs) -> None:
        """Go by what the file says now, and log what changed. One that is wrong changes nothing. Blocks on the disk."""
        try:
            settings, options = self._read()
            before = logs.options
            logs.change(options)
        except BadUsage as error:
            Event.SETTINGS_REFUSED.tell(log, "the old ones stay in force: %s", error)
            return
        changes = [f"log {n} {old} -> {new}" for n, old, new in differences(before, options)]
        changes += [f"{n} {old} -> {new}" for n, old, new in self.settings.adopt(settings)]
        Event.SETTINGS_READ.tell(log, "%s: %s", self.path, ", ".join(changes) or "nothing is different")
