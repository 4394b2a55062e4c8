"""Claims of connections under TLS: contexts are handed in, everything else is as without."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest
import rpyc
from rpyc.core import consts

from node.errors import NotTrusted, Unreachable
from node.remote.listener import Listener
from node.remote.pool import connect
from tests.remote.ends import PATIENCE, SETTINGS, Raw, Root, eventually, failure_of, request, run, settings

pytestmark = [
    pytest.mark.usefixtures("loops"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl"),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with cert.pem, of localhost and its own authority, and key.pem."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    return directory


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, a client's)."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return server, ssl.create_default_context(cafile=str(certificate / "cert.pem"))


def test_calls_of_ours_and_of_stock_clients(certificate: Path) -> None:
    server, client = contexts(certificate)

    def stock(port: int) -> None:
        connection = rpyc.ssl_connect(
            "localhost", port, ca_certs=str(certificate / "cert.pem"), cert_reqs=ssl.CERT_REQUIRED,
            ssl_version=ssl.PROTOCOL_TLS_CLIENT,
        )  # fmt: skip
        assert connection.root.echo(b"x" * 300_000) == b"x" * 300_000
        connection.close()

    async def scenario() -> None:
        async with Listener(SETTINGS, "localhost", 0, Root(), tls=server) as listener:
            connection = await connect("localhost", listener.port, SETTINGS, deadline=10, tls=client)
            values = [bytes([i]) * 100_000 for i in range(50)]
            assert await asyncio.gather(*(connection.call("echo", value, deadline=10) for value in values)) == values
            await asyncio.to_thread(stock, listener.port)
            connection.close()

    run(scenario())


def test_each_answer_is_a_record_of_its_own(certificate: Path) -> None:
    """The stock client waits with `poll` for the next one, which knows nothing of what is deciphered already."""
    server, client = contexts(certificate)

    def stock(port: int) -> None:
        with (
            socket.create_connection(("localhost", port)) as plain,
            client.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            sock.settimeout(PATIENCE)
            sock.sendall(b"".join(request(number, consts.HANDLE_PING, (2, ((1, "x" * 10),))) for number in range(50)))
            for _ in range(50):
                length, _ = struct.unpack("!LB", sock.recv(5))
                assert len(sock.recv(length + 1)) == length + 1
                assert not sock.pending()

    async def scenario() -> None:
        async with Listener(SETTINGS, "localhost", 0, Root(), tls=server) as listener:
            await asyncio.to_thread(stock, listener.port)

    run(scenario())


def test_who_never_begins_its_handshake_makes_room_for_others(certificate: Path) -> None:
    server, client = contexts(certificate)

    async def scenario() -> None:
        async with Listener(settings(max_connections=20), "localhost", 0, Root(), tls=server) as listener:
            silent = [await Raw.connect(listener.port, "127.0.0.1") for _ in range(20)]
            await eventually(lambda: listener.connections == 20)
            connection = await connect("localhost", listener.port, SETTINGS, deadline=10, tls=client)
            async with asyncio.timeout(5):
                assert await silent[0].ended()
            assert await connection.call("add", 1, deadline=5) == 3
            connection.close()
            for peer in silent:
                peer.close()

    run(scenario())


def test_what_tls_holds_of_a_connection_that_ended_does_not_wait_for_the_garbage_collector(certificate: Path) -> None:
    server, client = contexts(certificate)

    def held() -> int:
        return sum(type(each).__name__ == "SSLProtocol" for each in gc.get_objects())

    async def scenario() -> None:
        async with Listener(SETTINGS, "localhost", 0, Root(), tls=server) as listener:
            before = held()
            gc.disable()
            try:
                for _ in range(5):
                    connection = await connect("localhost", listener.port, SETTINGS, deadline=10, tls=client)
                    connection.close()
                    await eventually(lambda: not listener.connections)
                del connection
                await eventually(lambda: held() <= before + 1, "all but the last one")
            finally:
                gc.enable()

    run(scenario())


def test_who_proves_nothing_or_speaks_plainly_is_not_served(certificate: Path) -> None:
    server, _ = contexts(certificate)

    async def scenario() -> None:
        async with Listener(settings(handshake=0.5), "localhost", 0, Root(), tls=server) as listener:
            for context, error in ((None, Unreachable), (ssl.create_default_context(), NotTrusted)):
                work = connect("localhost", listener.port, SETTINGS, deadline=5, tls=context)
                assert type(await failure_of(work)) is error
            silent = await Raw.connect(listener.port, "127.0.0.1")
            assert await silent.ended()
            while listener.connections:
                await asyncio.sleep(0.005)

    run(scenario())
