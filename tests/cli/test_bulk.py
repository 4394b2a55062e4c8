"""`ring load` and `ring dump` on a ring of real processes; how a load goes on is told without one."""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from node import Ring
from node.cli.arguments import run
from node.cli.bulk.batches import Batch
from node.cli.bulk.dump import _output
from node.cli.bulk.ledger import Counts, Ledger, Rejects, State, StateFile, Work
from node.cli.bulk.loading import IN_FLIGHT, Loading
from node.cli.bulk.rows import Place, Reject
from node.cli.ring import group
from node.errors import BadUsage, Unavailable
from tests.cli.exact import exactly
from tests.ring.nodes import ROOT, RingOfProcesses, eventually

STORM = Path(os.environ.get("RPYCHORD_STORM_DATA") or ROOT.parent / "shared" / "data" / "storm")
YEARS = {1950: 223, 1951: 269, 1952: 272}
"""Events in the file of each year."""

# -- batches on their way ----------------------------------------------------------------------------------------------

WORK = Work("file", 1, 1, "csv", "utf-8", "id", "ring")


class SlowRing:
    """Acknowledges batches when it is told to."""

    def __init__(self) -> None:
        self.under_way: dict[bytes, asyncio.Future[None]] = {}
        """By the first key of each."""
        self.ended: list[bytes] = []

    async def put_many(self, pairs: Mapping[bytes, Any]) -> None:
        first = next(iter(pairs))
        self.under_way[first] = asyncio.get_running_loop().create_future()
        await self.under_way[first]
        self.ended.append(first)


def batches_of(*keys: str) -> list[Batch]:
    """Each with these letters as keys."""
    return [
        Batch(Place(n + 1, n + 2), dict.fromkeys(map(str.encode, each)), rows=len(each)) for n, each in enumerate(keys)
    ]


async def started(
    tmp_path: Path, ring: SlowRing, batches: list[Batch], states: list[State]
) -> tuple[Ledger, asyncio.Task[None]]:
    """A load of these batches, come as far as it does by itself."""

    async def made() -> AsyncIterator[Batch]:
        for batch in batches:
            yield batch

    ledger = Ledger(WORK, Rejects(tmp_path / "rejects"), states.append, None)
    task = asyncio.ensure_future(Loading(ring.put_many, ledger, lambda _: None).run(made()))
    await turns()
    return ledger, task


async def turns() -> None:
    """Everything that can go on does."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_only_what_all_before_it_is_acknowledged_with_counts(tmp_path: Path) -> None:
    async def main() -> None:
        ring = SlowRing()
        ledger, task = await started(tmp_path, ring, batches_of(*"abcdefgh"), [])
        assert len(ring.under_way) == IN_FLIGHT
        ring.under_way[b"b"].set_result(None)
        await turns()
        assert ledger.place is None and len(ring.under_way) == IN_FLIGHT
        ring.under_way[b"a"].set_result(None)
        await turns()
        assert ledger.place == Place(2, 3) and ledger.counts.stored == 2
        ring.under_way[b"d"].set_result(None)
        ring.under_way[b"c"].set_exception(Unavailable("gone"))
        with pytest.raises(Unavailable):
            await task
        assert ledger.place == Place(2, 3) and ledger.counts.stored == 2

    asyncio.run(main())


def test_an_interrupted_load_counts_what_is_acknowledged_by_then(tmp_path: Path) -> None:
    async def main() -> None:
        ring = SlowRing()
        saved: list[State] = []
        ledger, task = await started(tmp_path, ring, batches_of(*"abcdefgh"), saved)
        for key in (b"a", b"b", b"d"):
            ring.under_way[key].set_result(None)
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ledger.place == Place(2, 3) and ring.under_way[b"c"].cancelled()
        ledger.save()
        assert saved == [State(WORK, Place(2, 3), Counts(stored=2), str(tmp_path / "rejects"), 0)]
        assert set(asyncio.all_tasks()) == {asyncio.current_task()}

    asyncio.run(main())


def test_batches_with_a_key_in_common_go_one_after_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        ring = SlowRing()
        _, task = await started(tmp_path, ring, batches_of("ax", "b", "cx"), [])
        assert set(ring.under_way) == {b"a", b"b"}
        ring.under_way[b"a"].set_result(None)
        await turns()
        assert set(ring.under_way) == {b"a", b"b", b"c"}
        for key in (b"b", b"c"):
            ring.under_way[key].set_result(None)
        await task
        assert ring.ended == [b"a", b"b", b"c"]

    asyncio.run(main())


def test_rejects_behind_the_state_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "rejects"
    one, two, three = (Reject(n, "wrong", "é", Place(n, n)) for n in range(3))
    first = Rejects(path)
    size = first.add([one])
    first.add([two])  # and is killed before that is in the state
    first.close()
    again = Rejects(path, size)
    again.add([two, three])
    again.close()
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [0, 1, 2]
    with pytest.raises(BadUsage, match="not there any more"):
        Rejects(tmp_path / "other", size)


def test_a_load_goes_on_where_its_state_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file" / "below"))

    def save(state: State) -> None:
        StateFile("rows.csv").write(state)

    ledger = Ledger(WORK, Rejects(tmp_path / "rejects"), save, None)
    for batch in batches_of("a", "b"):
        ledger.enter(batch)
        ledger.save()
    assert ledger.counts.stored == 2 and not ledger.resumable
    assert capsys.readouterr().err.count("it cannot be resumed if it is interrupted: cannot write") == 1


# -- a ring ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of one of three nodes."""
    processes = RingOfProcesses(tmp_path_factory.mktemp("ring"))
    try:
        one = processes.of(3)[1]
        yield f"{one.host}:{one.port}"
    finally:
        processes.close()


