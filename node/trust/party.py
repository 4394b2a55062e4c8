"""Who is at the other end of a connection, by the certificate that was proved."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.errors import NotTrusted

NODE, CLIENT, TOKEN = "node", "client", "token"
"""The kinds of certificates: a token's is for getting one of the others."""


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with a certificate. The id stays the same when a certificate is renewed."""

    kind: str
    id: str
    until: float
    """When the certificate ends, in seconds since 1970."""

    @classmethod
    def proved(cls, certificate: Mapping[str, Any] | None) -> Party:
        """From what `ssl` tells of a certificate that it has verified. Raises NotTrusted if that is not one of ours."""
        told = {name: value for part in (certificate or {}).get("subject", ()) for name, value in part}
        try:
            until = float(ssl.cert_time_to_seconds((certificate or {})["notAfter"]))
            return cls(told["organizationalUnitName"], told["commonName"], until)
        except (KeyError, ValueError):
            raise NotTrusted("it shows no certificate of a ring") from None

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
