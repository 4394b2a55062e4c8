"""What tests of every floor may ask for: `ring`, an empty ring of real processes (see `tests/ring/nodes.py`)."""

from tests.ring.conftest import ring

__all__ = ["ring"]
