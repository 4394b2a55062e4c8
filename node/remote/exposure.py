"""What of an object a peer may reach: its exposed methods, by name, and nothing else.

Replaces RPyC's attribute access altogether: no "safe" dunders, no references to anything but the object itself and its
exposed methods, no reference of the peer's ever followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rpyc.core import consts

from node.errors import BadValue

IdPack = tuple[str, int, int]
PREFIX = "exposed_"
DEPTH = 32
BY_REFERENCE = (
    "came as a reference to an object of the client: send bytes, str, int, float, bool, None or a tuple of these; "
    "lists and dicts go through node.Ring"
)


class Exposure:
    """An object's exposed methods and the names under which peers refer to it and to them."""

    def __init__(self, root: object) -> None:
        self._methods: dict[str, Callable[..., Any]] = {
            name.removeprefix(PREFIX): getattr(root, name) for name in dir(type(root)) if name.startswith(PREFIX)
        }
        self.root_pack: IdPack = ("node.remote.RingService", id(type(root)), id(root))
        self._packs = {("builtins.method", id(type(m)), id(m)): m for m in self._methods.values()}
        self._pack_of = {m: pack for pack, m in self._packs.items()}

    def described(self, pack: Any) -> tuple[tuple[str, str], ...]:
        """What INSPECT answers: the exposed methods of the root, nothing of anything else."""
        if _id_pack(pack) != self.root_pack:
            return ()
        return tuple((name, (method.__doc__ or "").partition("\n")[0]) for name, method in self._methods.items())

    def method(self, name: Any) -> Callable[..., Any]:
        """The exposed method of that name. Raises AttributeError as Python does."""
        if type(name) is str and name.removeprefix(PREFIX) in self._methods:
            return self._methods[name.removeprefix(PREFIX)]
        raise AttributeError(f"no exposed method {str(name)[:80]!r}: there are {', '.join(self._methods)}")

    def pack_of(self, method: Callable[..., Any]) -> IdPack:
        """How a peer refers to a method."""
        return self._pack_of[method]

    def is_root(self, package: Any) -> bool:
        """Whether a boxed object of the peer's is our root."""
        label, value = package
        return bool(label == consts.LABEL_LOCAL_REF and _id_pack(value) == self.root_pack)

    def referred(self, package: Any) -> Callable[..., Any]:
        """The exposed method that a boxed object of the peer's refers to. Raises AttributeError."""
        label, value = package
        method = self._packs.get(_id_pack(value)) if label == consts.LABEL_LOCAL_REF else None
        if method is None:
            raise AttributeError("only exposed methods can be called")
        return method


def _id_pack(value: Any) -> IdPack:
    if type(value) is tuple and len(value) == 3 and type(value[1]) is int and type(value[2]) is int:
        return (str(value[0]), value[1], value[2])
    return ("", 0, 0)


def plain(package: Any, depth: int = 0) -> Any:
    """A boxed argument as a plain value. Raises BadValue for a reference, which is never followed."""
    label, value = package
    if label == consts.LABEL_VALUE:
        return value
    if label == consts.LABEL_TUPLE and depth < DEPTH:
        return tuple(plain(item, depth + 1) for item in value)
    raise BadValue(f"an argument {BY_REFERENCE}")


def parts(package: Any, count: int, name: str) -> tuple[Any, ...]:
    """The boxed arguments of a request, `count` of them or fewer by one if the last is optional."""
    label, value = package
    if label == consts.LABEL_VALUE:
        value = tuple((consts.LABEL_VALUE, item) for item in value)
    if label not in (consts.LABEL_VALUE, consts.LABEL_TUPLE) or not count - 1 <= len(value) <= count:
        raise BadValue(f"{name} does not take these arguments")
    return tuple(value)
