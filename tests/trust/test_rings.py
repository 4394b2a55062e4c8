"""Rings with certificates over time: renewal, revocation, the loss of nodes; and eventual ones."""

from __future__ import annotations

import asyncio
import errno
import shutil
import ssl
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node import AsyncRing
from node.client import credentials
from node.errors import BadUsage, DirectoryDamaged, NotTrusted, Unreachable
from node.remote.connection import Connection
from node.remote.enrolment import enrol
from node.remote.node import Node, NodeOptions
from node.remote.pool import connect
from node.trust.certificates import Authority, hosts_of, id_of, pem_of_key
from node.trust.contexts import client_context
from node.trust.keyring import Keyring, write_private
from tests.remote.ends import HOST, eventually, failure_of, run
from tests.trust.rings import SETTINGS, SecureRing, issued, secure_ring

BRIEF = replace(SETTINGS, certificate=4.0)


async def shown_by(node: Node, ring: SecureRing) -> str:
    """The certificate that a node shows to new connections."""
    context = client_context(ring.credentials(node))
    _, writer = await asyncio.open_connection(HOST, node.address.port, ssl=context)
    shown = ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.transport.abort()
    return shown


async def agreed(ring: SecureRing, count: int) -> None:
    """Wait until every node answers for a ring of so many."""
    for node in ring.nodes:
        async with ring.connection(node, ring.credentials(node)) as connection:
            while len(await connection.call("get_conn_info", deadline=10)) != count:
                await asyncio.sleep(0.05)


async def kept_by(count: int, nodes: list[Node]) -> None:
    """Wait until so many nodes keep the ring map, as every node knows."""

    def keepers(node: Node) -> list[int]:
        chart = node._running.keyspace.cartography.chart
        return [len(group) for group in chart.record.configuration.groups] if chart is not None else []

    await eventually(lambda: all(keepers(node) == [count] for node in nodes))


async def whole(ring: SecureRing) -> None:
    """Wait until every arc has its replicas: what one node alone holds is gone with it."""
    async with ring.connection(ring.nodes[0], ring.credentials(ring.nodes[0])) as connection:
        while any(problem for *_, problem in await connection.call("verify", deadline=10)):
            await asyncio.sleep(0.05)


# -- renewal -----------------------------------------------------------------------------------------------------


