"""The members that live on one node, and what follows from their places on the ring. No calls, no state of its own."""

from __future__ import annotations

from node.chord.member import Member
from node.codec import Address, Contact
from node.errors import NotAMember
from node.identifiers import Identifier


class Residence:
    """A node's address and its members."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.members: dict[Identifier, Member] = {}

    def member(self, wanted: Identifier) -> Member:
        """The member of that id. Raises NotAMember if it does not live here."""
        try:
            return self.members[wanted]
        except KeyError:
            raise NotAMember(f"{wanted.hex[:8]}.. is not a member of {self.address}") from None

    @property
    def first(self) -> Member:
        """Any member, always the same. Raises NotAMember before there is one."""
        for member in self.members.values():
            return member
        raise NotAMember(f"{self.address} has not joined a ring yet: try again in a moment")

    def is_alone(self) -> bool:
        """No other node is in the ring."""
        return all(not self.others_after(member) for member in self.members.values())

    def others_after(self, member: Member) -> list[Contact]:
        """The successors of a member that live on other nodes, nearest first, one a node."""
        result: dict[Address, Contact] = {}
        for contact in member.state.successors:
            if contact.address != self.address:
                result.setdefault(contact.address, contact)
        return list(result.values())
