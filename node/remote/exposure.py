"""What of an object a peer may reach: its exposed methods, by name, and nothing else.

Replaces RPyC's attribute access altogether: no "safe" dunders, no references to anything but the object itself and its
exposed methods, no address of anything in the process told. A reference is never followed, and none is counted: the
table is made once and is the same for every connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.errors import shown

IdPack = tuple[str, int, int]
PREFIX = "exposed_"
ROOT: IdPack = ("rpychord.Node", 1, 1)
METHOD_TYPE = "builtins.method"
"""What a stock client knows how to call without asking further."""


@dataclass(frozen=True, slots=True, eq=False)
class Exposed:
    """The root object (no method) or one of its methods, and the name under which peers refer to it."""

    pack: IdPack
    name: str
    method: Callable[..., Any] | None = None


class Exposure:
    """An object's exposed methods and the names under which peers refer to it and to them."""

    def __init__(self, root: object | None) -> None:
        names = [] if root is None else [name for name in dir(type(root)) if name.startswith(PREFIX)]
        methods = {name.removeprefix(PREFIX): getattr(root, name) for name in names}
        self.root = Exposed(ROOT, "root")
        self._by_name = {
            name: Exposed((METHOD_TYPE, 2, number), name, method)
            for number, (name, method) in enumerate(methods.items(), start=1)
            if callable(method)
        }
        self._by_name.update({PREFIX + name: exposed for name, exposed in self._by_name.items()})
        self._by_pack = {exposed.pack: exposed for exposed in (self.root, *self._by_name.values())}

    def referred(self, pack: Any) -> Exposed:
        """What a peer's reference refers to. Raises AttributeError for a reference that we never gave."""
        found = self._by_pack.get(pack) if type(pack) is tuple else None
        if found is None:
            raise AttributeError("only the root object and its exposed methods can be referred to")
        return found

    def method(self, target: Any, name: Any) -> Exposed:
        """The exposed method of that name, if `target` is the root. Raises AttributeError as Python does."""
        if target is not self.root:
            raise AttributeError(f"cannot access {shown(name)}: only the root object has exposed methods")
        found = self._by_name.get(name) if type(name) is str else None
        if found is None:
            raise AttributeError(f"no exposed method {shown(name)}: there are {', '.join(self._names())}")
        return found

    def described(self, pack: Any) -> tuple[tuple[str, str], ...]:
        """What INSPECT answers: the exposed methods of the root. Raises AttributeError for anything else."""
        if self.referred(pack) is not self.root:
            raise AttributeError("only the root object can be inspected")
        return tuple((name, self._by_name[name].method.__doc__ or "") for name in self._names())

    def _names(self) -> list[str]:
        return [name for name in self._by_name if not name.startswith(PREFIX)]
