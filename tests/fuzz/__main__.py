"""`python -m tests.fuzz [--messages N] [--seed S]`: attack a node of an open ring, then of rings with certificates."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.fuzz.entrances import Entrances
from tests.fuzz.oracle import Finding
from tests.fuzz.rings import RINGS, started
from tests.fuzz.siege import SETTINGS, Report, Siege


def main() -> int:
    """Lay the sieges, one after the other."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--messages", type=int, default=1_000_000, help="to each node [1000000]")
    options.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="[drawn, and printed]")
    options.add_argument("--ring", choices=list(RINGS), action="append", help="[all of them]")
    options.add_argument("--session", metavar="SEED", help="only this connection, as a finding names it")
    wanted = options.parse_args()
    if wanted.messages < 1:
        options.error(f"--messages {wanted.messages}: send one at least")
    for name in wanted.ring or RINGS:
        print(f"{name}: seed {wanted.seed}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            try:
                uvloop.run(fuzz(name, Path(directory), wanted.seed, wanted.messages, wanted.session))
            except Finding as finding:
                log = (Path(directory) / "node.log").read_text()
                print(f"\n{finding}\n{log[-5000:]}", file=sys.stderr)
                return 1
        print("nothing was found", flush=True)
    return 0


async def fuzz(ring: str, directory: Path, seed: int, count: int, session: str | None) -> None:
    sentinel = directory / "sentinel"
    sentinel.write_text("untouched")
    node = await asyncio.to_thread(started, ring, directory)
    try:
        siege = Siege(node, await Entrances.to(node, SETTINGS), seed, sentinel)
        if session is not None:
            await siege.session(session, 200)
            return
        try:
            await siege.lay(count, max(1000, count // 100), show)
        finally:
            print(f"\r{siege.report}", flush=True)
    finally:
        node.kill()


def show(report: Report) -> None:
    """How far it is."""
    if sys.stdout.isatty():
        print(f"\r{report}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
