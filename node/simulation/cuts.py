"""Which ways of a simulated network are cut: partitions, single directions, hosts without power or cable."""

from __future__ import annotations

from collections.abc import Iterable

from node.codec import Address


class Cuts:
    """Asked for every message, so it is quick while nothing is cut."""

    def __init__(self) -> None:
        self._group: dict[Address, int] = {}
        self._ways: set[tuple[Address, Address]] = set()
        self._isolated: set[Address] = set()
        self._any = False

    def severs(self, sender: Address, receiver: Address) -> bool:
        """True if nothing gets from `sender` to `receiver`. An address always reaches itself."""
        if not self._any or sender == receiver:
            return False
        return (
            self._group.get(sender) != self._group.get(receiver)
            or (sender, receiver) in self._ways
            or sender in self._isolated
            or receiver in self._isolated
        )

    def partition(self, groups: Iterable[Iterable[Address]]) -> None:
        """Groups reach only themselves; addresses in none of them are one more group."""
        self._group = {address: number for number, group in enumerate(groups) for address in group}
        self._changed()

    def cut(self, sender: Address, receiver: Address) -> None:
        """Cut one direction."""
        self._ways.add((sender, receiver))
        self._changed()

    def mend(self, sender: Address, receiver: Address) -> None:
        """Undo `cut`."""
        self._ways.discard((sender, receiver))
        self._changed()

    def isolate(self, address: Address) -> None:
        """Nothing gets there or away."""
        self._isolated.add(address)
        self._changed()

    def rejoin(self, address: Address) -> None:
        """Undo `isolate`."""
        self._isolated.discard(address)
        self._changed()

    def heal(self) -> None:
        """Undo partitions and single cuts."""
        self._group.clear()
        self._ways.clear()
        self._changed()

    def _changed(self) -> None:
        self._any = bool(self._group or self._ways or self._isolated)
