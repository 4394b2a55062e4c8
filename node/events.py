"""Events: what a node tells whoever operates it, under names and at levels that stay the same.

docs/operations.md lists them all, and what to do about each. Everything else that is logged is for developers.
"""

from __future__ import annotations

import logging
from enum import Enum


class Event(Enum):
    """A name, as it stands in logs, and a level."""

    START = "start", logging.INFO
    WAITING = "waiting", logging.WARNING
    JOINED = "joined", logging.INFO
    READY = "ready", logging.INFO
    UNSEATED = "unseated", logging.WARNING
    LEAVING = "leaving", logging.INFO
    NOT_HANDED_OVER = "not-handed-over", logging.WARNING
    STOPPED = "stopped", logging.INFO
    FAILED = "failed", logging.ERROR

    MEMBER_DEAD = "member-dead", logging.WARNING
    MEMBER_LEFT = "member-left", logging.INFO
    MEMBER_MOVES = "member-moves", logging.WARNING
    NODE_SILENT = "node-silent", logging.WARNING
    NODE_ANSWERS = "node-answers", logging.INFO
    NODE_ENTERED = "node-entered", logging.INFO
    NODE_GONE = "node-gone", logging.INFO
    EVICTING = "evicting", logging.WARNING
    ARC_CHANGED = "arc-changed", logging.INFO
    ARC_COPIED = "arc-copied", logging.INFO
    QUORUM_LOST = "quorum-lost", logging.WARNING
    QUORUM_REGAINED = "quorum-regained", logging.INFO
    FORCED_REPAIR = "forced-repair", logging.WARNING
    EMPTIED = "emptied", logging.WARNING

    DISK_FULL = "disk-full", logging.ERROR
    DISK_FAILED = "disk-failed", logging.ERROR
    DISK_WORKS = "disk-works", logging.INFO

    CERTIFICATE_RENEWED = "certificate-renewed", logging.INFO
    LET_IN = "let-in", logging.INFO
    REVOKED = "revoked", logging.WARNING
    PEER_REFUSED = "peer-refused", logging.WARNING

    SETTINGS_READ = "settings-read", logging.INFO
    SETTINGS_REFUSED = "settings-refused", logging.WARNING

    def __init__(self, label: str, level: int) -> None:
        self.label = label
        self.level = level

    def tell(self, log: logging.Logger, message: str, *details: object) -> None:
        """Log it. Neither keys nor values nor secrets may be among the details."""
        log.log(self.level, message, *details, extra={"event": self.label}, stacklevel=2)
