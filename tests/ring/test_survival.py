"""Real nodes that die for good, together, or with their disks: nothing acknowledged is lost, and nobody has to help."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.replication.identity import BOOT
from node.store.interface import Batch
from node.store.rocks import open_store
from tests.ring.nodes import NodeProcess, RingOfProcesses, eventually, is_remote
from tests.ring.test_ring_of_processes import assert_all_there, load

KEYS = 60


def whole(node: NodeProcess, replicas: int = 3) -> bool:
    """Whether every arc has as many replicas as it should, and they agree."""
    with node.connection() as root:
        return all(not arc[4] and len(arc[3]) == replicas for arc in root.verify())


def write_again(node: NodeProcess, keys: dict[str, int]) -> None:
    """Read and write every key as a client that tries again."""
    for key in keys:

        def once(key: str = key) -> bool:
            with node.connection() as root:
                assert root.get(key) == keys[key]
                root.put(key, keys[key] + 1)
                return True

        try:
            eventually(once, what=f"{key} readable and writable")
        finally:
            keys[key] += 1


def test_any_two_of_five_die_for_good(ring: RingOfProcesses) -> None:
    nodes = ring.of(5)
    keys = load(nodes[0], KEYS)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything")
    for victim in (nodes[3], nodes[1]):
        victim.kill()
        nodes.remove(victim)
        with nodes[0].connection() as root:
            eventually(lambda root=root: len({node for arc in root.verify() for node in arc[3]}) == len(nodes))
        eventually(lambda: whole(nodes[0]), what="three replicas of everything again")
    write_again(nodes[1], keys)
    for node in nodes:
        assert_all_there(node, keys)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_all_killed_at_once_under_load_lose_nothing(ring: RingOfProcesses, durability: str) -> None:
    nodes = ring.of(4, "--durability", durability)
    acknowledged: dict[str, int] = {}
    going_on = True

    def write(number: int) -> None:
        with nodes[number % 4].connection() as root:
            for n in range(100_000):
                try:
                    root.put(f"{number}/{n}", n)
                except EOFError:
                    return
                acknowledged[f"{number}/{n}"] = n
                if not going_on:
                    return

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    eventually(lambda: len(acknowledged) > 500, what="writes under way")
    for node in nodes:
        node.kill()
    going_on = False
    for writer in writers:
        writer.join(30)
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        node.ready()
    ring.agreed(4)
    eventually(lambda: assert_all_there(nodes[1], acknowledged) is None, what="every acknowledged write")


def test_a_node_that_lost_its_disk_comes_back_under_its_old_id(ring: RingOfProcesses) -> None:
    nodes = ring.of(4)
    keys = load(nodes[0], KEYS)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything")
    victim = nodes[2]
    victim.kill()
    shutil.rmtree(victim.directory)
    victim.words += ["--id", victim.id]
    victim.start()
    ring.agreed(4)
    for node in (victim, nodes[0]):
        eventually(lambda node=node: assert_all_there(node, keys) is None, what="every key")
    write_again(victim, keys)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything again")
    for node in nodes:
        assert_all_there(node, keys)


def test_a_node_whose_machine_lost_power_takes_a_new_life(ring: RingOfProcesses) -> None:
    nodes = ring.of(3, "--durability", "os")
    keys = load(nodes[0], KEYS)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything")
    victim = nodes[1]
    victim.kill()
    asyncio.run(pretend_another_boot(victim.directory))
    victim.start()
    assert "stopped without warning" in victim.directory.with_suffix(".log").read_text()
    write_again(victim, keys)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything again")
    for node in nodes:
        assert_all_there(node, keys)


async def pretend_another_boot(directory: Path) -> None:
    """Have the note of the machine's boot be of one before."""
    store = await open_store(directory)
    assert await store.read_note(BOOT)
    batch = Batch()
    batch.note(BOOT, b"another")
    await store.commit(batch)
    await store.close()


def test_two_of_three_replicas_killed_at_once(ring: RingOfProcesses) -> None:
    nodes = ring.of(5)
    keys = load(nodes[0], KEYS)
    eventually(lambda: whole(nodes[0]), what="three replicas of everything")
    with nodes[0].connection() as root:
        holders = [port for _, port, _ in root.replicas("key 1")]
    victims = [node for node in nodes if node.port in holders[:2]]
    for victim in victims:
        victim.kill()
    survivors = [node for node in nodes if node not in victims]
    died = time.monotonic()
    write_again(survivors[0], keys)
    assert time.monotonic() - died < 30
    for node in survivors:
        assert_all_there(node, keys)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_reads_go_on_and_nothing_is_lost(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(24 << 20))
    ring = RingOfProcesses(small_disk)
    try:
        nodes = ring.of(3)
        eventually(lambda: whole(nodes[0]), what="three replicas of everything")
        kept: dict[str, bytes] = {}
        with nodes[0].connection() as root:
            with pytest.raises(Exception) as refused:
                for n in range(2_000):
                    value = b"%09d" % n * 10_000
                    root.put(f"key {n}", value)
                    kept[f"key {n}"] = value
            assert is_remote(refused.value, "StoreFull") or is_remote(refused.value, "OutcomeUnknown"), refused.value
            assert "full" in str(refused.value)
        for node in nodes:
            with node.connection() as root:
                assert all(root.get(key) == value for key, value in kept.items()), "reads go on"
        ballast.unlink()

        def writes() -> bool:
            with nodes[1].connection() as root:
                return bool(root.put("room", "again"))

        eventually(writes, what="writes once there is room")
        for node in nodes:
            with node.connection() as root:
                assert all(root.get(key) == value for key, value in kept.items()), "nothing is lost"
    finally:
        ring.close()
