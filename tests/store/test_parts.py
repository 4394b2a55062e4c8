"""The committer and the reader on a disk of the test's making: what fails, stalls or is slow is chosen here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

from node.errors import OutcomeUnknown, RingError, StoreFull
from node.identifiers import Identifier, name_at
from node.store.committer import Committer, Stalled
from node.store.committer import _size as size_of_steps
from node.store.interface import Batch
from node.store.names import Step
from node.store.reader import LARGE, Reader


class Disk:
    """Fails as told, once each; writes wait while the gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.wrote: list[list[Step]] = []
        self.done: list[str] = []
        self.failures: dict[str, Exception] = {}

    def _do(self, what: str) -> None:
        self.gate.wait()
        self.done.append(what)
        if what in self.failures:
            raise self.failures.pop(what)

    def write(self, steps: list[Step]) -> None:
        self._do("write")
        self.wrote.append(steps)

    def write_at_once(self, steps: list[Step]) -> None:
        self._do("at once")
        self.wrote.append(steps)

    def sync(self, to_disk: bool) -> None:
        self._do("sync" if to_disk else "flush")

    def reopen(self) -> None:
        self._do("reopen")


def batch(n: int) -> Batch:
    made = Batch()
    made.put(name_at(Identifier(n), b"k"), b"v")
    return made


def test_what_queues_up_during_a_write_is_written_and_synced_as_one() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = Committer(disk, asyncio.get_running_loop())
        disk.gate.clear()
        commits = [committer.commit(batch(n)) for n in range(50)]
        disk.gate.set()
        await asyncio.gather(*commits)
        await committer.close()
        assert len(disk.wrote) <= 50 and disk.done == ["write", "sync"] * len(disk.wrote)
        assert [step[1][1:21] for group in disk.wrote for step in group] == [Identifier(n).packed for n in range(50)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("where", "error", "event"),
    [
        ("write", StoreFull("full"), "disk-full"),
        ("sync", OutcomeUnknown("who knows"), "disk-failed"),
        ("write", ValueError("?"), None),
    ],
)
def test_a_failure_is_told_and_the_next_commit_begins_with_opening_anew(
    where: str, error: Exception, event: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        disk = Disk()
        committer = Committer(disk, asyncio.get_running_loop())
        disk.failures[where] = error
        with pytest.raises(type(error) if isinstance(error, RingError) else RingError):
            await committer.commit(batch(1))
        disk.done.clear()
        disk.failures["reopen"] = StoreFull("still")
        with pytest.raises(StoreFull, match="still"):
            await committer.commit(batch(2))
        await committer.commit(batch(3))
        await committer.commit(batch(4))
        assert disk.done == ["reopen", "reopen", "write", "sync", "write", "sync"]
        await committer.close()

    asyncio.run(scenario())
    assert [getattr(record, "event", None) for record in caplog.records] == [event, "disk-works"]


def test_a_batch_that_cannot_be_stored_harms_only_itself() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = Committer(disk, asyncio.get_running_loop())
        bad = batch(1)
        bad.put(name_at(Identifier(2), b"k"), None)  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*map(committer.commit, (batch(0), bad, batch(3))), return_exceptions=True)
        assert outcomes[0] is None and isinstance(outcomes[1], TypeError) and outcomes[2] is None
        assert sum(map(len, disk.wrote)) == 2, "nothing of it was written"
        await committer.close()

    asyncio.run(scenario())


def hasty(disk: Disk) -> Committer:
    """For which the page cache is durable enough."""
    committer = Committer(disk, asyncio.get_running_loop())
    committer.to_disk = False
    return committer


def test_what_need_not_reach_the_disk_is_done_without_the_thread() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = hasty(disk)
        assert all(committer.commit(batch(n)).done() for n in range(3))  # type: ignore[attr-defined]
        await committer.commit(batch(3), to_disk=True)
        large = Batch()
        large.put(name_at(Identifier(4), b"k"), bytes(1_000_000))
        await committer.commit(large)
        assert disk.done == [*["at once", "flush"] * 3, "write", "sync", "write", "flush"]
        await committer.close()

    asyncio.run(scenario())


def test_nothing_overtakes_what_the_thread_is_at() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = hasty(disk)
        disk.gate.clear()
        first = committer.commit(batch(0), to_disk=True)
        others = [committer.commit(batch(n)) for n in range(1, 20)]
        disk.gate.set()
        await asyncio.gather(first, *others)
        assert "at once" not in disk.done
        assert [step[1][1:21] for group in disk.wrote for step in group] == [Identifier(n).packed for n in range(20)]
        await committer.close()

    asyncio.run(scenario())


def test_what_would_have_to_wait_is_left_to_the_thread() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = hasty(disk)
        disk.failures["at once"] = Stalled()
        await committer.commit(batch(0))
        assert disk.done == ["at once", "write", "flush"]
        await committer.close()

    asyncio.run(scenario())


def test_a_failure_without_the_thread_is_told_and_mended_by_it() -> None:
    async def scenario() -> None:
        disk = Disk()
        committer = hasty(disk)
        disk.failures["at once"] = StoreFull("full")
        with pytest.raises(StoreFull):
            await committer.commit(batch(0))
        await committer.commit(batch(1))
        await committer.commit(batch(2))
        assert disk.done == ["at once", "reopen", "write", "flush", "at once", "flush"]
        await committer.close()

    asyncio.run(scenario())


class Slow:
    """Has everything on disk and nothing in memory, and notes who asks."""

    def __init__(self) -> None:
        self.asked: list[tuple[threading.Thread, int]] = []
        self.fail = False

    def look(self, names: Iterable[bytes]) -> list[tuple[bool, bytes | None]]:
        return [(True, None) for _ in names]

    def get(self, names: list[bytes]) -> list[bytes | None]:
        self.asked.append((threading.current_thread(), len(names)))
        if self.fail:
            raise OSError("bad block")
        return [name + b"!" for name in names]


def test_names_and_bodies_both_count_for_what_is_done_on_the_loop() -> None:
    keys = [("put", bytes(4000), b"") for _ in range(100)]
    bodies = [("put", b"", bytes(4000)) for _ in range(100)]
    assert size_of_steps(keys) == size_of_steps(bodies) == 400_000


def test_what_memory_does_not_have_is_never_read_on_the_loop() -> None:
    async def scenario() -> None:
        engine = Slow()
        reader = Reader(engine, asyncio.get_running_loop())
        names = [b"%d" % n for n in range(500)]
        assert await asyncio.gather(*map(reader.get, names)) == [name + b"!" for name in names]
        assert len(engine.asked) < 100, "reads that wait go together"
        for some in (names, names * 10):
            assert await reader.get_many(some) == [name + b"!" for name in some]
        assert len(names) < LARGE < len(names * 10)
        assert threading.main_thread() not in {thread for thread, _ in engine.asked}
        reader.close()

    asyncio.run(scenario())


def test_a_failed_or_forgotten_read_does_not_stop_the_next() -> None:
    async def scenario() -> None:
        engine = Slow()
        reader = Reader(engine, asyncio.get_running_loop())
        engine.fail = True
        outcomes = await asyncio.gather(*(reader.get(b"%d" % n) for n in range(20)), return_exceptions=True)
        assert all(isinstance(outcome, OSError) for outcome in outcomes)
        engine.fail = False
        forgotten = [asyncio.ensure_future(reader.get(b"%d" % n)) for n in range(20)]
        await asyncio.sleep(0)
        for task in forgotten:
            task.cancel()
        assert await reader.get(b"x") == b"x!"
        reader.close()

    asyncio.run(scenario())
