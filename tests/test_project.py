"""The shape of the tree: who may import whom, what locks hold, what must not stand in a file."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND = {
    "identifiers",
    "errors",
    "settings",
    "codec",
    "values",
    "transport",
    "tasks",
    "data",
    "batches",
    "events",
    "logs",
    "toml",
}
MAY_IMPORT = {
    "cli": {"chain", "eventual", "register", "client", "remote", "replication", "chord", "store", "trust"},
    "client": {"chain", "eventual", "register", "remote", "replication", "chord", "store", "trust"},
    "remote": {"chain", "eventual", "register", "replication", "chord", "store", "trust"},
    "replication": {"chain", "eventual", "chord", "register", "store"},
    "chain": {"register", "store"},
    "eventual": {"chord", "store"},
    "register": {"store"},
    "chord": set(),
    "store": set(),
    "trust": set(),
    "simulation": {"replication", "chain", "eventual", "register", "chord", "store"},
    "deploy": set(),
}
PURE = ("chain", "eventual", "chord", "register", "replication")
FORBIDDEN_WHEN_PURE = {"rpyc", "rocksdict", "lmdb", "socket", "time", "datetime", "threading", "subprocess", "uvloop"}


def imports(path: Path) -> set[str]:
    """What a file imports, by full names; under `if TYPE_CHECKING` and inside functions too."""
    return imported_by(path.read_text(), path.relative_to(ROOT).parent.parts)


def imported_by(source: str, package: tuple[str, ...] = ()) -> set[str]:
    """What a module with this source in this package imports: modules, and what is taken out of them."""
    found: set[str] = set()
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, ast.Import):
            found |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            above = package[: len(package) - item.level + 1] if item.level else ()
            origin = [*above, *([item.module] if item.module else [])]
            found |= {".".join([*origin, alias.name]) for alias in item.names}
    return found


def modules(room: str) -> list[Path]:
    return sorted((ROOT / "node" / room).rglob("*.py"))


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are tracked is not known")
    return [ROOT / name for name in listed.stdout.splitlines()]


def room_of(name: str) -> str:
    """The room or module of the ground that a full name below `node` belongs to; what `node` itself says is no room."""
    below = name.split(".")[1]
    return "" if below.startswith("__") else below


def upward(room: str, names: set[str]) -> set[str]:
    """Those of the names that a module of this room may not import."""
    allowed = {"", room} | GROUND | MAY_IMPORT[room]
    return {name for name in names if name.startswith("node.") and room_of(name) not in allowed}


def impure(names: set[str]) -> set[str]:
    """Those of the names that a protocol may not know."""
    wires = {name for name in names if name.split(".")[0] in FORBIDDEN_WHEN_PURE}
    engines = {name for name in names if re.match(r"node\.store\.(?!interface\b)", name)}
    return wires | engines


def test_every_room_stands_in_the_table() -> None:
    rooms = {path.parent.name for path in (ROOT / "node").glob("*/__init__.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_downwards(room: str) -> None:
    for path in modules(room):
        assert not upward(room, imports(path)), path.relative_to(ROOT)


@pytest.mark.parametrize("room", PURE)
def test_protocols_know_neither_wire_nor_engine_nor_clock(room: str) -> None:
    for path in modules(room):
        assert not impure(imports(path)), path.relative_to(ROOT)


@pytest.mark.parametrize(
    "source",
    [
        "import node.remote.pool",
        "from node import remote",
        "from node.remote import pool",
        "from .. import remote",
        "from ..simulation.loop import VirtualLoop",
        "def later():\n    from node.cli import serve",
    ],
)
def test_an_upward_import_is_seen_however_it_is_spelt(source: str) -> None:
    assert upward("chord", imported_by(source, ("node", "chord")))


@pytest.mark.parametrize(
    "source", ["import time", "from time import monotonic", "import socket as s", "from node.store import rocks"]
)
def test_a_wire_an_engine_or_a_clock_is_seen_however_it_is_spelt(source: str) -> None:
    assert impure(imported_by(source, ("node", "replication")))


def test_trust_knows_neither_wire_nor_engine() -> None:
    for path in modules("trust"):
        assert not {name for name in imports(path) if name.split(".")[0] in {"rpyc", "socket", "rocksdict"}}, path


def test_the_ground_knows_nobody() -> None:
    for name in GROUND:
        for imported in imports(ROOT / "node" / f"{name}.py"):
            if imported.startswith("node."):
                assert room_of(imported) in GROUND, f"{name} imports {imported}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-setup.lock"])
def test_locks_pin_by_hash_and_name_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pins = re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)
    assert pins
    for entry in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_what_is_pinned_is_what_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, groups in (("requirements.lock", []), ("requirements-dev.lock", ["deploy", "dev"])):
        wanted = project["dependencies"] + [pin for group in groups for pin in project["optional-dependencies"][group]]
        locked = (ROOT / lock).read_text()
        for pin in wanted:
            name_and_version = pin.split(";")[0].strip()
            assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", name_and_version), f"not pinned exactly: {pin}"
            assert re.search(rf"^{re.escape(name_and_version)}(?![\w.])", locked, re.MULTILINE), f"{pin} not in {lock}"


def test_both_locks_agree() -> None:
    pins = r"^([a-z0-9-]+==\S+)"
    run = re.findall(pins, (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert set(run) <= set(re.findall(pins, (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))


def test_operations_say_what_to_do_about_every_error() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    classes = re.findall(r"^class (\w+)", (ROOT / "node" / "errors.py").read_text(), re.MULTILINE)
    assert classes and not [name for name in classes if f"| `{name}` |" not in page]


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
