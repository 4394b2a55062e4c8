"""Who a data directory is, and when it has to become another: what others were told of its content must be true.

Where chains are written to the page cache (`--durability os`), a machine that loses power forgets commits that others
count on: replicas would be shorter than they said, a keeper's promises forgotten. So the directory notes the *boot* of
its machine, on the disk, before anything is acknowledged, and takes the note back when the node stops in good order.
Who finds the note of another boot takes a new life: a stranger to all chains, under its old ids. What it holds stays
until the ring is seen to do without it: if all replicas of an arc lost power, a repair by force begins with that.
"""

from __future__ import annotations

import logging
from random import Random

from node.codec import Message, pack, unpack
from node.events import Event
from node.identifiers import Identifier
from node.register.acceptor import NOTE as KEEPER
from node.store.interface import Batch, Store

log = logging.getLogger(__name__)

IDENTITY = "identity"
BOOT = "boot"


class Identity(Message, frozen=True):
    """Who this data directory is: the ring it belongs to, the id of this life of it, the ids of its members."""

    ring: bytes
    node: bytes
    members: tuple[Identifier, ...]
    generation: int = 0
    """Of the ring: how often it went on by force without the nodes of the generation before."""
    former: tuple[bytes, ...] = ()
    """Lives that this one took over from in good order: what they held is whole."""
    doubtful: bool = False
    """Whether the disk may hold what lacks its last commits."""

    def joining(self, ring: bytes, generation: int) -> Identity:
        """The same life, as part of a ring."""
        return Identity(ring, self.node, self.members, generation)

    def housing(self, members: tuple[Identifier, ...]) -> Identity:
        """The same life with these members."""
        return Identity(self.ring, self.node, members, self.generation, self.former, self.doubtful)

    def after_power_cut(self, life: bytes) -> Identity:
        """Another life of a disk that forgot its last commits."""
        return Identity(self.ring, life, self.members, self.generation, (), True)

    def in_generation(self, generation: int, life: bytes) -> Identity:
        """Another life of a whole disk, in a later generation of the ring."""
        return Identity(self.ring, life, self.members, generation, (*self.former, self.node), self.doubtful)


async def recognized(store: Store, boot: bytes, random: Random) -> Identity:
    """The identity that the store left; another life of it if the machine was started since, without a clean stop."""
    note = await store.read_note(IDENTITY)
    identity = unpack(Identity, note) if note else Identity(b"", random.randbytes(16), ())
    noted = await store.read_note(BOOT)
    if noted is None or noted == boot:
        return identity
    Event.EMPTIED.tell(log, "the machine stopped without warning: this node takes its replicas anew from others")
    return await take_life(store, identity.after_power_cut(random.randbytes(16)))


async def take_life(store: Store, reborn: Identity) -> Identity:
    """Be this from now on, and no keeper that anybody counts on."""
    batch = Batch()
    batch.forget(KEEPER)
    batch.forget(BOOT)
    batch.note(IDENTITY, pack(reborn))
    await store.commit(batch, to_disk=True)
    return reborn


async def trust_page_cache(store: Store, boot: bytes) -> None:
    """From now on a commit is done when it is in the page cache, which this boot of the machine keeps."""
    batch = Batch()
    batch.note(BOOT, boot)
    await store.commit(batch, to_disk=True)
    store.wait_for_disk(False)


async def stopped_cleanly(store: Store) -> None:
    """Everything is on the disk, and so is whatever is committed from now on: no start of the machine matters."""
    store.wait_for_disk(True)
    batch = Batch()
    batch.forget(BOOT)
    await store.commit(batch)
