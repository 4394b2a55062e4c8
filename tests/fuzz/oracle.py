"""What a node may say to hostile messages. Whatever else it says is a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpyc.core import consts

from node import errors
from node.errors import RingError
from node.remote import plain
from node.remote.translation import DENIED
from tests.fuzz.requests import May, Rights
from tests.remote.ends import ROOT_PACK

REFUSALS = {("builtins", name) for name in ("AttributeError", "TypeError", "ValueError")} | {
    ("node.errors", name)
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, RingError)
}
SECRETS = (b"internal error", b" at 0x", b"Traceback", b"site-packages", str(Path(__file__).parents[2]).encode())
"""Nothing of this may stand in any answer: it would tell of a failure, or of the inside of the process."""


class Finding(AssertionError):
    """The node did what it must not."""


def read(payload: bytes) -> tuple[int, Any, Any]:
    """(kind, number, content) of what a node sent."""
    seq, content = plain.read(payload, 1)
    return payload[0], seq, content


def secret(payload: bytes) -> str:
    """What an answer tells that it must not, if it does."""
    return next((f"an answer that tells {each!r}" for each in SECRETS if each in payload), "")


def judge(kind: int, content: Any, may: May, rights: Rights) -> str:
    """What is wrong with this answer to something that may get these answers; nothing if nothing is."""
    if kind == consts.MSG_EXCEPTION:
        cls, _, attributes, told = content
        if tuple(cls) not in REFUSALS or attributes != () or told != DENIED:
            return "an error that is none of ours, or tells too much"
        return "" if May.REFUSAL in may else "a refusal"
    label, told = content
    if kind != consts.MSG_REPLY or label not in (consts.LABEL_VALUE, consts.LABEL_REMOTE_REF):
        return "no answer at all"
    if label == consts.LABEL_VALUE:
        return "" if May.ANSWER in may else "a value"
    if told == ROOT_PACK:
        return "" if May.THE_ROOT in may else "a reference to the root"
    name, kind_of, number = told
    if (name, kind_of) != ("builtins.method", 2) or not 1 <= number <= len(rights.exposed):
        return "a reference to something that is not exposed"
    return "" if May.METHOD in may else "a reference to a method"
