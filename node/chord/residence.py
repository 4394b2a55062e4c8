"""The members that live on one node, and what follows from their places on the ring. No calls, no state of its own."""

from __future__ import annotations

from node.chord.member import Member
from node.codec import Address
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
        successors = (contact for member in self.members.values() for contact in member.state.successors)
        return all(contact.address == self.address for contact in successors)
