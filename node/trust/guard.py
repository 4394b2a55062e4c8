"""Whom a node lets in and whom it believes, as of now; its own certificate, renewed in time.

The contexts stay the same objects for the life of the process: what is renewed shows from the next connection on.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from node.errors import BadUsage, DirectoryDamaged, NotTrusted, shown
from node.events import Event
from node.settings import Settings
from node.trust.certificates import ID, Authority, Request, hosts_of, id_of, new_id, pem_of_key
from node.trust.contexts import Credentials, client_context, server_context, show
from node.trust.keyring import Keyring
from node.trust.ledger import FOUNDER, Entry, Ledger, Standing
from node.trust.party import CLIENT, NODE, Party
from node.trust.token import MOST_USES, Terms, Token

log = logging.getLogger(__name__)


def vouch(keyring: Keyring, authority: Authority, settings: Settings, hosts: tuple[str, ...] = ()) -> None:
    """Make a node one of the ring of this authority, which does not know it yet. Raises BadUsage."""
    key = Ed25519PrivateKey.generate()
    issued = authority.issue(NODE, new_id(), key.public_key(), settings.certificate, hosts)
    keyring.create(Credentials(authority.pem, issued + pem_of_key(key), authority.key_pem), known=False)


class Guard:
    """The trust of one node."""

    def __init__(self, keyring: Keyring, settings: Settings, hosts: tuple[str, ...]) -> None:
        """Take up what the keyring holds, for a node that is reached at these addresses; a certificate that has ended
        or names others is renewed. Raises NotTrusted if it is revoked, DirectoryDamaged."""
        self._keyring = keyring
        self._settings = settings
        self._hosts = hosts
        self._keeping = asyncio.Lock()
        """Files are written one at a time, the latest standing last."""
        self._credentials = keyring.load()
        self.standing = self._kept = keyring.standing
        self._keeps = True
        """Whether what was heard could be written the last time."""
        try:
            own = self._credentials.certificate
            self.id = id_of(own)
            self._authority = Authority.load(self._credentials.authority_key)
            self.check_oneself()
            if self.due or hosts_of(own) != hosts:
                self.renew()
            self.server = server_context(self._credentials)
            self.client = client_context(self._credentials)
        except (ValueError, ssl.SSLError) as error:
            raise DirectoryDamaged(f"{keyring.path} is damaged: remove it and join again with a token") from error

    @staticmethod
    def found(keyring: Keyring, hosts: tuple[str, ...], settings: Settings) -> Guard:
        """Begin the authority of a ring, with this node as the first it vouches for."""
        vouch(keyring, Authority.new(), settings, hosts)
        return Guard(keyring, settings, hosts)

    def belongs_to(self, token: Token) -> bool:
        """Whether this is a node of the ring that the token is for."""
        return self._authority.public == token.authority

    # -- others --------------------------------------------------------------------------------------------------

    def admit(self, certificate: Mapping[str, Any] | None) -> Party:
        """Who this is whose certificate TLS has verified. Raises NotTrusted if it is not to be believed any more."""
        party = Party.proved(certificate)
        if reason := self.refuses(party):
            raise NotTrusted(f"{party} {reason}")
        return party

    def refuses(self, party: Party) -> str:
        """Why a connection with this party may not go on, or nothing."""
        if party.id in self.standing.revoked:
            return "is revoked"
        return "has ended" if party.until <= time.time() else ""

    async def refresh(self, ledger: Ledger) -> None:
        """Hear from the ring who is revoked, and tell it what it lacks. Raises RingErrors; then nothing is changed."""
        await self._tell(Standing(), ledger)

    async def _tell(self, news: Standing, ledger: Ledger) -> None:
        """Have the ring, this node and its directory know something more."""
        told = await ledger.standing(self.standing.joined(news))
        self.standing = self.standing.joined(told)  # which may know more than when the ring was asked
        async with self._keeping:
            if self.standing != self._kept:
                await self._keep(self.standing)

    async def _keep(self, standing: Standing) -> None:
        """On the disk, or later: a full one is no reason not to heed what was heard."""
        try:
            await asyncio.to_thread(self._keyring.keep_standing, standing)
            self._kept, self._keeps = standing, True
        except OSError as error:
            if self._keeps:
                log.warning("who is revoked is not kept in %s: %s; trying again", self._keyring.path, error.strerror)
            self._keeps = False

    # -- letting others in ---------------------------------------------------------------------------------------

    async def enrol(self, bearer: Party, csr: Any, ledger: Ledger) -> Credentials:
        """The certificate that the bearer of a token asks for; a node gets the authority's key with it, so that it can
        let others in when this one is gone. Raises BadUsage for a token that is not good any more, BadValue."""
        terms, request = Terms.of(bearer), Request.read(csr)
        await self.refresh(ledger)
        reason = "is void, for tokens were rotated" if terms.generation != self.standing.generation else ""
        if reason := reason or self.refuses(bearer):
            raise BadUsage(f"this token {reason}: make a new one with `ring token`")
        entry = Entry(new_id(), terms.grants, request.name, terms.id, request.public.public_bytes_raw())
        entry = await ledger.enrol(entry, terms.uses)
        await self._tell(Standing(tokens=(terms.id,)), ledger)
        Event.LET_IN.tell(log, "%s", entry)
        issued = self._issue(terms.grants, entry.id, request)
        return Credentials(self._credentials.authority, issued, self._authority.key_pem * (terms.grants == NODE))

    async def be_known(self, name: str, ledger: Ledger) -> None:
        """Have the ring know this node by name, if it came without a token: nobody else lets it in."""
        if self._keyring.known:
            return
        public = self._credentials.certificate.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        await ledger.enrol(Entry(self.id, NODE, name, FOUNDER, public), MOST_USES)
        await self._tell(Standing(tokens=(FOUNDER,)), ledger)
        await asyncio.to_thread(self._keyring.be_known)

    async def revoke(self, name: str, ledger: Ledger) -> tuple[str, ...]:
        """Trust nobody any more who is called so, by id or by address; who that was.

        Raises BadUsage if there is nobody, or if that is this node itself.
        """
        await self.refresh(ledger)
        everybody = await ledger.entries(self.standing.tokens)
        gone = {entry.id: str(entry) for entry in everybody if entry.is_called(name)}
        if not gone and re.fullmatch(ID, name):
            gone = {name: f"whoever has the id {name}"}
        if not gone:
            raise BadUsage(f"nobody here is called {shown(name)}: there are {', '.join(map(str, everybody))}")
        if self.id in gone:
            raise BadUsage(f"{name} is the node that was asked to do this: ask another one (--data of another node)")
        await self._tell(Standing(revoked=tuple(gone)), ledger)
        Event.REVOKED.tell(log, "%s", ", ".join(gone.values()))
        return tuple(gone.values())

    async def rotate_tokens(self, ledger: Ledger) -> None:
        """Make all tokens void that there are."""
        await self._tell(await ledger.rotate(), ledger)

    def renewed(self, client: Party, csr: Any) -> bytes:
        """A new certificate for a client that still has one."""
        return self._issue(CLIENT, client.id, Request.read(csr))

    def _issue(self, kind: str, id: str, request: Request) -> bytes:
        hosts = request.hosts if kind == NODE else ()
        return self._authority.issue(kind, id, request.public, self._settings.certificate, hosts)

    async def token(self, grants: str, uses: int, valid: float, ledger: Ledger) -> Token:
        """A new token, for a node or for a client. Raises BadUsage."""
        if grants not in (NODE, CLIENT) or not 0 < uses <= MOST_USES or not 0 < valid < 1e9:
            raise BadUsage(f"a token is for a {NODE} or a {CLIENT}, has 1 to {MOST_USES} uses and some time")
        await self.refresh(ledger)
        return Token.issue(self._authority, grants, uses, self.standing.generation, valid)

    # -- oneself -------------------------------------------------------------------------------------------------

    def check_oneself(self) -> None:
        """Raises NotTrusted if this node itself is revoked."""
        if self.id in self.standing.revoked:
            raise NotTrusted(
                f"this node ({self.id}) is revoked: to have it back, remove {self._keyring.path} and give it a token"
            )

    @property
    def due(self) -> bool:
        """Whether the certificate of this node is to be renewed."""
        return self._credentials.due

    def renew(self) -> None:
        """Get a new certificate, for a new key."""
        key = Ed25519PrivateKey.generate()
        issued = self._authority.issue(NODE, self.id, key.public_key(), self._settings.certificate, self._hosts)
        self._credentials = Credentials(self._credentials.authority, issued + pem_of_key(key), self._authority.key_pem)
        try:
            self._keyring.renew(self._credentials)
        except OSError as error:  # it goes on with it all the same, and renews the old one at its next start
            log.warning("the new certificate is not kept in %s: %s", self._keyring.path, error.strerror)
        Event.CERTIFICATE_RENEWED.tell(
            log, "good until %s", self._credentials.certificate.not_valid_after_utc.isoformat()
        )

    def show_renewed(self) -> None:
        """Use the new certificate from the next connection on, in both directions."""
        show(self.server, self._credentials)
        show(self.client, self._credentials)
