"""What tests of every floor may ask for: `ring`, an empty ring of real processes (see `tests/ring/nodes.py`)."""

import signal

from tests.ring.conftest import ring

__all__ = ["ring"]

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and by all that tests start
