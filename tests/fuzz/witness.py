"""Watches a node from inside while it is attacked: `python -m tests.fuzz.witness PYTHON SCRIPT WORDS...`.

Runs the script with three tripwires, each of which writes a line that begins with TRIPPED to standard error:

* around each message that a connection takes: the code that handles it calls only itself, what reads and writes frames,
  and exposed methods; no built-in that reaches an attribute or runs something, and of RPyC nothing but its encoding;
* all the time, by Python's audit events: nothing is compiled, executed or unpickled, no process started, no file
  removed outside the data directory;
* at the end: modules and classes of the project hold what they held at the first message.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Any

from node.remote.connection import Connection
from node.remote.requests import Requests

ROOT = Path(__file__).resolve().parents[2]
REMOTE = str(ROOT / "node" / "remote") + os.sep
DISPATCH = {REMOTE + name for name in ("connection.py", "requests.py", "exposure.py")}
"""The files whose code handles what peers ask for."""
OWN = {
    REMOTE + f"{name}.py"
    for name in ("connection", "requests", "calls", "relay", "exposure", "plain", "translation", "wire", "framing")
}
OWN |= {str(ROOT / "node" / name) for name in ("errors.py", "codec.py")} | {__file__}
RPYC = ("brine.py", "compat.py")
REACHING = ("getattr", "setattr", "delattr", "hasattr", "eval", "exec", "compile", "open", "__import__", "vars", "dir",
            "globals", "locals", "breakpoint", "input")  # fmt: skip
AUDITED = frozenset(
    ["exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen",
     "pickle.find_class", "marshal.loads", "code.__new__", "ctypes.dlopen", "ctypes.dlsym", "shutil.rmtree",
     "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod"]
)  # fmt: skip


class Witness:
    """The tripwires of one process."""

    def __init__(self, data: str, say: Callable[[str], None]) -> None:
        """`data`: the directory of the node, which it may change; `say` writes a line."""
        self._data = data
        self._say = say
        self._seen: set[tuple[CodeType, CodeType]] = set()
        self._told: set[str] = set()
        self._before: dict[tuple[str, str], int] = {}
        self.armed = False

    def trip(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say(f"TRIPPED {what}\n")

    # -- calls -------------------------------------------------------------------------------------------------------

    def surround(self) -> None:
        """Watch every message that is taken, and every coroutine that is awaited for one."""
        take, answer_later = Connection.take, Requests._answer_later

        def watched(connection: Connection, payload: bytes) -> None:
            if not self.armed:
                self._before = self._held()
                self.armed = True
            sys.setprofile(self._profile)
            try:
                take(connection, payload)
            finally:
                sys.setprofile(None)

        def checked(requests: Requests, seq: int, work: Any) -> Any:
            if not isinstance(work, CoroutineType) or not (_is_exposed(work.cr_code) or _is_call(work.cr_code)):
                self.trip(f"{work!r} is awaited")
            return answer_later(requests, seq, work)

        Connection.take = watched  # type: ignore[method-assign]
        Requests._answer_later = checked  # type: ignore[method-assign]

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            caller = frame.f_back
            if caller is not None and (caller.f_code, frame.f_code) not in self._seen:
                self._seen.add((caller.f_code, frame.f_code))
                self._called(caller.f_code, frame.f_code)
        elif event == "c_call" and frame.f_code.co_filename in DISPATCH:
            if argument.__name__ in REACHING:
                self.trip(f"{frame.f_code.co_name} called {argument.__name__}")
            if frame.f_code.co_name == "_handle_call" and argument.__name__ != "isinstance":
                self.trip(f"a call went to the built-in {argument.__qualname__}")

    def _called(self, caller: CodeType, code: CodeType) -> None:
        file, name = code.co_filename, code.co_name
        if caller.co_filename in DISPATCH and file not in OWN:
            by_call = _is_exposed(code) and caller.co_name == "_handle_call"
            library = not file.startswith(str(ROOT)) or file.startswith(str(ROOT / ".venv"))
            if not (by_call or library):
                self.trip(f"{caller.co_name} called {name} of {file}")
        if f"{os.sep}rpyc{os.sep}" in file and not file.endswith(RPYC):
            self.trip(f"{name} of RPyC's {file} was run, by {caller.co_name}")

    # -- events and changes ------------------------------------------------------------------------------------------

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For `sys.addaudithook`."""
        if event not in AUDITED or not self.armed or _is_ours(sys._getframe(1)):
            return
        if not event.startswith("os.") or not str(arguments[0]).startswith(self._data):
            self.trip(f"{event} {repr(arguments)[:300]}")

    @staticmethod
    def _held() -> dict[tuple[str, str], int]:
        """What the modules and classes of the project hold, by name."""
        held = {}
        for name, module in list(sys.modules.items()):
            if name == "node" or name.startswith("node."):
                for key, value in list(vars(module).items()):
                    held[name, key] = id(value)
                    if isinstance(value, type) and value.__module__ == name:
                        held |= {(f"{name}.{key}", inner): id(each) for inner, each in vars(value).items()}
        return held

    def compare(self) -> None:
        """Trip where something holds something else than it did."""
        self.armed = False
        after = self._held()
        for where, value in self._before.items():
            if after.get(where) != value:
                self.trip(f"{'.'.join(where)} was changed")


def _is_exposed(code: CodeType) -> bool:
    return code.co_name.startswith("exposed_") and code.co_filename in (REMOTE + "service.py", REMOTE + "trusted.py")


def _is_call(code: CodeType) -> bool:
    """What the exposed method `call` returns where its answer has to be waited for."""
    return code.co_name == "_answer_later" and code.co_filename == REMOTE + "pool.py"


def _is_ours(frame: FrameType | None) -> bool:
    """Whether a module is being imported, or a decoder made for a kind of message: its annotations, text of our own
    files, are looked up then."""
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith("<frozen importlib") or (name == "_decoder" and file == str(ROOT / "node" / "codec.py")):
            return True
        frame = frame.f_back
    return False


def main() -> None:
    """Run a script under watch."""
    sys.argv = sys.argv[2:]
    witness = Witness(sys.argv[sys.argv.index("--data") + 1], _say)
    sys.addaudithook(witness.audit)
    witness.surround()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        witness.compare()


def _say(line: str) -> None:
    os.write(2, line.encode())


if __name__ == "__main__":
    main()
