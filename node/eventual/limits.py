"""What an eventual ring cannot do, said in one place."""

from __future__ import annotations

from node.data import Version
from node.errors import BadUsage


class Limited:
    """The operations that take knowing the last version."""

    async def put_if(self, key: bytes, value: bytes, version: Version | None, expires: int = 0) -> Version:
        """Raises BadUsage: two sides of a cut ring could both succeed."""
        raise BadUsage("put_if needs a ring with --consistency chain: in an eventual one nobody knows the last version")

    async def delete_if(self, key: bytes, version: Version) -> None:
        """Raises BadUsage, as `put_if` does."""
        raise BadUsage(
            "delete_if needs a ring with --consistency chain: in an eventual one nobody knows the last version"
        )

    async def increment(self, key: bytes, amount: int | float) -> tuple[bytes, Version]:
        """Raises BadUsage: of two increments on two sides of a cut one would be lost."""
        raise BadUsage("increment needs a ring with --consistency chain: here one of two at a time could be lost")


def check_lasting(expires: int) -> None:
    """Raises BadUsage for a record that is to expire: replicas with different clocks would not agree on it."""
    if expires:
        raise BadUsage("a time to live needs a ring with --consistency chain")
