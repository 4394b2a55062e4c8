"""`ring load`: a file of any size into the ring, from where an interrupted load had come to if need be."""

from __future__ import annotations

import io
import os
import time
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli import load as script
from node.cli.arguments import FAILED, check_standard_input
from node.cli.bulk.batches import ahead, batches
from node.cli.bulk.formats import FORMATS, format_of
from node.cli.bulk.ledger import Ledger, Rejects, State, StateFile, Work, to_resume
from node.cli.bulk.lines import STANDARD_INPUT, BadByte, Source, Stream
from node.cli.bulk.loading import Loading
from node.cli.bulk.rows import Place, Rows, rows_of
from node.cli.client import on_ring, ring_command
from node.cli.output import Progress, complain, print_json
from node.codec import Address
from node.errors import BadUsage
from node.logs import LogOptions, Logs
from node.settings import Settings

if TYPE_CHECKING:
    from node.client.ring import AsyncRing


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for, beside how the file is to be read."""

    file: str
    format: str
    rejects: Path
    resume: bool
    as_json: bool


@ring_command("load")
@click.argument("file", default=str(script.DEFAULT_INPUT), metavar="[FILE]")
@click.option("--format", "kind", type=click.Choice(["auto", *FORMATS]), default="auto", help="What FILE is. [auto]")
@click.option("--key", metavar="COLUMN", help="The column, or field of JSON, that is the key: its name or number.")
@click.option("--encoding", metavar="NAME", help="How FILE is encoded. [what its first bytes say, else utf-8]")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rows go that are not stored. [FILE.rejects.jsonl]",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted load of FILE stopped.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="error",
    help="What is logged on standard error. [error]",
)
def command(
    file: str,
    kind: str,
    key: str | None,
    encoding: str | None,
    rejects: Path | None,
    resume: bool,
    log_level: str,
    nodes: tuple[Address, ...],
    timeout: float,
    as_json: bool,
) -> int:
    """Store the rows of FILE in the ring. Without a word it is input.txt, and - is standard input.

    CSV and TSV: the first row names the columns, the column --key is the key, the value is the row as a dict of text.
    JSON lines: with --key a field of each object is the key and the object the value; without it they are what `ring
    dump` wrote. Of rows with the same key the last one stays. Rows that are wrong are written to a file of rejects, the
    others are stored. Exit code 0: all rows are stored; 1: some were rejected, or it failed.

    Scripts: what the lines say is done and verified, as main.py does, see there; of the options --node applies.
    """
    Logs(LogOptions(log_level))
    if file == STANDARD_INPUT:
        check_standard_input()
    source = Source(Stream(file), encoding)
    with closing(source.stream):
        kind = format_of(source) if kind == "auto" else kind
        if source.is_empty and kind in ("jsonl", "script"):
            complain(f"ring load: {source.name} is empty: there is nothing to load")
        if kind == "script":
            if key or encoding or rejects or resume:
                raise BadUsage(f"{source.name} is a script, which has no rows: if it is not, say what with --format")
            return script.do_lines(io.BufferedReader(source.stream), Path(file), nodes[0] if nodes else None)
        if resume and not source.stream.stays:
            raise BadUsage(f"{source.name} cannot be resumed: give the name of a file")
        wanted = Wanted(file, kind, rejects or _beside(source.stream, file), resume, as_json)
        if wanted.rejects.exists() and os.path.samestat(wanted.rejects.stat(), source.stream.status):
            raise BadUsage(f"{wanted.rejects} is the file to load: give --rejects another name")
        rows = rows_of(source, kind, key, Settings())
        return on_ring(nodes, timeout, lambda ring: load(ring, rows, wanted))


def _beside(stream: Stream, file: str) -> Path:
    if stream.stays:
        return Path(f"{file}.rejects.jsonl")
    return Path(f"{'stdin' if file == STANDARD_INPUT else Path(file).name}.rejects.jsonl")


async def load(ring: AsyncRing, rows: Rows, wanted: Wanted) -> int:
    """Load the rows into the ring and say what came of it; the exit code."""
    began = time.monotonic()
    state_file = StateFile(os.path.realpath(wanted.file)) if rows.source.stream.stays else None
    ledger = _ledger(rows, wanted, ring.id, state_file)
    before = ledger.counts.stored
    try:
        await _run(ring, rows, ledger)
    except BadByte:  # nothing to resume: it is to be read in another encoding, from the start
        complain(f"ring load: stopped, with {ledger.counts.stored:,} rows stored")
        raise
    except BaseException:
        ledger.save()
        again = "the same command with --resume goes on there" if ledger.resumable else "load it once more, as a file"
        complain(
            f"ring load: stopped before line {ledger.place.line if ledger.place else 1:,} of {rows.source.name}, with "
            f"{ledger.counts.stored:,} rows stored: {again}"
        )
        raise
    finally:
        ledger.close()
    if state_file is not None:
        state_file.remove()
    _report(ledger, rows, wanted, ledger.counts.stored - before, time.monotonic() - began)
    return FAILED if ledger.counts.rejected else 0


def _ledger(rows: Rows, wanted: Wanted, ring: str, state_file: StateFile | None) -> Ledger:
    """A new one, or that of the load that is to be resumed. Raises BadUsage if the file has changed."""
    source = rows.source
    status = source.stream.status
    file = source.name if state_file is None else os.path.realpath(wanted.file)
    work = Work(file, status.st_size, status.st_mtime_ns, wanted.format, source.encoding, rows.key, ring)
    state = None
    if state_file is not None and wanted.resume:
        state = to_resume(state_file.read(), work)
    elif state_file is not None:
        state_file.remove()
    rejects = _rejects(state, wanted)
    if not wanted.as_json:
        key = f"key {rows.key}" if rows.key is not None else "keys as `ring dump` writes them"
        print(f"{source.name}: {wanted.format}, {source.encoding}, {key}", flush=True)
        if wanted.resume:
            print(
                f"going on at line {state.place.line:,}" if state else "no load of it was interrupted: from the start"
            )
    return Ledger(work, rejects, state_file.write if state_file is not None else None, state)


def _rejects(state: State | None, wanted: Wanted) -> Rejects:
    if state is not None and state.rejects_size:
        return Rejects(Path(state.rejects), state.rejects_size)
    return Rejects(wanted.rejects)


async def _run(ring: AsyncRing, rows: Rows, ledger: Ledger) -> None:
    size, at = rows.source.size, ledger.place.offset if ledger.place is not None else 0
    with Progress("loading", None if size is None else size - at, unit="B") as progress:

        def moved(place: Place) -> None:
            nonlocal at
            progress.add(place.offset - at)
            at = place.offset

        async with aclosing(ahead(batches(rows.read(ledger.place)))) as made:
            await Loading(ring.put_many, ledger, moved).run(made)


def _report(ledger: Ledger, rows: Rows, wanted: Wanted, stored: int, seconds: float) -> None:
    counts, rate = ledger.counts, stored / max(seconds, 0.001)
    if wanted.as_json:
        print_json(
            {
                "file": wanted.file,
                "format": wanted.format,
                "encoding": rows.source.encoding,
                "key": rows.key,
                "stored": counts.stored,
                "rejected": counts.rejected,
                "repeated": counts.repeated,
                "rejects": str(ledger.rejects.path) if counts.rejected else None,
                "seconds": round(seconds, 3),
            }
        )
        return
    for each in ledger.first_rejects:
        complain(f"{rows.source.name}:{each.line}: {each.reason}")
    more = f", which are in {ledger.rejects.path}" if counts.rejected else ""
    twice = f"; {counts.repeated:,} had the key of an earlier one, which they replaced" if counts.repeated else ""
    stored_rows = f"{counts.stored:,} {'row' if counts.stored == 1 else 'rows'} stored"
    print(f"{stored_rows}, {counts.rejected:,} rejected{more}{twice}; {seconds:.1f} s, {rate:,.0f}/s")
