"""What one side shows and whom it believes, and TLS contexts of that: both sides prove themselves, TLS 1.3 only."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.trust.certificates import SKEW, key_of_pem


@dataclass(frozen=True, slots=True)
class Credentials:
    """One side's half of trust, as PEM. `identity` is its certificate followed by its key."""

    authority: bytes
    identity: bytes = field(repr=False)
    authority_key: bytes = field(default=b"", repr=False)
    """Nodes only: with it a node may issue certificates."""

    @property
    def certificate(self) -> x509.Certificate:
        """Its own certificate."""
        return x509.load_pem_x509_certificate(self.identity)

    @property
    def until(self) -> datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc

    @property
    def due(self) -> bool:
        """Whether the certificate is to be renewed: a third of its time is left, or less; or it has yet to begin, as
        one that was made while a clock was wrong."""
        own, now = self.certificate, datetime.now(UTC)
        life = own.not_valid_after_utc - (own.not_valid_before_utc + SKEW)
        return now > own.not_valid_after_utc - life / 3 or now < own.not_valid_before_utc

    def belong_together(self, own: Ed25519PublicKey, authority: Ed25519PublicKey) -> bool:
        """Whether this is a certificate of that key by that authority, with all that should go with it."""
        try:
            issuer = x509.load_pem_x509_certificate(self.authority)
            self.certificate.verify_directly_issued_by(issuer)
            signs = key_of_pem(self.authority_key).public_key() if self.authority_key else authority
        except (ValueError, TypeError, InvalidSignature):
            return False
        return self.certificate.public_key() == own and issuer.public_key() == signs == authority


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """For taking connections in: only from those whom the authority vouches for."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials)
    context.num_tickets = 0  # a resumed session would be asked for no certificate
    return context


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """For connecting: only to nodes that the authority vouches for, at whatever address they are found."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def _context(side: int, credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=credentials.authority.decode())
    show(context, credentials)
    return context


def show(context: ssl.SSLContext, credentials: Credentials) -> None:
    """From the next connection on, show this certificate."""
    with _file_of(credentials.identity) as path:  # `ssl` loads keys from files only
        context.load_cert_chain(path)


@contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """The path of a file that nobody else reads: in memory if that can be, on no disk that may be full or keep it."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("identity"), "wb", buffering=0) as memory:
            memory.write(content)
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:
            file.write(content)
            yield file.name
