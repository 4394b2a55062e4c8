"""How long a ring has been awake, which tells what it may have forgotten.

Tombstones go after the grace period. Who was away for longer may hold what was deleted meanwhile, and would bring it
back: it comes back empty. But where nobody is up nothing is deleted. A ring that rested lets no tombstone go before it
has been awake for the grace period, in which all who rested with it come back with what they have.
"""

from __future__ import annotations

from node.codec import Message
from node.transport import Method


class Awake(Message, frozen=True):
    """What one node knows of that. Microseconds since 1970."""

    since: int
    """When the ring came up after it had been down, all of it, for longer than the grace period; 0 if it never was."""
    forgotten: int
    """Tombstones from before this may have gone before that."""

    def forgets(self, now: int, grace: int) -> bool:
        """Whether tombstones may go."""
        return now - self.since >= grace

    def horizon(self, now: int, grace: int) -> int:
        """Tombstones from before this may be gone by now."""
        return max(self.forgotten, now - grace) if self.forgets(now, grace) else self.forgotten


AWAKE: Method[None, Awake] = Method("eventual.awake", type(None), Awake)
"""With what may be gone by now."""
