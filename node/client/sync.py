"""A ring as programs use it without asyncio: `ring = Ring.connect("host:port"); ring["k"] = 1`.

The same code as `AsyncRing`, on one loop a process; a Ring may be used from many threads at a time.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from node.client.background import background
from node.client.ring import TIMEOUT, AsyncRing, K, Key
from node.client.session import ConnInfo
from node.client.watching import Event, Watch
from node.codec import Address
from node.data import Version

if TYPE_CHECKING:  # imported when it is used
    from node.client.sync_files import Files

T = TypeVar("T")


class Ring:
    """One ring. See `AsyncRing` for what the methods mean and raise."""

    def __init__(self, ring: AsyncRing) -> None:
        """Made by `connect`."""
        self._ring = ring
        self._run = background().run
        self._begin = background().begin if ring.may_begin_on_threads else self._run

    @classmethod
    def connect(cls, *nodes: str | Address, timeout: float = TIMEOUT, profile: str = "local") -> Ring:
        """The ring that these nodes are in; "localhost" if there are none. Raises as `AsyncRing.connect` does."""
        return cls(background().run(AsyncRing.connect(*nodes, timeout=timeout, profile=profile)))

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        self._run(self._ring.close())

    # -- as a mapping ------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Key) -> Any:
        """Raises KeyError if the key is absent, and as `get` does."""
        found = self.get_versioned(key)
        if found is None:
            raise KeyError(key)
        return found[0]

    def __setitem__(self, key: Key, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Key) -> None:
        """Raises KeyError if the key is absent, and as `delete` does."""
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: Key) -> bool:
        return self.get_versioned(key) is not None

    def __iter__(self) -> Iterator[str | bytes]:
        return self.keys()

    # -- one key -----------------------------------------------------------------------------------------------------

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return self._begin(self._ring.get(key, default))

    def get_versioned(self, key: Key) -> tuple[Any, Version] | None:
        """The value and version of a key, None if it has none."""
        return self._begin(self._ring.get_versioned(key))

    def put(self, key: Key, value: Any, *, ttl: float | None = None) -> Version:
        """Store a value, with `ttl` for so many seconds; its version."""
        return self._begin(self._ring.put(key, value, ttl=ttl))

    def put_if(self, key: Key, value: Any, version: Version | None, *, ttl: float | None = None) -> Version:
        """Store a value only if the key has this version, None: only if it is absent."""
        return self._begin(self._ring.put_if(key, value, version, ttl=ttl))

    def delete(self, key: Key) -> bool:
        """Remove a key; whether it was there."""
        return self._begin(self._ring.delete(key))

    def increment(self, key: Key, amount: int | float = 1) -> int | float:
        """Add to a number, 0 if the key is absent; what it came to."""
        return self._begin(self._ring.increment(key, amount))

    # -- many keys ---------------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values of those of the keys that have one."""
        return self._run(self._ring.get_many(keys))

    def put_many(self, pairs: Mapping[K, Any], *, ttl: float | None = None) -> None:
        """Store many values, each for itself."""
        self._run(self._ring.put_many(pairs, ttl=ttl))

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove keys; how many were there."""
        return self._run(self._ring.delete_many(keys))

    # -- all keys ----------------------------------------------------------------------------------------------------

    def items(self, prefix: str | bytes = b"", *, reserved: bool = False) -> Iterator[tuple[str | bytes, Any]]:
        """All keys that begin with `prefix`, and their values."""
        return self._stream(self._ring.item_pages(prefix, reserved=reserved))

    def keys(self, prefix: str | bytes = b"", *, reserved: bool = False) -> Iterator[str | bytes]:
        """All keys that begin with `prefix`."""
        return self._stream(self._ring.key_pages(prefix, reserved=reserved))

    def watch(self, key: Key, callback: Callable[[Event], object], *, prefix: bool = False) -> Watching:
        """Have `callback` called with every change of a key from now on, or of all that begin with it: each version
        once, those of a key in order. It runs on a thread of its own and may use the ring; what it raises ends the
        watch and comes out of `close`."""
        return Watching(self._run(self._ring.watch(key, prefix=prefix)), callback)

    def count(self) -> int:
        """How many keys the ring holds, those that files are made of too."""
        return self._run(self._ring.count())

    @property
    def files(self) -> Files:
        """The files of the ring."""
        from node.client.sync_files import Files

        return Files(self._ring.files, self._run)

    def _stream(self, pages: AsyncIterator[list[T]]) -> Iterator[T]:
        """One page at a time, so that the loop is asked seldom."""

        async def following() -> list[T] | None:
            return await anext(pages, None)

        while (page := self._run(following())) is not None:
            yield from page

    # -- the ring ----------------------------------------------------------------------------------------------------

    def replicas(self, key: Key) -> tuple[tuple[str, int, str], ...]:
        """((ip, port, role), ...) of the nodes that hold a key, the head first."""
        return self._run(self._ring.replicas(key))

    def overlay(self) -> tuple[ConnInfo, ...]:
        """((ip, port, id, neighbour id), ...) of all members, from the smallest id on."""
        return self._run(self._ring.overlay())

    def lookup(self, key: Key) -> tuple[tuple[str, int, str], ...]:
        """The way of a cold look-up: ((ip, port, id), ...) from the node asked to the owner of the key."""
        return self._run(self._ring.lookup(key))

    def health(self) -> dict[Address, dict[str, Any] | None]:
        """What every node says of itself; None for one that does not answer."""
        return self._run(self._ring.health())

    def join(self, node: str | Address) -> tuple[str, int, str]:
        """Take a node that is a ring of its own, without keys, into this ring; its (ip, port, id)."""
        return self._run(self._ring.join(node))

    def depart(self, node: str | Address) -> None:
        """Have a node give all it holds to others and end; return once it has."""
        self._run(self._ring.depart(node))

    def verify(self) -> tuple[tuple[str, str, int, tuple[tuple[str, int], ...], str], ...]:
        """((start, end, keys, ((ip, port), ...), problem), ...) of every arc, its replicas compared."""
        return self._run(self._ring.verify())


class Watching:
    """A watch under way; `with` closes it."""

    def __init__(self, watch: Watch, callback: Callable[[Event], object]) -> None:
        """Made by `Ring.watch`."""
        self._watch = watch
        self._callback = callback
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more; the callback is not called any more when this returns. Raises what it raised."""

        async def end() -> None:
            self._closed = True
            self._watch.close()

        background().run(end())
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _follow(self) -> None:
        try:
            while events := background().run(self._watch.batch()):
                for event in events:
                    if self._closed:
                        return
                    self._callback(event)
        except BaseException as error:  # noqa: BLE001 - it comes out of `close`
            self._failure = error
