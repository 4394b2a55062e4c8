"""Ports for processes under test, each given to one test only.

A port that is found free and let go of is taken by somebody else sooner or later: by a test in another process that
looked at the same moment, by an outgoing connection, or while the process it was for is being restarted. The ones given
here lie below those that systems give to outgoing connections and to port 0, and are claimed for as long as the test's
own process lives: it holds the UDP port of the same number.
"""

from __future__ import annotations

import contextlib
import socket

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
_claims: list[contextlib.ExitStack] = []


def free_port() -> int:
    """A port nothing listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many ports in a row nothing listens on."""
    for base in range(FIRST, LAST - count, count):
        with contextlib.ExitStack() as claims, contextlib.suppress(OSError):
            for port in range(base, base + count):
                claims.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind((HOST, port))
                with socket.socket() as listener:
                    listener.bind((HOST, port))
            _claims.append(claims.pop_all())
            return base
    raise AssertionError("no free ports")
