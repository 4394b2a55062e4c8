"""Files in a ring of real processes: what goes in comes out, whatever is shared, broken off, lost or damaged."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node import AsyncRing, Ring
from node.cli.local import LocalRing
from node.client.blocks import Blocks, at_a_time
from node.client.manifests import BLOCK_KEY, CLAIM_KEY, FILE_KEY, RESERVED, Manifest
from node.client.upload import GRACE
from node.codec import Address, pack
from node.errors import BadUsage, Damaged, NoSuchFile
from tests.ring.nodes import ROOT, eventually

KIB = 1024
BLOCK = 16 * KIB
"""Bytes of a block in these tests, so that small files have many."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A ring of three nodes that lasts for all tests of this module; one of its nodes."""
    yield from ring_of_processes(tmp_path_factory.mktemp("ring"), "--replicas", "2", "--durability", "os")


@pytest.fixture(scope="module")
def eventual_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The same, eventual."""
    words = ("--replicas", "2", "--durability", "os", "--consistency", "eventual")
    yield from ring_of_processes(tmp_path_factory.mktemp("eventual"), *words)


def ring_of_processes(directory: Path, *words: str) -> Iterator[Address]:
    loop = asyncio.new_event_loop()
    ring = LocalRing(3, directory, *words)
    loop.run_until_complete(ring.__aenter__())
    try:
        yield ring.addresses[0]
    finally:
        loop.run_until_complete(ring.__aexit__(None, None, None))
        loop.close()


@pytest.fixture
def ring(node: Address) -> Iterator[Ring]:
    with Ring.connect(node) as ring:
        yield ring


def on(node: Address, work: Callable[[AsyncRing], Awaitable[Any]]) -> Any:
    """What some work on a ring comes to."""

    async def main() -> Any:
        async with await AsyncRing.connect(node) as ring:
            return await work(ring)

    return asyncio.run(main())


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(f"{size} {seed}").randbytes(size)


class Told:
    """What `progress` is told: blocks sent and not sent."""

    def __init__(self) -> None:
        self.sent = self.spared = self.size = 0

    def __call__(self, size: int, sent: bool) -> None:
        self.size += size
        self.sent += sent
        self.spared += not sent


def block_keys(data: bytes, block: int = BLOCK) -> list[bytes]:
    return [BLOCK_KEY + hashlib.sha256(data[at : at + block]).digest() for at in range(0, len(data), block)]


# -- in and out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 10 * BLOCK, 50 * BLOCK + 77])
@pytest.mark.parametrize("kind", ["chain", "eventual"])
def test_what_goes_in_comes_out(kind: str, size: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    node = request.getfixturevalue("node" if kind == "chain" else "eventual_node")
    data = content(size)
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    with Ring.connect(node) as ring:
        put = ring.files.put(source, f"round {size}", block=BLOCK)
        got = ring.files.get(f"round {size}", target)
        with ring.files.open(f"round {size}") as file:
            assert file.read() == data
    assert target.read_bytes() == data
    assert got == put
    assert (put.size, put.blocks, put.sha256) == (size, -(-size // BLOCK), hashlib.sha256(data).hexdigest())
    assert put.modified == source.stat().st_mtime
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_blocks_of_the_usual_size(ring: Ring, tmp_path: Path) -> None:
    data = content(5_000_000)
    assert ring.files.put(io.BytesIO(data), "usual").blocks == 5
    out = io.BytesIO()
    ring.files.get("usual", out)
    assert out.getvalue() == data


def test_a_pipe_that_gives_little_at_a_time(ring: Ring) -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.left = data

        def read(self, size: int = -1, /) -> bytes:
            piece, self.left = self.left[: min(size, 1000)], self.left[min(size, 1000) :]
            return piece

    data = content(3 * BLOCK + 5)
    assert ring.files.put(Trickle(data), "trickle", block=BLOCK).blocks == 4
    assert ring.files.open("trickle").read() == data


def test_a_file_put_again_replaces_the_one_before_as_a_whole(ring: Ring) -> None:
    ring.files.put(io.BytesIO(b"old" * BLOCK), "replaced", block=BLOCK)
    with ring.files.open("replaced") as opened_before:
        ring.files.put(io.BytesIO(b"new"), "replaced", block=BLOCK)
        assert opened_before.read() == b"old" * BLOCK
    assert ring.files.open("replaced").read() == b"new"


def test_names_sizes_and_times(ring: Ring) -> None:
    for name, size in (("list/b", 1), ("list/a", 3 * BLOCK), ("other", 2)):
        ring.files.put(io.BytesIO(bytes(size)), name, block=BLOCK)
    assert [(info.name, info.size, info.blocks) for info in ring.files.ls("list/")] == [
        ("list/a", 3 * BLOCK, 3),
        ("list/b", 1, 1),
    ]
    assert {"list/a", "list/b", "other"} <= {info.name for info in ring.files.ls()}
    assert ring.files.stat("list/a") == ring.files.ls("list/a")[0]
    assert ring.files.rm("list/a") is True
    assert ring.files.rm("list/a") is False
    assert [info.name for info in ring.files.ls("list/")] == ["list/b"]


def test_a_name_that_is_not_there(ring: Ring, tmp_path: Path) -> None:
    for ask in (ring.files.stat, ring.files.open, lambda name: ring.files.get(name, tmp_path / "x")):
        with pytest.raises(NoSuchFile, match="no file 'nothing'"):
            ask("nothing")
    assert not list(tmp_path.iterdir())
    assert issubclass(NoSuchFile, FileNotFoundError)


@pytest.mark.parametrize("name", ["", "x" * 5000, "\udc80", 7])
def test_what_is_no_name_is_refused(ring: Ring, name: Any) -> None:
    with pytest.raises(BadUsage, match="name"):
        ring.files.put(io.BytesIO(b""), name)


def test_what_cannot_be_read_changes_nothing(ring: Ring, tmp_path: Path) -> None:
    ring.files.put(io.BytesIO(b"as it was"), "kept")
    with pytest.raises(FileNotFoundError):
        ring.files.put(tmp_path / "absent", "kept")
    assert ring.files.open("kept").read() == b"as it was"


def test_what_files_are_made_of_is_no_key_of_anybody(ring: Ring) -> None:
    ring.files.put(io.BytesIO(b"quiet"), "quiet")
    ring.put(b"\x00mine", 1)
    ring.put("mine", 2)
    assert set(ring.keys()) == {"\x00mine", "mine"} == {key for key, _ in ring.items()}
    reserved = set(ring.keys(reserved=True)) - {"\x00mine", "mine"}
    assert (RESERVED + b"file/quiet").decode() in reserved
    assert {key for key, _ in ring.items(reserved=True)} == {*reserved, "\x00mine", "mine"}
    ring.delete_many([b"\x00mine", "mine"])


# -- what is shared --------------------------------------------------------------------------------------------------


def test_a_block_that_is_there_is_not_sent_again(ring: Ring) -> None:
    data = content(20 * BLOCK, seed=1)
    first, again, grown = Told(), Told(), Told()
    ring.files.put(io.BytesIO(data), "shared 1", block=BLOCK, progress=first)
    ring.files.put(io.BytesIO(data), "shared 2", block=BLOCK, progress=again)
    ring.files.put(io.BytesIO(data + b"more"), "shared 3", block=BLOCK, progress=grown)
    assert [(told.sent, told.spared) for told in (first, again, grown)] == [(20, 0), (0, 20), (1, 20)]
    assert first.size == again.size == len(data)


def test_equal_blocks_of_one_file_are_one(ring: Ring) -> None:
    ring.files.put(io.BytesIO(b"same" * (5 * BLOCK)), "zeros", block=BLOCK)
    assert ring.files.open("zeros").read() == b"same" * (5 * BLOCK)
    key = BLOCK_KEY + hashlib.sha256(b"same" * (BLOCK // 4)).digest()
    assert ring.get(key) == b"same" * (BLOCK // 4)


def test_a_put_that_broke_off_goes_on_where_it_was(ring: Ring) -> None:
    data = content(200 * BLOCK, seed=2)

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 150 * BLOCK:
                raise OSError("the disk is gone")
            return super().read(size)

    with pytest.raises(OSError, match="disk is gone"):
        ring.files.put(Breaking(data), "broken off", block=BLOCK)
    with pytest.raises(NoSuchFile):
        ring.files.stat("broken off")
    there = {key for key in block_keys(data) if ring.get(key) is not None}
    assert 150 - at_a_time(BLOCK) <= len(there) <= 150  # those under way may be there or not
    told = Told()
    ring.files.put(io.BytesIO(data), "broken off", block=BLOCK, progress=told)
    assert told.sent <= 50 + at_a_time(BLOCK)
    assert ring.files.open("broken off").read() == data


def test_concurrent_puts_of_overlapping_files(node: Address) -> None:
    files = {f"together {n}": content(10 * BLOCK, seed=5) + content(5 * BLOCK, seed=n % 3) for n in range(9)}

    async def work(ring: AsyncRing) -> None:
        await asyncio.gather(*(ring.files.put(io.BytesIO(data), name, block=BLOCK) for name, data in files.items()))
        for name, data in files.items():
            async with await ring.files.open(name) as file:
                assert await file.read() == data

    on(node, work)


def test_concurrent_puts_of_one_name_leave_one_of_them(ring: Ring) -> None:
    versions = [content(8 * BLOCK, seed=n) for n in range(4)]
    threads = [
        threading.Thread(target=ring.files.put, args=(io.BytesIO(data), "contended"), kwargs={"block": BLOCK})
        for data in versions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ring.files.open("contended").read() in versions


# -- reading ---------------------------------------------------------------------------------------------------------


def test_reading_from_any_place(ring: Ring) -> None:
    data = content(9 * BLOCK + 123, seed=3)
    ring.files.put(io.BytesIO(data), "places", block=BLOCK)
    twin = io.BytesIO(data)
    rng = random.Random(3)
    with ring.files.open("places") as file:
        assert file.readable() and file.seekable() and not file.writable()
        for _ in range(200):
            if rng.random() < 0.6:
                whence = rng.choice([io.SEEK_SET, io.SEEK_END])
                offset = rng.randrange(len(data)) if whence == io.SEEK_SET else -rng.randrange(len(data))
                assert file.seek(offset, whence) == twin.seek(offset, whence)
            size = rng.choice([0, 1, 100, BLOCK, 3 * BLOCK + 1])
            assert file.read(size) == twin.read(size)
            assert file.tell() == twin.tell()
        file.seek(len(data) + 5)
        assert file.read(1) == b""
        with pytest.raises(BadUsage, match="no place"):
            file.raw.seek(-1)
    assert file.closed
    with pytest.raises(BadUsage, match="mode 'rb'"):
        ring.files.open("places", "wb")  # type: ignore[arg-type]


def test_reading_lines(ring: Ring) -> None:
    lines = [f"line {n}\n".encode() for n in range(5000)]
    ring.files.put(io.BytesIO(b"".join(lines)), "lines", block=BLOCK)
    with ring.files.open("lines") as file:
        assert list(file) == lines


def test_an_open_file_in_asyncio(node: Address) -> None:
    data = content(6 * BLOCK + 9, seed=4)

    async def work(ring: AsyncRing) -> None:
        await ring.files.put(io.BytesIO(data), "async", block=BLOCK)
        async with await ring.files.open("async") as file:
            assert file.info.size == len(data)
            assert await file.read(10) == data[:10]
            assert [len(piece) async for piece in file] == [BLOCK - 10, *[BLOCK] * 5, 9]
            assert file.seek(-9, io.SEEK_END) == file.tell() == 6 * BLOCK
            assert await file.read() == data[-9:]
        with pytest.raises(ValueError, match="closed"):
            await file.read(1)

    on(node, work)


# -- what is damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("harm", "what"), [(None, "missing"), (b"other", "not what was stored"), (5, "not what was")])
def test_a_block_that_is_missing_or_wrong_is_named(ring: Ring, tmp_path: Path, harm: Any, what: str) -> None:
    data = content(8 * BLOCK, seed=6)
    told = Told()
    ring.files.put(io.BytesIO(data), "harmed", block=BLOCK, whole=True)
    key = block_keys(data)[5]
    ring.delete(key) if harm is None else ring.put(key, harm)
    with pytest.raises(Damaged, match=f"block 5 of 8 of file 'harmed' is {what}") as raised:
        ring.files.get("harmed", tmp_path / "out")
    assert raised.value.args[1:] == (5, key.removeprefix(BLOCK_KEY).hex())
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part").read_bytes() == data[: 5 * BLOCK]
    with ring.files.open("harmed") as file:
        file.seek(5 * BLOCK + 1)
        with pytest.raises(Damaged, match="block 5 of 8"):
            file.read(1)
    ring.files.put(io.BytesIO(data), "harmed", block=BLOCK, whole=True, progress=told)
    assert told.sent == 8
    assert ring.files.open("harmed").read() == data


# -- getting, resumed ------------------------------------------------------------------------------------------------


def test_a_get_goes_on_behind_what_is_right(ring: Ring, tmp_path: Path) -> None:
    data = content(10 * BLOCK + 1, seed=7)
    ring.files.put(io.BytesIO(data), "resumed", block=BLOCK)
    target, part = tmp_path / "out", tmp_path / "out.part"
    for left, kept in ((data[: 4 * BLOCK + 7], 4), (data[: 2 * BLOCK] + b"?" * 4 * BLOCK, 2), (data + b"more", 11)):
        part.write_bytes(left)
        told = Told()
        ring.files.get("resumed", target, resume=True, progress=told)
        assert (target.read_bytes(), part.exists()) == (data, False)
        assert (told.sent, told.size) == (11 - kept, len(data))
    part.write_bytes(b"?" * 100 * BLOCK)
    ring.files.get("resumed", target)
    assert (target.read_bytes(), part.exists()) == (data, False)


def test_a_get_onto_what_another_process_writes_is_refused(ring: Ring, tmp_path: Path) -> None:
    ring.files.put(io.BytesIO(b"x"), "locked")
    from node.client.part import Part

    writing = Part(tmp_path / "out")
    with pytest.raises(BadUsage, match=r"another process writes .*out\.part"):
        ring.files.get("locked", tmp_path / "out")
    writing.close()
    with pytest.raises(BadUsage, match="is a directory"):
        ring.files.get("locked", tmp_path)


# -- collecting ------------------------------------------------------------------------------------------------------


def collected(node: Address, grace: float = 0.0, **how: bool) -> tuple[int, int]:
    """Blocks removed, and blocks that wait."""

    async def work(ring: AsyncRing) -> tuple[int, int]:
        found = await ring.files.gc(grace=grace, **how)
        return found.removed, found.waiting

    result: tuple[int, int] = on(node, work)
    return result


@pytest.mark.parametrize("kind", ["chain", "eventual"])
def test_blocks_go_when_no_file_has_them_and_the_grace_is_over(kind: str, request: pytest.FixtureRequest) -> None:
    node = request.getfixturevalue("node" if kind == "chain" else "eventual_node")
    alone = kind == "eventual"
    collected(node, alone=alone)
    common, own = content(4 * BLOCK, seed=8), content(6 * BLOCK, seed=9)
    with Ring.connect(node) as ring:
        ring.files.put(io.BytesIO(common + own), "goes", block=BLOCK)
        ring.files.put(io.BytesIO(common), "stays", block=BLOCK)
        assert collected(node, alone=alone) == (0, 0)
        ring.files.rm("goes")
        assert collected(node, grace=GRACE, alone=alone) == (0, 6)
        assert collected(node, alone=alone, dry_run=True) == (6, 0)
        assert all(ring.get(key) is not None for key in block_keys(own))
        assert collected(node, alone=alone) == (6, 0)
        assert all(ring.get(key) is None for key in block_keys(own))
        assert ring.files.open("stays").read() == common
        told = Told()
        ring.files.put(io.BytesIO(common + own), "goes", block=BLOCK, progress=told)
        assert (told.sent, told.spared) == (6, 4)
        assert ring.files.open("goes").read() == common + own


def test_a_block_without_a_claim_goes_with_the_second_collection(ring: Ring, node: Address) -> None:
    collected(node)
    data = content(BLOCK, seed=10)
    (key,) = block_keys(data)
    ring.put(key, data)
    assert collected(node) == (0, 1)
    assert ring.get(key) == data
    assert collected(node) == (1, 0)
    assert ring.get(key) is None and ring.get(CLAIM_KEY + key.removeprefix(BLOCK_KEY)) is None


def test_an_eventual_ring_collects_only_for_one_who_is_alone(eventual_node: Address) -> None:
    with pytest.raises(BadUsage, match="alone"):
        collected(eventual_node)


@pytest.mark.parametrize("when", ["taken back", "removed"])
def test_a_block_that_is_wanted_while_it_is_collected_is_not_lost(
    node: Address, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put comes between any two steps of the collector: the claim read, taken back, the block removed."""
    collected(node)
    data = content(BLOCK, seed=11)
    state = Blocks.state

    async def work(ring: AsyncRing) -> None:
        await ring.files.put(io.BytesIO(data), "first", block=BLOCK)
        await ring.files.rm("first")
        other = await AsyncRing.connect(node)

        async def put_between(blocks: Blocks, digest: bytes, version: Any, *, there: bool) -> Any:
            if there:
                return await state(blocks, digest, version, there=there)
            monkeypatch.setattr(Blocks, "state", state)
            if when == "taken back":
                await other.files.put(io.BytesIO(data), "second", block=BLOCK)
                return await state(blocks, digest, version, there=there)
            taken_back = await state(blocks, digest, version, there=there)
            await other.files.put(io.BytesIO(data), "second", block=BLOCK)
            return taken_back

        monkeypatch.setattr(Blocks, "state", put_between)
        assert (await ring.files.gc(grace=0.0)).removed == 0
        async with other, await other.files.open("second") as file:
            assert await file.read() == data

    on(node, work)


