"""The certificates of a ring: its authority, what the authority vouches for, and how one asks for that.

All keys are Ed25519. A certificate says a kind (`OU`) and an id (`CN`), and the addresses of a node. The kinds differ
in what TLS lets them do, too: only a node's can be shown by a server. But for its signature a certificate is a function
of what it says and of its key; tokens rely on that.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.errors import BadValue
from node.trust.party import CLIENT, NODE, TOKEN

AUTHORITY = "authority"
USES = {
    NODE: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    CLIENT: [ExtendedKeyUsageOID.CLIENT_AUTH],
    TOKEN: [ExtendedKeyUsageOID.CLIENT_AUTH],
}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
LONGEST, LONGEST_NAME = 16 * 1024, 64
SKEW = timedelta(days=1)
"""How far the clocks of two hosts may be apart for a fresh certificate to be taken."""


class Authority:
    """What vouches for the nodes and clients of one ring."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()

    @classmethod
    def new(cls) -> Authority:
        """One that nobody knows yet."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, pem: bytes) -> Authority:
        """From its private key. Raises ValueError."""
        return cls(key_of_pem(pem))

    @property
    def key_pem(self) -> bytes:
        """The private key: whoever has it is this authority."""
        return pem_of_key(self._key)

    @property
    def pem(self) -> bytes:
        """Its own certificate, by which its ring is known."""
        return pem_of(certificate(AUTHORITY, "", self.public, self.public, self._key, LONG_AGO, NEVER))

    def issue(self, kind: str, id: str, public: Ed25519PublicKey, life: float, hosts: Iterable[str] = ()) -> bytes:
        """The certificate of a node or a client, good for `life` seconds."""
        now = datetime.now(UTC)
        until = now + timedelta(seconds=life)
        return pem_of(certificate(kind, id, public, self.public, self._key, now - SKEW, until, hosts))

    def issue_for_token(self, id: str, public: Ed25519PublicKey, until: datetime) -> x509.Certificate:
        """The certificate inside a token."""
        return certificate(TOKEN, id, public, self.public, self._key, LONG_AGO, until)


def certificate(
    kind: str,
    id: str,
    public: Ed25519PublicKey,
    authority: Ed25519PublicKey,
    signer: Ed25519PrivateKey,
    since: datetime,
    until: datetime,
    hosts: Iterable[str] = (),
) -> x509.Certificate:
    """A certificate of that kind. `signer` is the authority's key, unless the signature does not matter."""
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"rpychord ring {_digest(authority).hex()}")])
    subject = issuer
    if kind != AUTHORITY:
        parts = ((NameOID.ORGANIZATIONAL_UNIT_NAME, kind), (NameOID.COMMON_NAME, id))
        subject = x509.Name([x509.NameAttribute(name, value) for name, value in parts])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(int.from_bytes(_digest(public), "big") or 1)
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(kind == AUTHORITY, 0 if kind == AUTHORITY else None), critical=True)
        .add_extension(_key_usage(kind), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )
    if kind != AUTHORITY:
        builder = builder.add_extension(x509.ExtendedKeyUsage(USES[kind]), critical=False)
    if names := [_general_name(host) for host in hosts]:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, None)


def _digest(key: Ed25519PublicKey) -> bytes:
    """Stands for a key where 64 bits that nobody can choose are enough."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:8]


def _key_usage(kind: str) -> x509.KeyUsage:
    signs = kind == AUTHORITY
    return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


# -- asking for one ----------------------------------------------------------------------------------------------


_UNREADABLE = (
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises, beside ValueError, for what it cannot or will not read."""


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody who wants a certificate says: the key to be vouched for, and how people call its owner."""

    public: Ed25519PublicKey
    name: str
    hosts: tuple[str, ...] = ()

    @classmethod
    def read(cls, pem: Any) -> Request:
        """From the PEM of a certificate request. Raises BadValue for anything else, or unless its key has signed it."""
        try:
            csr = x509.load_pem_x509_csr(pem)
            public = csr.public_key()
            name = str(csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
            if not isinstance(public, Ed25519PublicKey) or not csr.is_signature_valid:
                raise ValueError("it is not signed by such a key")
            if len(pem) > LONGEST or len(name) > LONGEST_NAME or not name.isprintable():
                raise ValueError("it is too long, or has a name that cannot be printed")
            return cls(public, name, hosts_of(csr))
        except (TypeError, ValueError, IndexError, *_UNREADABLE) as error:
            raise BadValue(f"not a certificate request with a name and an Ed25519 key: {error}") from None

    @staticmethod
    def sign(key: Ed25519PrivateKey, name: str, hosts: Iterable[str] = ()) -> bytes:
        """A request, as PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:LONGEST_NAME])])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if names := [_general_name(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, None).public_bytes(serialization.Encoding.PEM)


def hosts_of(signed: x509.CertificateSigningRequest | x509.Certificate) -> tuple[str, ...]:
    """The addresses it names."""
    try:
        names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def id_of(issued: x509.Certificate) -> str:
    """Whose certificate this is."""
    return str(issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


ID = "[0-9a-f]{16}"


def new_id() -> str:
    """Of a node or client that gets its first certificate."""
    return secrets.token_hex(8)


# -- PEM ---------------------------------------------------------------------------------------------------------


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_of_key(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_of_pem(pem: bytes) -> Ed25519PrivateKey:
    """Raises ValueError for another kind of key."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key