def test_nodes_renew_their_certificates_while_they_serve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            nodes = await ring.of(2)
            before = [await shown_by(node, ring) for node in nodes]
            end = max(ring.credentials(node).certificate.not_valid_after_utc.timestamp() for node in nodes)
            written = 0
            while time.time() <= end:
                async with ring.connection(nodes[written % 2], ring.credentials(nodes[0])) as connection:
                    await connection.call("put", f"key{written}", written, deadline=10)
                written += 1
            after = [await shown_by(node, ring) for node in nodes]
            assert not set(before) & set(after)
            for number in range(0, written, max(1, written // 20)):
                async with ring.connection(nodes[0], ring.credentials(nodes[1])) as connection:
                    assert await connection.call("get", f"key{number}", deadline=10) == number

    run(scenario())
    assert {"let-in", "certificate-renewed"} <= {getattr(record, "event", "") for record in caplog.records}


def test_a_connection_ends_with_the_certificate_it_was_made_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            node = await ring.first()
            async with ring.connection(node, await ring.client()) as connection:
                await connection.call("put", "k", 1, deadline=5)
                await eventually(lambda: connection.closed)

    run(scenario())


def test_a_node_whose_certificate_ended_while_it_was_off_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            nodes = await ring.of(2)
            away = nodes[1]
            end = ring.credentials(away).certificate.not_valid_after_utc.timestamp()
            await away.close()
            await eventually(lambda: time.time() > end)
            await ring.again(away)
            await agreed(ring, 2)

    run(scenario())


def disk_is_full(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """From now on, for what a node keeps of trust."""

    def write(path: Path, content: bytes) -> None:
        if path.is_relative_to(directory):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_private(path, content)

    monkeypatch.setattr("node.trust.keyring.write_private", write)


def test_a_node_whose_disk_is_full_heeds_what_it_hears_and_keeps_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(2)
            disk_is_full(monkeypatch, ring.data(nodes[1]))
            client = await ring.client()
            await ring.operate(nodes[0], "revoke", "ann@laptop")
            await eventually(
                lambda: any(id_of(client.certificate) == id for id in nodes[1]._trust._guard.standing.revoked)
            )
            await asyncio.sleep(1.0)
            for _ in range(2):
                assert await ring.ask(nodes[1], ring.credentials(nodes[0])) is None, "it goes on"
                assert type(await failure_of(ring.ask(nodes[1], client))) in (NotTrusted, Unreachable)
            assert not nodes[1]._trust.tasks.failed.done()
            monkeypatch.undo()
            kept = Keyring(ring.data(nodes[1]))
            await eventually(lambda: id_of(client.certificate) in kept.standing.revoked)

    run(scenario())


def test_a_node_whose_disk_is_full_renews_its_certificate_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            node = await ring.first()
            end = ring.credentials(node).until.timestamp()
            disk_is_full(monkeypatch, ring.data(node))
            await eventually(lambda: time.time() > end)
            operator = issued(ring.authority(), "node", "0123456789abcdef")
            assert await ring.ask(node, operator) is None
            await node.close()
            monkeypatch.undo()
            assert await ring.ask(await ring.again(node), operator) is None

    run(scenario())


def test_keys_are_shown_without_being_on_a_disk_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/there/is/none")
    client_context(issued(Authority.new(), "client", "0123456789abcdef"))


class Wrong(datetime):
    """A clock."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.ahead


def test_a_node_that_renewed_by_a_wrong_clock_comes_back_when_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that booted with a clock of another year, which was set after the node had started."""

    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(2)
            await nodes[1].close()
            with monkeypatch.context() as wrong:
                wrong.setattr("node.trust.certificates.datetime", Wrong)
                wrong.setattr(Wrong, "ahead", timedelta(days=365))
                node, key = ring.credentials(nodes[1]), Ed25519PrivateKey.generate()
                own, life = node.certificate, SETTINGS.certificate
                pem = ring.authority(nodes[1]).issue("node", id_of(own), key.public_key(), life, hosts_of(own))
                Keyring(ring.data(nodes[1])).renew(replace(node, identity=pem + pem_of_key(key)))
            await ring.again(nodes[1])
            await agreed(ring, 2)

    run(scenario())


def test_a_certificate_is_taken_though_the_clock_of_the_node_that_made_it_is_hours_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            with monkeypatch.context() as wrong:
                wrong.setattr("node.trust.certificates.datetime", Wrong)
                wrong.setattr(Wrong, "ahead", timedelta(hours=6))
                client = await ring.client()
            assert not client.due
            assert await ring.ask(node, client) is None

    run(scenario())


def test_a_client_renews_its_credentials(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            node = await ring.first()
            file = tmp_path / "config" / "credentials.toml"
            assert await credentials.tls(BRIEF, [node.address], file) is None
            await credentials.login(await ring.token("client"), node.address, BRIEF, file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            seen = [file.read_text()]
            loop = asyncio.get_running_loop()
            begun = loop.time()
            while len(seen) < 3:
                context = await credentials.tls(BRIEF, [node.address], file)
                connection = await connect(HOST, node.address.port, BRIEF, deadline=5, tls=context)
                await connection.call("get", "k", deadline=5)
                connection.close()
                if file.read_text() != seen[-1]:
                    seen.append(file.read_text())
            assert loop.time() - begun > BRIEF.certificate / 2, "renewed without need"

    run(scenario())


def test_a_node_that_moved_is_vouched_for_under_its_new_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            before = ring.credentials(node).certificate
            assert hosts_of(before) == ("127.0.0.1", "localhost")
            await node.close()
            moved = await ring.again(node, listen="127.0.0.2")
            after = ring.credentials(moved).certificate
            assert hosts_of(after) == ("127.0.0.2", "localhost") and id_of(after) == id_of(before)
            await moved.close()
            again = await ring.again(moved)
            assert again.address.host == "127.0.0.2" and ring.credentials(again).certificate == after

    run(scenario())


@pytest.mark.parametrize("file", ["node.pem", "authority.key", "authority.pem", "standing"])
def test_damaged_files_are_named(tmp_path: Path, file: str) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            await node.close()
            (ring.data(node) / "trust" / file).write_bytes(b"\x00 no such thing")
            with pytest.raises(DirectoryDamaged, match=str(ring.data(node) / "trust")):
                await ring.again(node)

    run(scenario())


# -- revocation --------------------------------------------------------------------------------------------------


def test_a_revoked_client_is_cut_off_by_every_node_and_stays_so_over_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(3)
            bad, good = await ring.client(), await ring.client(nodes[1])

            async def connected(node: Node, context: ssl.SSLContext) -> Connection:
                return await connect(HOST, node.address.port, SETTINGS, deadline=5, tls=context)

            its = [await connected(node, client_context(bad)) for node in nodes]
            others = [await connected(node, client_context(good)) for node in nodes]
            await its[0].call("put", "k", 1, deadline=5)
            assert id_of(bad.certificate) in str(await ring.operate(nodes[0], "revoke", id_of(bad.certificate)))
            await eventually(lambda: all(connection.closed for connection in its))
            assert [await connection.call("get", "k", deadline=5) for connection in others] == [1, 1, 1]
            last = nodes[2]
            await last.close()
            again = await ring.again(last)
            assert isinstance(await failure_of(connected(again, client_context(bad))), Unreachable)
            (await connected(again, client_context(good))).close()
            for connection in others:
                connection.close()

    run(scenario())


def test_a_revoked_node_is_cut_off_and_the_others_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(4)
            await kept_by(3, nodes)
            bad = nodes[3]
            its = ring.credentials(bad)
            async with ring.connection(nodes[0], its) as connection:
                await connection.call("put", "k", 1, deadline=10)
                await ring.operate(nodes[0], "revoke", str(bad.address))
                await eventually(lambda: connection.closed)
            ring.forget(bad)
            await agreed(ring, 3)
            for node in ring.nodes:
                assert isinstance(await failure_of(ring.ask(node, its)), Unreachable)
                assert await ring.ask(node, ring.credentials(nodes[0])) == 1
            await bad.close()

    run(scenario())


def test_a_node_that_hears_it_is_revoked_stops_and_does_not_start_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            keeper, other = await ring.of(2)  # the first keeps the map of a ring of two, so it hears all that happens
            await asyncio.gather(ring.operate(other, "revoke", str(keeper.address)), return_exceptions=True)
            with pytest.raises(NotTrusted, match="revoked"):
                await keeper.stopped()
            await keeper.close()
            with pytest.raises(NotTrusted, match="revoked"):
                await Node(NodeOptions(data=ring.data(keeper), port=0), SETTINGS).start()

    run(scenario())


def test_revoking_nobody_names_those_there_are_and_nobody_revokes_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            await ring.client()
            error = await failure_of(ring.operate(node, "revoke", "10.9.8.7"))
            assert type(error) is BadUsage
            assert f"node {node.address}" in str(error) and "client ann@laptop" in str(error)
            assert "asked to do this" in str(await failure_of(ring.operate(node, "revoke", "127.0.0.1")))

    run(scenario())


# -- clients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("consistency", ["chain", "eventual"])
def test_a_program_that_runs_longer_than_its_certificate_is_good_goes_on(
    tmp_path: Path, consistency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("node.client.ring.LOOK", 0.3, raising=False)

    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            node = await ring.first(consistency=consistency)
            await credentials.login(await ring.token("client"), node.address, BRIEF)
            end = credentials.read(credentials.default_path())[0].certificate.not_valid_after_utc.timestamp()
            async with await AsyncRing.connect(node.address, timeout=3.0) as client:
                number = 0
                while time.time() < end + 2:
                    await client.put(f"key{number}", number)
                    assert len(await client.overlay()) == 1
                    number += 1
                assert await client.get("key0") == 0

    run(scenario())


def test_programs_that_renew_the_certificate_of_their_user_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    contents = [bytes([number]) * 5000 for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(100):
            write_private(file, content)
            assert file.read_bytes() in contents

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, contents))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_certificate_that_is_renewed_and_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the file was mounted to be read only: what it says is good for ten days more."""

    async def scenario() -> None:
        async with secure_ring(tmp_path, BRIEF) as ring:
            node = await ring.first()
            file = tmp_path / "config" / "credentials.toml"
            await credentials.login(await ring.token("client"), node.address, BRIEF, file)
            await eventually(lambda: credentials.read(file)[0].due)

            def fails(*_: object) -> None:
                raise OSError(30, "Read-only file system")

            monkeypatch.setattr("node.trust.keyring.write_private", fails)
            context = await credentials.tls(BRIEF, [node.address], file)
            connection = await connect(HOST, node.address.port, BRIEF, deadline=5, tls=context)
            connection.close()
            monkeypatch.undo()
            assert "Read-only file system" in caplog.text

    run(scenario())


@pytest.mark.parametrize("consistency", ["chain", "eventual"])
def test_our_client_does_all_it_can_with_its_certificate(
    tmp_path: Path, consistency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    pairs = {f"key{number}": number for number in range(100)}

    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(2, consistency=consistency)
            await credentials.login(await ring.token("client"), nodes[1].address, SETTINGS)
            async with await AsyncRing.connect(nodes[0].address) as client:
                watch = await client.watch("key", prefix=True) if consistency == "chain" else None
                await client.put_many(pairs)
                assert await client.get_many(pairs) == pairs
                assert {key: value async for key, value in client.items()} == pairs
                assert {key async for page in client.key_pages() for key in page} == set(pairs)
                assert await client.count() >= len(pairs)
                assert await client.delete("key0")
                assert set(await client.health()) == {node.address for node in nodes}
                assert await client.verify()
                assert await client.replicas("key1") and await client.lookup("key1")
                if watch is not None:
                    assert (await anext(watch)).key in pairs
                    watch.close()

    run(scenario())


# -- loss --------------------------------------------------------------------------------------------------------


def test_when_the_first_node_is_gone_for_good_others_let_new_ones_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            first, second, third = await ring.of(3)
            await kept_by(3, ring.nodes)
            token = await ring.token("client")
            async with ring.connection(second, ring.credentials(second)) as connection:
                await connection.call("put", "k", 1, deadline=10)
            await whole(ring)
            await first.close()
            shutil.rmtree(ring.data(first))
            ring.forget(first)
            fourth = await ring.join(through=third)
            await agreed(ring, 3)
            assert await ring.ask(fourth, await enrol(second.address, token, "late", SETTINGS)) == 1

    run(scenario())


# -- eventual rings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("siblings", [None, True])
def test_an_eventual_ring_remembers_the_same(tmp_path: Path, siblings: bool | None) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(3, consistency="eventual", siblings=siblings)
            both = [await ring.client(), await ring.client()]
            connections = [
                await connect(HOST, node.address.port, SETTINGS, deadline=5, tls=client_context(who))
                for node in nodes
                for who in both
            ]
            at_once = [ring.operate(nodes[n], "revoke", id_of(both[n].certificate)) for n in (0, 1)]
            await asyncio.gather(*at_once)
            await eventually(lambda: all(connection.closed for connection in connections))
            token = await ring.token("client")
            await enrol(nodes[1].address, token, "ann", SETTINGS)
            assert type(await failure_of(enrol(nodes[2].address, token, "ben", SETTINGS))) is BadUsage

    run(scenario())
