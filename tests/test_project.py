"""The shape of the tree: who may import whom, what locks hold, what must not stand in a file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {"identifiers", "errors", "settings", "codec", "values", "transport"}
MAY_IMPORT = {
    "cli": {"client", "remote", "replication", "chord", "store"},
    "client": {"remote", "replication", "chord", "store"},
    "remote": {"replication", "chord", "store"},
    "replication": {"chord", "store"},
    "chord": set(),
    "store": set(),
    "simulation": {"replication", "chord", "store"},
}
PURE = ("chord", "replication")
FORBIDDEN_WHEN_PURE = {"rpyc", "rocksdict", "socket", "time", "threading", "uvloop", "random.random"}


def imports(path: Path) -> set[str]:
    """Every module a file imports, those under `if TYPE_CHECKING` too."""
    found: set[str] = set()
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.Import):
            found |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom) and item.module:
            found.add(item.module)
    return found


def modules(room: str) -> list[Path]:
    return sorted((ROOT / "node" / room).glob("*.py"))


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are tracked is not known")
    return [ROOT / name for name in listed.stdout.splitlines()]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_downwards(room: str) -> None:
    for path in modules(room):
        for name in imports(path):
            if name.startswith("node."):
                other = name.split(".")[1]
                allowed = other == room or other in GROUND or other in MAY_IMPORT[room]
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", PURE)
def test_protocols_know_neither_wire_nor_engine_nor_clock(room: str) -> None:
    for path in modules(room):
        found = imports(path)
        assert not {name for name in found if name.split(".")[0] in FORBIDDEN_WHEN_PURE}, path
        assert not {n for n in found if n.startswith("node.store.") and n != "node.store.interface"}, path


def test_the_ground_knows_nobody() -> None:
    for name in GROUND:
        for imported in imports(ROOT / "node" / f"{name}.py"):
            if imported.startswith("node."):
                assert imported.split(".")[1] in GROUND, f"{name} imports {imported}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_by_hash_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)
    assert len(pins) > 5
    for entry in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_what_is_pinned_is_what_is_locked() -> None:
    wanted = re.findall(r'^    "([a-z0-9-]+==[0-9.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    locked = (ROOT / "requirements-dev.lock").read_text()
    assert len(wanted) > 8
    for pin in wanted:
        assert re.search(rf"^{re.escape(pin)}\b", locked, re.MULTILINE), pin


def test_no_file_names_a_place_of_somebodys_machine() -> None:
    own = Path(__file__).resolve()
    for path in tracked():
        if path.resolve() == own or path.suffix == ".lock":
            continue
        found = re.search(r"(?<![\w.])/(?:root|work|farm|home/\w+)/", path.read_text(errors="replace"))
        assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    for path in sorted((ROOT / "node").rglob("*.py")):
        assert not marks.search(path.read_text()), path
