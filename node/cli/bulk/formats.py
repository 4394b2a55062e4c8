"""What a file is, by its name or by how it begins."""

from __future__ import annotations

from pathlib import PurePath

from node.cli.bulk.lines import Source
from node.cli.script import WORDS
from node.errors import BadUsage

FORMATS = ("script", "csv", "tsv", "jsonl")
_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_PACKED = {
    b"\x1f\x8b": "zcat",
    b"PK\x03\x04": "unzip -p",
    b"BZh": "bzcat",
    b"\xfd7zXZ": "xzcat",
    b"\x28\xb5\x2f\xfd": "zstdcat",
}


def format_of(source: Source) -> str:
    """The format of a file that nothing has been read of. Raises BadUsage if it cannot be told, or is compressed."""
    for mark, program in _PACKED.items():
        if source.head.startswith(mark):
            raise BadUsage(f"{source.name} is compressed: {program} {source.name} | ring load -")
    ending = PurePath(source.name).suffix.lower()
    return _ENDINGS.get(ending) or _by_content(source, ending)


def _by_content(source: Source, ending: str) -> str:
    if source.is_empty and ending != ".txt":
        return "jsonl"  # of no rows, as `ring dump` writes what is not there
    lines = [text for line in source.head_text.splitlines() if (text := line.strip()) and text[0] != "#"]
    first = lines[0] if lines else ""
    if first.startswith("{"):
        return "jsonl"
    if not first or first.split()[0] in WORDS:
        return "script"
    for mark, name in (("\t", "tsv"), (",", "csv")):
        if mark in first:
            return name
    if ending == ".txt":
        return "script"  # whose first line is malformed, of which it will tell
    raise BadUsage(f"it cannot be told what {source.name} is: say --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
