"""What a plain `rpyc.connect(host, port).root` can do: the exposed methods of a node, and nothing else.

Arguments and results are plain values. The methods translate between people's values and the ring's, and number nodes
0..n-1 clockwise from the smallest id; everything else happens below.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from node.chord import messages as chord
from node.chord.fingers import FingerTable
from node.codec import Address
from node.data import Operations, Version
from node.errors import BadUsage, BadValue, RingError, Unavailable, shown
from node.eventual.commons import Commons
from node.identifiers import BITS, Arc, Identifier
from node.remote.pool import answer
from node.replication.node import RingNode
from node.values import DEPTH, key_of, pack_value, unpack_value

ConnInfo = tuple[str, int, str, str]


class RingService:
    """The remote object that a node is. One for all connections; it keeps nothing of any of them."""

    def __init__(self, node: RingNode, depart: Callable[[], None]) -> None:
        """`depart`: makes the process hand over and end, soon."""
        self._node = node
        self._depart = depart

    # -- keys and values -----------------------------------------------------------------------------------------

    async def exposed_put(self, key: Any, value: Any) -> Version:
        """Store a value under a key; the version it got, two integers that grow with every write of the key.

        Raises BadValue, NoQuorum, Unavailable, StoreFull, and OutcomeUnknown if it may or may not have been written.
        """
        settings = self._node.settings
        return await self._operations.put(key_of(key, settings), pack_value(value, settings))

    async def exposed_put_if(self, key: Any, value: Any, version: Any) -> Version:
        """Store it only if the key has this version, None: only if it is absent; the new version.

        Raises VersionConflict if it has another one, and as `put` does.
        """
        settings = self._node.settings
        return await self._operations.put_if(key_of(key, settings), pack_value(value, settings), _version(version))

    async def exposed_get(self, key: Any) -> Any:
        """The value of a key, None if it has none. A list comes as a tuple, a dict as a tuple of pairs."""
        stored = await self._operations.get(key_of(key, self._node.settings))
        return None if stored is None else _plain(unpack_value(stored.value))

    async def exposed_get_versioned(self, key: Any) -> Any:
        """(value, version) of a key, None if it has none."""
        stored = await self._operations.get(key_of(key, self._node.settings))
        return None if stored is None else (_plain(unpack_value(stored.value)), stored.version)

    async def exposed_delete(self, key: Any) -> bool:
        """Remove a key; True if it was there."""
        return await self._operations.delete(key_of(key, self._node.settings))

    async def exposed_replicas(self, key: Any) -> tuple[tuple[str, int, str], ...]:
        """((ip, port, role), ...) of the nodes that hold a key; in a chain the head first and the tail last."""
        found = await self._node.data.replicas(key_of(key, self._node.settings))
        return tuple((address.host, address.port, role) for address, role in found)

    async def exposed_verify(self) -> tuple[tuple[str, str, int, tuple[tuple[str, int], ...], str], ...]:
        """((start, end, keys, ((ip, port), ...), problem), ...) of every arc, its replicas compared by a digest of all
        they hold; `problem` is empty where they are whole and agree."""
        return tuple(
            (v.arc.start.hex, v.arc.end.hex, v.keys, tuple((a.host, a.port) for a in v.replicas), v.problem)
            for v in await self._node.data.verify()
        )

    async def exposed_get_siblings(self, key: Any) -> tuple[tuple[Any, Version], ...]:
        """((value, version), ...) of all values of a key that stand side by side, the newest first.

        Raises BadUsage unless the ring is an eventual one.
        """
        found = await self._commons.get_all(key_of(key, self._node.settings))
        return tuple((_plain(unpack_value(stored.value)), stored.version) for stored in found)

    async def exposed_put_over(self, key: Any, value: Any, versions: Any) -> Version:
        """Store a value in place of these versions of a key and all that they had replaced; its version.

        Raises BadUsage unless the ring is an eventual one.
        """
        if type(versions) is not tuple:
            raise BadValue(f"versions are a tuple of those that get_siblings returned, not {shown(versions)}")
        over = tuple(version for each in versions if (version := _version(each)) is not None)
        settings = self._node.settings
        return await self._commons.put_over(key_of(key, settings), pack_value(value, settings), over)

    @property
    def _commons(self) -> Commons:
        data = self._node.data
        if not isinstance(data, Commons):
            raise BadUsage("values stand side by side only in a ring with --consistency eventual")
        return data

    @property
    def _operations(self) -> Operations:
        return self._node.data.operations

    # -- the ring ------------------------------------------------------------------------------------------------

    async def exposed_lookup(self, key: Any) -> tuple[str, int, str, int]:
        """(ip, port, id, hops) of the member that owns a key, looked up cold through fingers."""
        point = Identifier.of_key(key_of(key, self._node.settings))
        found = await self._node.household.find_successor(point)
        host, port = found.owner.address.host, found.owner.address.port
        return host, port, found.owner.id.hex, found.hops(self._node.residence.first.me)

    async def exposed_lookup_path(self, key: Any) -> tuple[tuple[str, int, str], ...]:
        """((ip, port, id), ...) of the members that a cold look-up asked, this one first, the owner of the key last."""
        found = await self._node.household.find_successor(Identifier.of_key(key_of(key, self._node.settings)))
        way = {c.id: c for c in (self._node.residence.first.me, *found.path, found.owner)}
        way[found.owner.id] = way.pop(found.owner.id)
        return tuple((contact.address.host, contact.address.port, contact.id.hex) for contact in way.values())

    async def exposed_health(self) -> tuple[tuple[str, Any], ...]:
        """((name, value), ...): `serving`, `version`, `address`, `consistency`, `replicas`, `uptime` in seconds,
        `keepers`, how many nodes keep the ring map, and
        `straight` and `astray`, the operations on keys that this node was the right one for and those it was not."""
        return self._node.health()

    async def exposed_get_conn_info(self) -> tuple[ConnInfo, ...]:
        """((ip, port, id, neighbour id), ...) of all members that answer, numbered as they stand."""
        views = await self._node.household.census()
        following = [*views[1:], views[0]]
        return tuple(
            (view.me.address.host, view.me.address.port, view.me.id.hex, after.me.id.hex)
            for view, after in zip(views, following, strict=True)
        )

    async def exposed_get_node(self, number: Any, attribute: Any) -> Any:
        """One attribute of the member of that number. Raises BadValue for a number there is not, or a name."""
        if type(attribute) is not str or attribute not in (*OF_THE_RING, *ATTRIBUTES):
            raise BadValue(f"no attribute {shown(attribute)}: ask for one of {', '.join((*OF_THE_RING, *ATTRIBUTES))}")
        views = await self._node.household.census()
        if type(number) is not int or not 0 <= number < len(views):
            raise BadValue(f"no node {shown(number)}: nodes are numbered 0 to {len(views) - 1}")
        me = views[number].me
        if attribute == "number":
            return number
        if attribute == "max":
            return len(views) - 1
        if attribute == "keys":
            return await self._operations.count(Arc(views[number - 1].me.id, me.id))
        report = await self._node.neighbours.ask(chord.REPORT, me, chord.ToMember(me.id))
        return ATTRIBUTES[attribute](report)

    async def exposed_connect(self, ip: Any, port: Any) -> tuple[str, int, str]:
        """Admit the node at that address, which is a ring of its own, right after this one; its (ip, port, id)."""
        contact = await self._node.admit(Address(_text(ip, "ip"), _port(port)))
        return contact.address.host, contact.address.port, contact.id.hex

    async def exposed_depart(self) -> bool:
        """Hand everything over to other nodes and end, as after SIGTERM; returns at once."""
        self._depart()
        return True

    async def exposed_update_numbers(self) -> bool:
        """Number all members anew; done when each knows its number."""
        await self._within_operation(self._node.household.update_numbers)
        return True

    async def exposed_update_finger_table(self) -> bool:
        """Have all members look up all their fingers; done when each has."""
        await self._within_operation(self._node.household.update_finger_table)
        return True

    async def exposed_force_repair(self, confirm: Any = "") -> tuple[Any, ...]:
        """Go on without most keepers of the ring map, which are lost for good: nothing is done until it is confirmed.

        (token, ((ip, port), ...), ((start, end, keys, ((ip, port), ...), problem), ...)): the nodes that would be given
        up, and what is left of each arc and where; `problem` says what may be lost. Called again with that token it is
        done. Raises BadUsage if nothing is to be repaired, or if there is something else to confirm by now.
        """
        repair = self._node.repair
        found = await (repair.carry_out(_text(confirm, "the token")) if confirm else repair.prospect())
        arcs = tuple(
            (each.arc.start.hex, each.arc.end.hex, keys, tuple((a.host, a.port) for a in where), each.problem)
            for each, where, keys in found.arcs
        )
        return found.token, tuple((address.host, address.port) for address in found.lost), arcs

    async def _within_operation(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, once more if a member vanished meanwhile, within the deadline of an operation."""
        try:
            async with asyncio.timeout(self._node.settings.operation):
                while True:
                    try:
                        await work()
                        return
                    except RingError:
                        await asyncio.sleep(self._node.settings.stabilize_period)
        except TimeoutError:
            raise Unavailable("the ring is changing: not every member answered in time, try again") from None

    # -- nodes among themselves ----------------------------------------------------------------------------------

    def exposed_call(self, method: Any, payload: Any) -> bytes | Awaitable[bytes]:
        """What another node asks; see `node.remote.pool`."""
        return answer(self._node.receive, method, payload, self._node.receive.at_once)


