"""rpychord: a Chord ring of remote objects on RPyC. `from node import Ring`, or `AsyncRing` in asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node.client.ring import AsyncRing
    from node.client.sync import Ring

__version__ = "0.1.0"
__all__ = ["AsyncRing", "Ring", "__version__"]


def __getattr__(name: str) -> Any:
    """Imported when first used: nodes and commands that need no client start without it."""
    if name == "AsyncRing":
        from node.client.ring import AsyncRing

        return AsyncRing
    if name == "Ring":
        from node.client.sync import Ring

        return Ring
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