@pytest.fixture
def ring(node: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ring]:
    """Empty; commands use it without saying so, in a directory of their own."""
    monkeypatch.setenv("RPYCHORD_NODE", node)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    with Ring.connect(node) as ring:
        ring.delete_many(list(ring.keys()))
        yield ring


def typed(*words: str | Path) -> int:
    """A command; its exit code."""
    return run(group, "ring", [str(word) for word in words])


def started_process(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "node.cli.ring", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )


def unread(pipe: Any) -> int:
    """Bytes in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def states(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state").rglob("*.json"))


@pytest.mark.skipif(not STORM.is_dir(), reason=f"there are no storm events at {STORM}: say with RPYCHORD_STORM_DATA")
def test_storm_events_are_found_by_their_ids_and_dumped_as_they_went_in(
    ring: Ring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = {}
    for year, count in YEARS.items():
        file = STORM / f"details-{year}.csv"
        names, *lines = [line.split(",") for line in file.read_bytes().decode().split("\r") if line]
        assert len(lines) == count  # none of them has quotes
        events |= {line[0]: dict(zip(names, line, strict=True)) for line in lines}
        assert typed("load", file, "--key", "EVENT_ID", "--rejects", tmp_path / "rejects") == 0
        assert f"{count} rows stored, 0 rejected" in capsys.readouterr().out
    assert len(events) == sum(YEARS.values()) == ring.count()
    assert ring.get_many(events) == events
    assert typed("dump", "--out", tmp_path / "all.jsonl") == 0
    dumped = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert {each["key"]: each["value"] for each in dumped} == events and len(dumped) == len(events)


def test_what_is_dumped_and_loaded_is_what_it_was(
    ring: Ring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {
        "text": "é\n\u2028",
        "": None,
        b"\xff\x00": b"\x00\xff",
        "large": [2**53, 2**53 + 1, -(2**200), 1 << 20_000],
        "floats": [0.1, -0.0, 1.0, 5e-324, math.nan, math.inf, -math.inf],
        "nested": {"a": (1, [b"b", (True, None)]), "base64": "no bytes"},
        "keys": {1: "one", b"\xfe": 2, None: 3, 1.5: 4, False: 5},
        "looks like a tag": [{"base64": "AA=="}, {"tuple": [1]}, {"dict": {"int": "1"}}],
    }
    ring.put_many(wanted)
    assert typed("dump", "--out", tmp_path / "all.jsonl") == 0
    assert typed("dump") == 0
    out = capsys.readouterr().out
    assert sorted(out.split("\n")[1:]) == sorted((tmp_path / "all.jsonl").read_text().split("\n"))
    ring.delete_many(wanted)
    assert typed("load", tmp_path / "all.jsonl") == 0
    back = dict(ring.items())
    assert exactly([back.pop(key) for key in wanted]) == exactly(list(wanted.values()))
    assert not back


def test_a_dump_of_a_prefix_has_only_those(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    ring.put_many({"user/1": 1, "user/2": 2, "other": 3})
    assert typed("dump", "user/") == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        '{"key": "user/1", "value": 1}',
        '{"key": "user/2", "value": 2}',
    ]


def test_wrong_rows_are_written_to_a_file_and_the_others_stored(
    ring: Ring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, rejects = tmp_path / "rows.csv", tmp_path / "rows.csv.rejects.jsonl"
    file.write_text('id,x\r\n1,a\r\n2\r\n3,"c\r\nd"\r\n,e\r\n1,f\r\n')
    assert typed("load", file, "--key", "id") == 1
    said = capsys.readouterr()
    assert "3 rows stored, 2 rejected" in said.out and "1 had the key of an earlier one" in said.out
    assert said.err == f"{file}:3: 1 column instead of 2\n{file}:6: the key, 'id', is empty\n"
    assert [json.loads(line) for line in rejects.read_text().splitlines()] == [
        {"line": 3, "reason": "1 column instead of 2", "text": "2"},
        {"line": 6, "reason": "the key, 'id', is empty", "text": ",e"},
    ]
    assert dict(ring.items()) == {"1": {"id": "1", "x": "f"}, "3": {"id": "3", "x": "c\r\nd"}}
    file.write_text("id,x\n1,a\n")
    assert typed("load", file, "--key", "id", "--json") == 0
    assert not rejects.exists() and not states(tmp_path)
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["stored"], report["rejected"], report["rejects"]) == ("csv", 1, 0, None)


def test_an_interrupted_load_goes_on_where_it_was(ring: Ring, tmp_path: Path) -> None:
    rows = 12_000
    file = tmp_path / "rows.csv"
    file.write_text("id,x\n-1\n" + "".join(f"{n},{'x' * 300}\n" for n in range(rows)) + "-2\n")
    load = ["load", str(file), "--key", "id"]
    process = started_process(*load)
    eventually(lambda: "4999" in ring, what="the first batches stored")  # so many are not under way at a time
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, f"{file}: csv, utf-8, key id\n")
    (state,) = (json.loads(path.read_text()) for path in states(tmp_path))
    line = state["place"][1]
    assert f"stopped before line {line:,} of {file}" in err and "--resume" in err
    assert 1_000 <= line < rows

    before = file.stat()
    with file.open("a") as more:
        more.write("-3\n")
    refused = started_process(*load, "--resume").communicate(timeout=60)
    assert refused == (
        "",
        f"ring: {file} has changed since a load of it got to line {line:,}: load all of it, without --resume\n",
    )
    os.truncate(file, before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused = started_process(*load[:-1], "x", "--resume").communicate(timeout=60)
    assert "had --key id, not x" in refused[1]

    assert ring.delete("0")  # would be back if the first rows were loaded again
    process = started_process(*load, "--resume")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"going on at line {line:,}\n" in out and f"{rows:,} rows stored, 2 rejected" in out
    assert ring.count() == rows - 1 and "0" not in ring
    rejects = (tmp_path / "rows.csv.rejects.jsonl").read_text().splitlines()
    assert [json.loads(each)["text"] for each in rejects] == ["-1", "-2"]
    assert not states(tmp_path)


@pytest.mark.parametrize("size", [1, 13_000])
def test_a_load_of_standard_input_that_says_nothing_ends_with_a_signal(ring: Ring, size: int) -> None:
    process = started_process("load", "-", "--key", "id", "--format", "csv")
    assert process.stdin is not None
    process.stdin.write("id\n" + "".join(f"{n}\n" for n in range(size)))
    process.stdin.flush()
    eventually(lambda: not unread(process.stdin), what="all of it read")
    eventually(lambda: size == 1 or "9999" in ring, what="the first rows stored")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdin.close()
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_standard_input_is_loaded_as_a_file_is(ring: Ring) -> None:
    process = started_process("load", "-")
    out, err = process.communicate('{"key": "a", "value": {"tuple": [1]}}\rnonsense\r')
    assert process.returncode == 1
    assert "1 row stored, 1 rejected, which are in" in out and "standard input:2: invalid JSON" in err
    assert dict(ring.items()) == {"a": (1,)}
    assert Path("stdin.rejects.jsonl").exists()


def test_empty_standard_input_is_said_to_be_empty(ring: Ring) -> None:
    process = started_process("load", "-")
    out, err = process.communicate("\n")
    assert (process.returncode, err) == (0, "ring load: standard input is empty: there is nothing to load\n")
    assert out.splitlines()[-1].startswith("0 rows stored, 0 rejected")


def test_scripts_are_done_and_verified_as_ever(ring: Ring, tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text("put a 1\nget a\nput b 2\ndelete b\n")
    for words, given in ((["load", str(script)], None), (["load", "-"], script.read_text())):
        process = started_process(*words)
        out, err = process.communicate(given)
        assert (process.returncode, err) == (0, "")
        assert "2 put, 1 got, 1 deleted; 2 keys verified" in out
    assert dict(ring.items()) == {"a": "1"}


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("put a 1\n", ["--key", "a"], "is a script, which has no rows"),
        ("id\n1\n", ["--format", "csv"], "say with --key which column"),
        ("id\n1\n", ["--format", "csv", "--key", "id", "--rejects", "FILE"], "is the file to load"),
        (b"id,x\n1,\xe9\n", ["--key", "id"], "line 2: byte 3 of it, 0xe9, is not utf-8"),
        ("", ["--format", "csv", "--key", "id"], "does not begin with the names of its columns"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    ring: Ring, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, words: list[str], said: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert typed("load", file, *(word.replace("FILE", str(file)) for word in words)) == 2
    assert said in capsys.readouterr().err
    assert ring.count() == 0 and file.exists() and not states(tmp_path)


def test_a_dump_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    out.write_text("before")
    with pytest.raises(Unavailable), _output(out) as file:
        file.write(b"half")
        raise Unavailable("gone")
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]
