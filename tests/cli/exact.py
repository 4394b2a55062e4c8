"""Values compared as what they are: 1, 1.0 and True differ, and so do a list and a tuple."""

from __future__ import annotations

import math
import struct
from typing import Any


def exactly(value: Any) -> Any:
    """Something that is equal only for values of the same types, nan and -0.0 included."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, list | tuple):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, dict):
        return "dict", [(exactly(name), exactly(item)) for name, item in value.items()]
    return type(value).__name__, value
