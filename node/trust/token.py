"""Join tokens: what lets a host or a person, who has nothing yet, get a certificate of one ring.

A token holds the authority's public key, by which its bearer knows the ring, and a client certificate of the kind
`token` with its key, by which the ring knows the bearer. The certificate says what the token is good for, so no node
has to remember a token to know one. To be short it travels as what it says, the secret that is its key, and the
authority's signature; both ends build the same certificate of that.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from node.errors import BadUsage, NotTrusted
from node.trust.certificates import AUTHORITY, LONG_AGO, NEVER, Authority, certificate, pem_of, pem_of_key
from node.trust.contexts import Credentials
from node.trust.party import CLIENT, NODE, TOKEN, Party

PREFIX = "ring1."
KINDS = (NODE, CLIENT)
_LAYOUT = struct.Struct("!BHIQ32s32s64s")
_SIGNATURE = 64
MOST_USES = 65535


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token is good for, as its certificate says."""

    grants: str
    uses: int
    generation: int
    """Tokens of an earlier generation than the ring's are void."""
    id: str

    @property
    def text(self) -> str:
        return f"{self.grants} {self.uses} {self.generation} {self.id}"

    @classmethod
    def of(cls, bearer: Party) -> Terms:
        """Of the token that somebody has proved to bear. Raises NotTrusted."""
        words = bearer.id.split()
        if bearer.kind != TOKEN or len(words) != 4 or words[0] not in KINDS:
            raise NotTrusted("it bears no token of this version")
        return cls(words[0], int(words[1]), int(words[2]), words[3])


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """One token; its text is a secret."""

    authority: Ed25519PublicKey
    secret: bytes
    terms: Terms
    until: datetime
    signature: bytes

    @classmethod
    def issue(cls, authority: Authority, grants: str, uses: int, generation: int, valid: float) -> Token:
        """A new one, good for `valid` seconds."""
        until = datetime.fromtimestamp(int(time.time() + valid), UTC)
        secret = secrets.token_bytes(32)
        terms = Terms(grants, uses, generation, _id(secret))
        signed = authority.issue_for_token(terms.text, _key(secret).public_key(), until)
        return cls(authority.public, secret, terms, until, signed.signature)

    def check_grants(self, kind: str) -> None:
        """Raises BadUsage if it is good for something else."""
        if self.terms.grants != kind:
            how = {NODE: "`ring token`", CLIENT: "`ring token --client`"}[kind]
            raise BadUsage(f"this token is for a {self.terms.grants}, not for a {kind}: {how} makes one")

    @property
    def text(self) -> str:
        """What people hand on."""
        terms = self.terms
        packed = _LAYOUT.pack(
            KINDS.index(terms.grants),
            terms.uses,
            terms.generation,
            int(self.until.timestamp()),
            self.authority.public_bytes_raw(),
            self.secret,
            self.signature,
        )
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Token:
        """From its text. Raises BadUsage if it is not one, or not whole; never repeats the text."""
        try:
            if not text.startswith(PREFIX):
                raise ValueError
            encoded = text.removeprefix(PREFIX)
            packed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
            kind, uses, generation, until, authority, secret, signature = _LAYOUT.unpack(packed)
            terms = Terms(KINDS[kind], uses, generation, _id(secret))
            public = Ed25519PublicKey.from_public_bytes(authority)
            token = cls(public, secret, terms, datetime.fromtimestamp(until, UTC), signature)
            public.verify(signature, token._certificate().tbs_certificate_bytes)
        except (ValueError, IndexError, OverflowError, OSError, binascii.Error, struct.error, InvalidSignature):
            raise BadUsage(f"that is no whole token: give all that was printed, it begins with {PREFIX}") from None
        return token

    @property
    def credentials(self) -> Credentials:
        """What the bearer shows, and by what it knows the ring."""
        anchor = certificate(AUTHORITY, "", self.authority, self.authority, _NOBODY, LONG_AGO, NEVER)
        return Credentials(pem_of(anchor), pem_of(self._certificate()) + pem_of_key(_key(self.secret)))

    def _certificate(self) -> x509.Certificate:
        """As the authority signed it: the signature is the end of it."""
        public = _key(self.secret).public_key()
        unsigned = certificate(TOKEN, self.terms.text, public, self.authority, _NOBODY, LONG_AGO, self.until)
        der = unsigned.public_bytes(serialization.Encoding.DER)
        return x509.load_der_x509_certificate(der[:-_SIGNATURE] + self.signature)


_NOBODY = Ed25519PrivateKey.generate()
"""Signs what is built only to be given the authority's signature, or to stand for it: what is trusted needs none."""


def _key(secret: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secret)


def _id(secret: bytes) -> str:
    """The name of the token: tells nothing of the secret."""
    return _key(secret).public_key().public_bytes_raw()[:8].hex()