def test_a_put_that_takes_longer_than_the_grace_is_told_if_blocks_were_collected(
    node: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(node)
    data = content(3 * BLOCK, seed=12)

    async def work(ring: AsyncRing) -> None:
        files = ring.files
        told = Told()
        hours = 0.0
        now = files._wall
        files._wall = lambda: now() + 3600 * hours

        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() == 2 * BLOCK:
                    asyncio.run_coroutine_threadsafe(self.collected(), loop).result()
                return super().read(size)

            async def collected(self) -> None:
                nonlocal hours
                while told.sent < 2:
                    await asyncio.sleep(0.01)
                hours = 30.0
                assert (await files.gc()).removed == 2

        loop = asyncio.get_running_loop()
        with pytest.raises(Damaged, match="took so long .* put it again"):
            await files.put(Slow(data), "slow", block=BLOCK, progress=told)
        await files.put(io.BytesIO(data), "slow", block=BLOCK)
        async with await files.open("slow") as file:
            assert await file.read() == data

    on(node, work)


# -- commands --------------------------------------------------------------------------------------------------------


def ring_file(
    node: Address, *words: str | Path, given: bytes = b"", code: int = 0, where: Path | None = None
) -> tuple[bytes, str]:
    """What `ring file ...` prints, on standard output and on standard error."""
    return ring_command(node, "file", *words, given=given, code=code, where=where)


def ring_command(
    node: Address, *words: str | Path, given: bytes = b"", code: int = 0, where: Path | None = None
) -> tuple[bytes, str]:
    done = subprocess.run(
        [sys.executable, "-m", "node.cli.ring", *map(str, words), "--node", str(node)],
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=where or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout, done.stderr.decode()


def test_commands_from_put_to_gc(node: Address, tmp_path: Path) -> None:
    data = content(2_500_000, seed=20)
    source = tmp_path / "photo"
    source.write_bytes(data)
    assert ring_file(node, "put", source)[0] == b"stored 'photo': 2,500,000 bytes in 3 blocks, 3 of them sent\n"
    out, _ = ring_file(node, "put", "-", "piped/photo", "--json", given=data)
    assert json.loads(out)["sent"] == 0 and json.loads(out)["size"] == 2_500_000
    (tmp_path / "here").mkdir()
    assert ring_file(node, "get", "piped/photo", where=tmp_path / "here")[0] == b"photo: 2,500,000 bytes\n"
    assert (tmp_path / "here" / "photo").read_bytes() == data
    assert ring_file(node, "get", "photo", "-")[0] == data
    lines = ring_file(node, "ls", "piped/")[0].decode().splitlines()
    assert [line.split()[0] for line in lines] == ["size", "2,500,000"] and lines[1].endswith("piped/photo")
    assert hashlib.sha256(data).hexdigest() in ring_file(node, "stat", "photo")[0].decode()
    info = json.loads(ring_file(node, "stat", "photo", "--json")[0])
    assert (info["name"], info["blocks"], info["modified"]) == ("photo", 3, source.stat().st_mtime)
    assert ring_file(node, "rm", "photo", "piped/photo") == (b"", "")
    assert json.loads(ring_file(node, "gc", "--json")[0])["waiting"] >= 3
    assert b"would remove" in ring_file(node, "gc", "--grace", "0", "--dry-run")[0]
    assert json.loads(ring_file(node, "gc", "--grace", "0", "--json")[0])["removed"] >= 3


def test_commands_say_what_is_wrong_in_one_line(node: Address, tmp_path: Path) -> None:
    missing = "there is no file 'nothing' in the ring"
    for words in (("get", "nothing", tmp_path / "x"), ("stat", "nothing"), ("rm", "nothing")):
        out, err = ring_file(node, *words, code=3)
        assert (out, err) == (b"", f"ring file {words[0]}: {missing}\n")
    assert ring_file(node, "put", tmp_path / "absent", code=2)[1].endswith("absent: No such file or directory\n")
    assert "give NAME" in ring_file(node, "put", "-", code=2)[1]
    ring_file(node, "put", "-", "somewhere/", given=b"x")
    assert ring_file(node, "get", "somewhere/", tmp_path / "no" / "x", code=2)[1].count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_dump_holds_files_and_a_load_brings_them_back(ring: Ring, node: Address, tmp_path: Path) -> None:
    data = content(3 * BLOCK + 1, seed=23)
    ring.files.put(io.BytesIO(data), "dumped", block=BLOCK)
    ring_command(node, "dump", "--out", tmp_path / "all.jsonl")
    ring.files.rm("dumped")
    ring.delete_many(block_keys(data))
    ring_command(node, "load", tmp_path / "all.jsonl")
    assert ring.files.open("dumped").read() == data


def test_the_shell_knows_the_commands(node: Address) -> None:
    ring_file(node, "put", "-", "from a shell", given=b"12345")
    lines = ring_command(node, "shell", given=b"file ls 'from a shell'\n")[0].decode().splitlines()
    assert lines[1].split()[0] == "5" and lines[1].endswith("from a shell")


def interrupted(node: Address, *words: str | Path, when: Callable[[], bool], feed: bytes = b"") -> str:
    """Start `ring file ...`, press Ctrl-C when something holds; what it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli.ring", "file", *map(str, words), "--node", str(node)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stderr is not None
    with process:
        process.stdin.write(feed)
        process.stdin.flush()
        eventually(lambda: when() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode().strip()
        assert process.wait(30) == 130
    return said


def test_a_put_that_is_interrupted_leaves_nothing_and_goes_on(ring: Ring, node: Address) -> None:
    data = content(3 << 20, seed=21)
    first = block_keys(data, 1 << 20)[0]
    claim = CLAIM_KEY + first.removeprefix(BLOCK_KEY)
    half = data[: 3 << 19]  # the pipe stays open, so the command waits for more
    said = interrupted(node, "put", "-", "half", feed=half, when=lambda: ring.get(claim) is not None)
    assert said == (
        "ring file put: interrupted: 'half' is as it was before, or all new; "
        "the same command again sends only what is missing"
    )
    with pytest.raises(NoSuchFile):
        ring.files.stat("half")
    out, _ = ring_file(node, "put", "-", "half", "--json", given=data)
    assert json.loads(out)["sent"] == 2


def test_a_get_that_is_interrupted_keeps_its_part_and_goes_on(ring: Ring, node: Address, tmp_path: Path) -> None:
    data = content(1 << 20, seed=22)
    ring.files.put(io.BytesIO(data), "endless")
    digests = hashlib.sha256(data).digest() * 50_000  # the one block again and again, so that it takes minutes
    ring.put(FILE_KEY + b"endless", pack(Manifest(50_000 << 20, 1 << 20, digests, bytes(32), 0.0)))
    target, part = tmp_path / "out", tmp_path / "out.part"
    came = lambda: part.exists() and part.stat().st_size > 1 << 20  # noqa: E731
    said = interrupted(node, "get", "endless", target, when=came)
    assert said == f"ring file get: interrupted: what came is in {part}; with --resume it goes on behind that"
    assert not target.exists()
    came_first = part.stat().st_size >> 20
    with part.open("rb") as file:
        assert all(file.read(1 << 20) == data for _ in range(came_first))
    ring.files.put(io.BytesIO(data * (came_first + 2)), "endless")
    ring_file(node, "get", "endless", target, "--resume")
    assert target.read_bytes() == data * (came_first + 2) and not part.exists()


# -- at length -------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_memory_stays_flat_with_a_large_file(node: Address, tmp_path: Path) -> None:
    class Noise(io.RawIOBase):
        """200 MB that are nowhere."""

        def __init__(self) -> None:
            self.left = 200_000_000
            self.noise = random.Random(13)

        def read(self, size: int = -1, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return self.noise.randbytes(size)

    with Ring.connect(node) as ring:
        ring.files.put(io.BytesIO(content(5_000_000)), "warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        info = ring.files.put(Noise(), "large")
        ring.files.get("large", tmp_path / "large")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / KIB
    assert info.size == (tmp_path / "large").stat().st_size == 200_000_000
    with (tmp_path / "large").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == info.sha256
    assert grown < 60, f"{grown:.0f} MB"
