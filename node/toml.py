"""Files in TOML that people write: read strictly, and every mistake is one line that names the file and the entry."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from node.errors import BadUsage

NOT_TOML = {
    "Invalid value": "there is no such value; text stands in quotes",
    "Cannot overwrite a value": "an entry stands there twice",
}
HOST = "a host name or address, without user or port"
WORDS = {
    "str of length >= 1": "text that is not empty",
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table",
}


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
        raise BadUsage(f"{name}: {_in_words(str(error), kind)}") from None
    except (tomllib.TOMLDecodeError, msgspec.DecodeError) as error:
        raise BadUsage(f"{name}{_unreadable(str(error), text)}") from None


def _unreadable(message: str, text: str) -> str:
    """The line that is not TOML, and why."""
    what, _, where = message.partition(" (at ")
    found = re.match(r"line (\d+)", where)
    line = int(found[1]) if found else text.rstrip().count("\n") + 1
    return f":{line}: this is not TOML: {NOT_TOML.get(what, what[:1].lower() + what[1:])}"


def _in_words(message: str, kind: type[Strict]) -> str:
    """msgspec's sentence as one for people, with the entry and what may stand there."""
    sentence = re.fullmatch(r"(.*?)(?: - at `\$\.?([^`]*)`)?", message, re.DOTALL)
    what, at = (sentence[1].replace("`", ""), sentence[2] or "") if sentence else (message, "")
    if found := re.match(r"Object contains unknown field (.+)", what):
        there = [field.name for field in msgspec.structs.fields(_type_at(kind, at))]
        near = get_close_matches(found[1], there, 1)
        hint = f"is it {near[0]}?" if near else f"there are {', '.join(there)}"
        return f"{_below(at, found[1])}: there is no such entry: {hint}"
    if found := re.match(r"Object missing required field (.+)", what):
        return f"{_below(at, found[1])}: this entry is needed, and is not there"
    if found := re.match(r"Invalid enum value (.+)", what):
        return f"{at}: {found[1]} is none of {', '.join(map(repr, get_args(_type_at(kind, at))))}"
    if "matching regex" in what:
        return f"{at}: expected {'a directory from ~/ or /' if 'directory' in at else HOST}"
    wanted, _, got = what.removeprefix("Expected ").replace(" | null", "").partition(", got ")  # null: not in TOML
    got = got.replace("float", "a fraction")
    for word, words in WORDS.items():
        wanted, got = (re.sub(rf"^{word}\b", words, each) for each in (wanted, got))
    return f"{at}: expected {wanted}" + (f", not {got.removesuffix(' in quotes')}" if got else "")


def _below(table: str, entry: str) -> str:
    return f"{table}.{entry}" if table else entry


def _type_at(kind: type[Strict], path: str) -> Any:
    """The type of an entry, without None."""
    found: Any = kind
    for name in filter(None, path.split(".")):
        found = next(field.type for field in msgspec.structs.fields(found) if field.name == name)
    return next((each for each in get_args(found) if get_origin(each) is Literal), found)
