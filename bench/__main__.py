"""`python -m bench [transport|store ...]`: the transport, unless something else is named. LMDB: `pip install lmdb`."""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or ["transport"]
    sys.argv = [f"python -m bench {name}", *rest]
    sys.exit(importlib.import_module(f"bench.{name}").main())