def _text(value: Any, name: str) -> str:
    if type(value) is not str or not 0 < len(value) < 256:
        raise BadValue(f"{name} is a text such as '127.0.0.1', not {shown(value)}")
    return value


def _port(value: Any) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise BadValue(f"a port is an integer from 1 to 65535, not {shown(value)}")
    return value


def _version(value: Any) -> Version | None:
    if value is None:
        return None
    if type(value) is tuple and len(value) == 2 and all(type(part) is int for part in value):
        return value
    raise BadValue(f"a version is two integers as put returns them, or None, not {shown(value)}")


def _plain(value: Any, room: int = DEPTH) -> Any:
    """As a plain client can get it: RPyC passes tuples by value and lists and dicts by reference."""
    if type(value) not in (list, tuple, dict):
        return value
    if not room:
        raise BadValue(f"the value is nested more than {DEPTH} deep: it cannot be sent")
    if type(value) is not dict:
        return tuple(_plain(item, room - 1) for item in value)
    return tuple((_plain(name, room - 1), _plain(item, room - 1)) for name, item in value.items())


def _fingers(report: chord.MemberReport) -> tuple[tuple[str, str, str, int], ...]:
    table = FingerTable(report.me, report.fingers.runs)
    fingers = ((report.me.id.finger_start(i), table.finger(i)) for i in range(BITS))
    return tuple((start.hex, f.id.hex, f.address.host, f.address.port) for start, f in fingers)


ATTRIBUTES: dict[str, Callable[[chord.MemberReport], Any]] = {
    "node_ip": lambda report: report.me.address.host,
    "node_port": lambda report: report.me.address.port,
    "node_id": lambda report: report.me.id.hex,
    "neighbour_ip": lambda report: report.neighbour.address.host,
    "neighbour_port": lambda report: report.neighbour.address.port,
    "neighbour_id": lambda report: report.neighbour.id.hex,
    "predecessor_ip": lambda report: report.predecessor and report.predecessor.address.host,
    "predecessor_port": lambda report: report.predecessor and report.predecessor.address.port,
    "predecessor_id": lambda report: report.predecessor and report.predecessor.id.hex,
    "successors": lambda report: tuple((s.address.host, s.address.port, s.id.hex) for s in report.successors),
    "finger_table": _fingers,
}
"""What a member reports of itself."""

OF_THE_RING = ("number", "max", "keys")
"""What takes a look at the whole ring: its number, the highest number, how many keys its arc holds."""
