"""Files in TOML that people write: read strictly, and every mistake is one line that names the file and the entry."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from node.errors import BadUsage


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """What a table says. Refuses entries it does not know."""


T = TypeVar("T", bound=Strict)


def read_text(path: Path) -> str:
    """What is in a file. Raises BadUsage; FileNotFoundError is left to who knows what to do about it."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadUsage(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def parsed(text: str, name: str, kind: type[T]) -> T:
    """What a file of this name with this text says. Raises BadUsage."""
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise BadUsage(f"{name}: {_in_words(str(error))}") from None
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise BadUsage(f"{name} is not TOML: {error}") from None


def _in_words(message: str) -> str:
    """msgspec's sentence without its quotation of our regular expressions."""
    what, _, where = message.partition(" - at ")
    at = where.strip("`").removeprefix("$").removeprefix(".") or "the top level"
    if "matching regex" in what:
        kind = "a directory from ~/ or /" if "directory" in at else "a host name or address, without user or port"
        what = f"Expected {kind}"
    what = what.replace("`", "").replace(" | null", "")  # which TOML does not have
    return f"{at}: {what[:1].lower()}{what[1:]}"
