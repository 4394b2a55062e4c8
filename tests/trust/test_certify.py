"""An open ring gets certificates: all of it rests, each directory is certified, all of it starts again."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from node import AsyncRing
from node.cli.arguments import USAGE
from node.cli.arguments import run as run_command
from node.cli.trust import certify
from node.errors import BadUsage
from node.remote.node import Node, NodeOptions
from tests.remote.ends import failure_of, run
from tests.trust.rings import SETTINGS, SecureRing, secure_ring, what_it_gets

DATA = {f"key {n}": n for n in range(20)}


def typed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What `ring certify` prints; its refusal, if it is one."""
    code = run_command(certify, "ring certify", [str(word) for word in words])
    out, err = capsys.readouterr()
    assert code == (USAGE if err else 0) and err.count("\n") <= 1
    return err or out


async def open_ring(directory: Path) -> list[NodeOptions]:
    """Three nodes without certificates, which come to rest with data on all of them; how to start them again."""
    nodes: list[Node] = []
    for number in range(3):
        first = nodes[0].address if nodes else None
        nodes.append(Node(NodeOptions(data=directory / f"node{number}", port=0, first=first), SETTINGS))
        await nodes[-1].start()
    async with await AsyncRing.connect(str(nodes[0].address)) as client:
        await client.put_many(DATA)
        while any(problem for *_, problem in await client.verify()):
            await asyncio.sleep(0.05)
    await asyncio.gather(*(node.close() for node in nodes))
    return [NodeOptions(data=directory / f"node{number}", port=node.address.port) for number, node in enumerate(nodes)]


async def known_by_name(ring: SecureRing) -> None:
    """Wait until the ring's own records name all its nodes: so `ring revoke` says when it finds nobody."""
    while True:
        told = str(await failure_of(ring.operate(ring.nodes[0], "revoke", "nobody")))
        if all(f"node {node.address} (" in told for node in ring.nodes):
            return
        await asyncio.sleep(0.05)


def test_an_open_ring_gets_certificates_at_rest_and_keeps_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = run(open_ring(tmp_path))
    first, second, third = (each.data for each in options)
    assert f"ring certify --authority {first / 'trust'}" in typed(capsys, "--data", first)
    copy = shutil.copytree(first / "trust", tmp_path / "copy")
    typed(capsys, "--data", second, "--authority", copy)
    typed(capsys, "--data", third, "--authority", second)

    async def again() -> None:
        async with secure_ring(tmp_path) as ring:
            await ring.back(options)
            for node in ring.nodes:
                credentials = ring.credentials(node)
                async with ring.connection(node, credentials) as connection:
                    assert {key: await connection.call("get", key, deadline=10) for key in DATA} == DATA
            assert await what_it_gets(ring.nodes[0].address, None) == b"", "who has no certificate gets nothing"
            await known_by_name(ring)
            await ring.join()
            assert await ring.ask(ring.nodes[3], ring.credentials(ring.nodes[3])) is None
            gone = ring.nodes[2]
            assert str(gone.address) in str(await ring.operate(ring.nodes[0], "revoke", str(gone.address)))

    run(again())


def test_what_cannot_be_certified_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def refusals() -> None:
        node = Node(NodeOptions(data=tmp_path / "node", port=0), SETTINGS)
        await node.start()
        assert "is in use by process" in typed(capsys, "--data", tmp_path / "node")
        await node.close()

    run(refusals())
    assert "no node keeps its data in" in typed(capsys, "--data", tmp_path / "nothing")
    assert "cannot read the authority in" in typed(capsys, "--data", tmp_path / "node", "--authority", tmp_path)
    assert not (tmp_path / "node" / "trust").exists()
    typed(capsys, "--data", tmp_path / "node")
    assert "already" in typed(capsys, "--data", tmp_path / "node")


def test_a_ring_that_is_open_says_how_it_gets_certificates(tmp_path: Path) -> None:
    async def mistaken() -> None:
        options = NodeOptions(data=tmp_path, port=0)
        node = Node(options, SETTINGS)
        await node.start()
        await node.close()
        with pytest.raises(BadUsage, match="ring certify"):
            await Node(replace(options, secure=True), SETTINGS).start()

    run(mistaken())
