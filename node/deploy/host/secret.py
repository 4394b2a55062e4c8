"""What nobody is to see, in what nodes and commands print."""

from __future__ import annotations

import re

TOKEN = re.compile(r"ring1\.\S+")
"""Lets a node or a client into a ring."""
