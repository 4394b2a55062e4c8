"""The files of a node's trust, below its data directory: its ring's authority, its certificate and key, who is revoked.

Everything here is readable by its owner alone. A directory is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from node.codec import Address, pack, parse_address, unpack
from node.errors import BadUsage, BadValue, DirectoryDamaged
from node.trust.ledger import Standing

if TYPE_CHECKING:  # an open ring starts without cryptography
    from node.trust.contexts import Credentials

AUTHORITY, AUTHORITY_KEY, IDENTITY = "authority.pem", "authority.key", "node.pem"
STANDING, ADDRESS, UNKNOWN = "standing", "address", "unknown"


class Keyring:
    """The directory `trust` of a data directory."""

    def __init__(self, data: Path) -> None:
        self.path = data / "trust"

    @property
    def exists(self) -> bool:
        """Whether this node belongs to a ring with certificates."""
        return self.path.is_dir()

    def create(self, credentials: Credentials, *, known: bool) -> None:
        """Write all that makes a node one of a ring, which knows it already or not. Raises BadUsage."""
        new = self.path.with_name(self.path.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(mode=0o700)
            write_private(new / AUTHORITY, credentials.authority)
            write_private(new / AUTHORITY_KEY, credentials.authority_key)
            write_private(new / IDENTITY, credentials.identity)
            if not known:
                write_private(new / UNKNOWN, b"")
            new.rename(self.path)
            _sync(self.path.parent)
        except OSError as error:
            raise BadUsage(f"cannot keep certificates in {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """Make this a node of no ring with certificates again."""
        shutil.rmtree(self.path, ignore_errors=True)

    def load(self) -> Credentials:
        """What was written. Raises DirectoryDamaged if something is missing."""
        from node.trust.contexts import Credentials

        try:
            authority, key, identity = (
                (self.path / name).read_bytes() for name in (AUTHORITY, AUTHORITY_KEY, IDENTITY)
            )
        except OSError as error:
            raise DirectoryDamaged(
                f"{error.filename} cannot be read ({error.strerror}): remove {self.path} and join again with a token"
            ) from None
        return Credentials(authority, identity, key)

    def renew(self, credentials: Credentials) -> None:
        """Replace the node's own certificate and key."""
        write_private(self.path / IDENTITY, credentials.identity)

    @property
    def known(self) -> bool:
        """Whether the ring has noted that this node was let in."""
        return not (self.path / UNKNOWN).exists()

    def be_known(self) -> None:
        """It has now."""
        (self.path / UNKNOWN).unlink(missing_ok=True)

    @property
    def standing(self) -> Standing:
        """Who was revoked when it was last heard; nobody if it never was."""
        try:
            return unpack(Standing, (self.path / STANDING).read_bytes())
        except FileNotFoundError:
            return Standing()
        except BadValue as error:
            raise DirectoryDamaged(f"{self.path / STANDING} is {error}: remove {self.path} and join again") from None

    def keep_standing(self, standing: Standing) -> None:
        """Keep who is revoked over restarts."""
        write_private(self.path / STANDING, pack(standing))

    def keep_address(self, address: Address) -> None:
        """Keep where the node listens, for those who operate it here."""
        write_private(self.path / ADDRESS, str(address).encode())

    @property
    def address(self) -> Address | None:
        """Where the node last listened, None if it never did."""
        try:
            return parse_address((self.path / ADDRESS).read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadUsage(
                f"cannot read {error.filename} ({error.strerror}): be the user that the node runs as"
            ) from None


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read: whole or not at all, whoever else writes it at the same time."""
    handle, new = tempfile.mkstemp(".new", path.name + ".", path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(new).rename(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
