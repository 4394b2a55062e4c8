"""What is brought to a host: the part of the tree that a node needs, as one archive named after its content."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from node import __version__
from node.errors import BadUsage

FILES = ("server.py", "main.py", "input.txt", "requirements.lock")
ROOMS = "node"
LONG_AGO = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Release:
    """An archive, the same for the same tree, and its name: the version and the beginning of its SHA-256."""

    name: str
    archive: bytes
    lock: str
    """The beginning of the SHA-256 of its lock."""


def packed(tree: Path) -> Release:
    """The release that this tree is. Raises BadUsage if something is missing."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _paths(tree):
            try:
                text = path.read_bytes()
            except OSError as error:
                raise BadUsage(f"cannot read {path}: {error.strerror}; deploy from a whole checkout") from None
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), LONG_AGO)
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    archived = content.getvalue()
    return Release(f"{__version__}-{_digest(archived)}", archived, _digest((tree / "requirements.lock").read_bytes()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _paths(tree: Path) -> list[Path]:
    rooms = [path for path in sorted((tree / ROOMS).rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [*(tree / name for name in FILES), *rooms]
