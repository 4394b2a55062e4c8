"""A ring as programs use it, in asyncio: `ring = await AsyncRing.connect("host:port"); await ring.get("k")`.

A chain ring is asked in one hop: the client knows the ring map and goes to the head or the tail of a key's chain.
Whatever fails is tried again until `timeout`; every write has a name, so that trying again does nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from node.chain.ring_map import RingMap
from node.chain.router import Router
from node.client import credentials
from node.client.atlas import Atlas
from node.client.manifests import RESERVED
from node.client.session import ConnInfo, Session
from node.client.watching import Watch
from node.codec import Address, parse_address, unpack
from node.data import Operations, Version
from node.errors import BadUsage, BadValue, NotAMember, RingError, Unavailable
from node.remote.line import Lines
from node.remote.pool import Pool
from node.replication.messages import HELLO, Hello
from node.settings import Settings
from node.values import SYSTEM, key_of, pack_value, readable, unpack_value

if TYPE_CHECKING:  # imported when it is used
    from node.client.files import AsyncFiles
    from node.trust.contexts import Credentials

log = logging.getLogger(__name__)

LEAVE = 30.0
LOOK = 3600.0
"""Seconds between two looks at whether the certificate is to be renewed."""
TIMEOUT = 10.0
"""Seconds an operation takes at most, retries included, unless said otherwise."""
WATCHES = 128
"""Watches that share connections: what they ask waits at the nodes until there is something to tell, and of each
connection a node works on `max_in_flight` questions at a time."""
Key = str | bytes | int
"""`1` and `"1"` are one key."""
K = TypeVar("K", str, bytes, int)


class _Closed:
    """Stands where the operations of a ring that was closed were."""

    def __getattr__(self, name: str) -> Any:
        raise BadUsage("this ring was closed: connect again")


_CLOSED: Any = _Closed()


class AsyncRing:
    """One ring. Use it in the loop it was connected in; any number of operations at a time."""

    def __init__(
        self,
        name: bytes,
        operations: Operations,
        atlas: Atlas | None,
        session: Session,
        pool: Pool,
        settings: Settings,
        lines: Lines | None = None,
    ) -> None:
        """Made by `connect`. `atlas`: the map, of a chain ring. `lines`: where threads may begin operations."""
        self.id = name.hex()
        """Of the ring: another one has another."""
        self._operations = operations
        self._atlas = atlas
        self._session = session
        self._pool = pool
        self._settings = settings
        self._lines = lines
        self._watching: list[tuple[Pool, list[Watch]]] = [(pool, [])]
        self._certified: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, *nodes: str | Address, timeout: float = TIMEOUT, profile: str = "local") -> AsyncRing:
        """The ring that these nodes are in, the first of which that answers is used; "localhost" if there are none.

        A user who has logged in (`ring login`) shows a certificate, see `node.client.credentials.tls`.
        `timeout`: seconds an operation on keys may take, retries included; what asks about the ring itself may take
        three times as long. Raises Unreachable if no node answers, NotARing if what answers is none, BadUsage for what
        is no address.
        """
        settings = replace(Settings.profile(profile), operation=timeout)
        seeds = [node if isinstance(node, Address) else parse_address(node) for node in nodes or ("localhost",)]
        shown = await credentials.of(settings, seeds)
        tls = None if shown is None else credentials.context(shown)
        pool = Pool(settings, random.Random(), tls=tls)
        try:
            hello = await _first_hello(seeds, pool, settings)
        except BaseException:
            await pool.close()
            raise
        session_with = partial(Session, seeds, replace(settings, operation=timeout / 2), tls)
        if unpack(RingMap, hello.record.value).policy.consistency == "eventual":
            from node.eventual.guest import Guest

            guest = Guest(seeds, pool, settings)
            ring = cls(hello.ring, guest, None, session_with(lambda: guest.nodes), pool, settings)
        else:
            atlas = Atlas(hello.record, seeds, pool, settings)
            lines = Lines(pool, settings, tls)
            router = Router(atlas, lines, settings, random.Random(), now=time.monotonic)
            ring = cls(hello.ring, router, atlas, session_with(lambda: atlas.nodes), pool, settings, lines)
        if shown is not None:
            ring._certified = asyncio.create_task(ring._keep_certified(seeds, shown))
        return ring

    async def _keep_certified(self, nodes: list[Address], shown: Credentials) -> None:
        """Show a certificate that is good, for ever: it is renewed here, or by another program of this user."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                found = await credentials.of(self._settings, nodes, held=shown)
            except (RingError, OSError) as error:
                log.warning("the certificate is not looked after: %s", error)
                continue
            if found is not None and found != shown:
                shown, tls = found, credentials.context(found)
                self._session.show(tls)
                for pool, _ in self._watching:
                    pool.show(tls, self._settings.operation)
                if self._lines is not None:
                    self._lines.show(tls)

    async def __aenter__(self) -> AsyncRing:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; operations under way fail, later ones raise BadUsage."""
        if self._certified is not None:
            self._certified.cancel()
        self._session.close()
        self._operations = _CLOSED
        if self._lines is not None:
            self._lines.close()
        for pool, _ in self._watching:
            await pool.close()

    @property
    def may_begin_on_threads(self) -> bool:
        """Whether operations on one key can be begun without the loop, see `Background.begin`."""
        return self._lines is not None

    # -- one key -----------------------------------------------------------------------------------------------------

    async def get(self, key: Key, default: Any = None) -> Any:
        """The value of a key, or `default`. Raises Unavailable, NoQuorum."""
        stored = await self._operations.get(key_of(key, self._settings))
        return default if stored is None else unpack_value(stored.value)

    async def get_versioned(self, key: Key) -> tuple[Any, Version] | None:
        """The value and version of a key, None if it has none. Raises as `get` does."""
        stored = await self._operations.get(key_of(key, self._settings))
        return None if stored is None else (unpack_value(stored.value), stored.version)

    async def put(self, key: Key, value: Any, *, ttl: float | None = None) -> Version:
        """Store a value, with `ttl` for so many seconds by the clocks of the nodes; its version.

        Raises BadValue, Unavailable, NoQuorum, StoreFull, and OutcomeUnknown if it may or may not be stored.
        """
        return await self._operations.put(*self._pair(key, value), _expiry(ttl))

    async def put_if(self, key: Key, value: Any, version: Version | None, *, ttl: float | None = None) -> Version:
        """Store a value only if the key has this version, None: only if it is absent. Raises VersionConflict, and as
        `put` does."""
        return await self._operations.put_if(*self._pair(key, value), version, _expiry(ttl))

    async def delete(self, key: Key) -> bool:
        """Remove a key; whether it was there. Raises as `put` does."""
        return await self._operations.delete(key_of(key, self._settings))

    async def increment(self, key: Key, amount: int | float = 1) -> int | float:
        """Add to a number, 0 if the key is absent; what it came to. Raises BadValue if it is no number, and as `put`
        does."""
        if type(amount) not in (int, float):
            raise BadValue(f"an amount is an int or a float, not {amount!r}")
        packed, _ = await self._operations.increment(key_of(key, self._settings), amount)
        total: int | float = unpack_value(packed)
        return total

    # -- many keys ---------------------------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values of those of the keys that have one. Raises as `get` does."""
        settings = self._settings
        wanted = {key: key_of(key, settings) for key in keys}
        found = await self._operations.get_many(wanted.values())
        return {key: unpack_value(stored.value) for key, name in wanted.items() if (stored := found[name]) is not None}

    async def put_many(self, pairs: Mapping[K, Any], *, ttl: float | None = None) -> None:
        """Store many values, each for itself: not all at one moment. Raises as `put` does; the error says how many are
        stored."""
        settings = self._settings
        packed = [(key_of(key, settings), pack_value(value, settings)) for key, value in pairs.items()]
        await self._operations.put_many(packed, _expiry(ttl))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove keys; how many were there. Raises as `put_many` does."""
        return await self._operations.delete_many(key_of(key, self._settings) for key in keys)

    # -- all keys ----------------------------------------------------------------------------------------------------

    async def items(
        self, prefix: str | bytes = b"", *, reserved: bool = False
    ) -> AsyncIterator[tuple[str | bytes, Any]]:
        """All keys that begin with `prefix`, and their values, in the order of the ring; each as of the moment it is
        read. A key that is not UTF-8 comes as bytes. `reserved`: also what files are made of. Raises as `get` does."""
        async for page in self.item_pages(prefix, reserved=reserved):
            for pair in page:
                yield pair

    async def item_pages(
        self, prefix: str | bytes = b"", *, reserved: bool = False
    ) -> AsyncIterator[list[tuple[str | bytes, Any]]]:
        """What `items` yields, as many at a time as one answer holds."""
        async for records in self._operations.scan(key_of(prefix, self._settings)):
            shown = [(key, stored) for key, stored in records if _is_shown(key, reserved)]
            yield [(readable(key), unpack_value(stored.value)) for key, stored in shown]

    async def keys(self, prefix: str | bytes = b"", *, reserved: bool = False) -> AsyncIterator[str | bytes]:
        """All keys that begin with `prefix`, as `items`."""
        async for page in self.key_pages(prefix, reserved=reserved):
            for key in page:
                yield key

    async def key_pages(self, prefix: str | bytes = b"", *, reserved: bool = False) -> AsyncIterator[list[str | bytes]]:
        """What `keys` yields, as many at a time as one answer holds."""
        async for records in self._operations.scan(key_of(prefix, self._settings), keys_only=True):
            yield [readable(key) for key, _ in records if _is_shown(key, reserved)]

    async def watch(self, key: str | bytes | int, *, prefix: bool = False) -> Watch:
        """`async for event in await ring.watch("key")`: every change of a key from now on, or of all it is a prefix of.

        Each version once and the versions of a key in order, over failures of nodes too. Close it in the end.

        Raises BadUsage in an eventual ring, and as `get` does.
        """
        if self._atlas is None or not isinstance(self._operations, Router):
            raise BadUsage(
                "watching needs a ring with --consistency chain: in an eventual one there is no order to tell"
            )
        name = key_of(key, self._settings)
        pool, watches = self._room_for_a_watch()
        watch = Watch(name, not prefix, self._atlas, self._operations, pool, self._settings)
        watches.append(watch)
        try:
            return await watch.start()
        except BaseException:
            watches.remove(watch)
            raise

    def _room_for_a_watch(self) -> tuple[Pool, list[Watch]]:
        """Connections that few enough watches share, and which these are."""
        for pool, watches in self._watching:
            if len(watches) >= WATCHES:
                watches[:] = [watch for watch in watches if not watch.ended]
            if len(watches) < WATCHES:
                return pool, watches
        self._watching.append((self._pool.another(), []))
        return self._watching[-1]

    async def count(self) -> int:
        """How many keys the ring holds. Those that files are made of count too, and the few of the ring itself: nodes
        count without looking at keys. Raises as `get` does."""
        return await self._operations.count()

    @property
    def files(self) -> AsyncFiles:
        """The files of the ring."""
        from node.client.files import AsyncFiles

        return AsyncFiles(self._operations, self._settings, conditional=self._atlas is not None)

    # -- the ring ----------------------------------------------------------------------------------------------------

    async def replicas(self, key: Key) -> tuple[tuple[str, int, str], ...]:
        """((ip, port, role), ...) of the nodes that hold a key, the head first."""
        found: tuple[tuple[str, int, str], ...] = await self._session.ask("replicas", key_of(key, self._settings))
        return found

    async def overlay(self) -> tuple[ConnInfo, ...]:
        """((ip, port, id, neighbour id), ...) of all members, from the smallest id on."""
        return await self._session.get_conn_info()

    async def lookup(self, key: Key) -> tuple[tuple[str, int, str], ...]:
        """The way of a cold look-up: ((ip, port, id), ...) from the node asked to the owner of the key."""
        found: tuple[tuple[str, int, str], ...] = await self._session.ask("lookup_path", key_of(key, self._settings))
        return found

    async def health(self) -> dict[Address, dict[str, Any] | None]:
        """What every node says of itself, see `RingService.exposed_health`; None for one that does not answer, be it
        that others do without it already."""
        nodes = dict.fromkeys(Address(ip, port) for ip, port, _, _ in await self.overlay())
        if self._atlas is not None:
            await self._atlas.current()
            nodes |= dict.fromkeys(resident.address for resident in self._atlas.ring.residents)
        return dict(zip(nodes, await asyncio.gather(*map(self._health_of, nodes)), strict=True))

    async def _health_of(self, node: Address) -> dict[str, Any] | None:
        session = self._session.beside(node)
        try:
            async with asyncio.timeout(self._settings.call):
                return dict(await session.ask("health"))
        except (RingError, TimeoutError):
            return None
        finally:
            session.close()

    async def join(self, node: str | Address) -> tuple[str, int, str]:
        """Take a node that is a ring of its own, without keys, into this ring; its (ip, port, id). Raises WrongRing."""
        address = parse_address(node) if isinstance(node, str) else node
        joined: tuple[str, int, str] = await self._session.do("connect", address.host, address.port)
        return joined

    async def depart(self, node: str | Address) -> None:
        """Have a node give all it holds to others and end; return once it does not answer any more. Raises Unreachable,
        and Unavailable if it is still there after `timeout` and half a minute."""
        address = parse_address(node) if isinstance(node, str) else node
        session = self._session.beside(address)
        try:
            await session.do("depart")
            deadline = asyncio.get_running_loop().time() + self._settings.operation + LEAVE
            while not session.ended:
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable(f"{address} has not left yet: look at its log")
                await asyncio.sleep(self._settings.backoff)
        finally:
            session.close()

    async def verify(self) -> tuple[tuple[str, str, int, tuple[tuple[str, int], ...], str], ...]:
        """((start, end, keys, ((ip, port), ...), problem), ...) of every arc, its replicas compared."""
        found: tuple[tuple[str, str, int, tuple[tuple[str, int], ...], str], ...] = await self._session.ask("verify")
        return found

    def _pair(self, key: Key, value: Any) -> tuple[bytes, bytes]:
        return key_of(key, self._settings), pack_value(value, self._settings)


async def _first_hello(seeds: list[Address], pool: Pool, settings: Settings) -> Hello:
    """The greeting of the first node that is in a ring. Raises what the last one raised."""
    failure: RingError | None = None
    for seed in seeds:
        try:
            hello = await HELLO.ask(pool, seed, None, deadline=settings.call)
            if hello.serving:
                return hello
            failure = NotAMember(f"{seed} has not joined a ring yet: try again in a moment")
        except RingError as error:
            failure = error
    assert failure is not None
    raise failure


def _is_shown(key: bytes, reserved: bool) -> bool:
    """Whether a key is one of those that people and programs ask for."""
    return not key.startswith(SYSTEM) and (reserved or not key.startswith(RESERVED))


def _expiry(ttl: float | None) -> int:
    """Milliseconds since 1970, 0 for never. Raises BadValue unless it lies ahead."""
    if ttl is None:
        return 0
    if type(ttl) not in (int, float) or not 0 < ttl < 1e11:
        raise BadValue(f"ttl is a number of seconds above 0, not {ttl!r}")
    return int(1000 * (time.time() + ttl)) + 1
