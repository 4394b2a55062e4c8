"""A token lets as many in as it says, for as long as it says, and can do nothing else."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from node.errors import BadUsage, BadValue, NotTrusted, RingError
from node.remote.enrolment import enrol
from node.remote.pool import CLIENT_METHODS
from node.remote.trusted import ClientService, NodeService
from node.trust.certificates import Authority, Request
from node.trust.contexts import Credentials
from node.trust.token import PREFIX, Token
from node.values import SYSTEM
from tests.remote.ends import failure_of, run
from tests.trust.rings import SETTINGS, secure_ring

TOKEN = Token.issue(Authority.new(), "node", 3, 7, 600)


def test_the_text_of_a_token_is_the_token() -> None:
    again = Token.read(TOKEN.text)
    assert again == TOKEN and again.credentials == TOKEN.credentials
    assert len(TOKEN.text) < 200


@given(at=st.integers(0, len(TOKEN.text) - 1), other=st.characters())
def test_a_damaged_token_is_refused_and_not_repeated(at: int, other: str) -> None:
    text = TOKEN.text[:at] + other + TOKEN.text[at + 1 :]
    try:
        found, said = Token.read(text), ""
    except BadUsage as error:
        found, said = None, str(error)
    assert found in (TOKEN, None)  # the same character, or bits that base64 has no use for
    assert found or (PREFIX in said and text[len(PREFIX) :] not in said)


@pytest.mark.parametrize("text", ["", "ring1.", TOKEN.text[:-3], TOKEN.text + "AAAA", "ring2" + TOKEN.text[5:]])
def test_half_a_token_is_refused(text: str) -> None:
    with pytest.raises(BadUsage):
        Token.read(text)


def test_a_token_lets_in_as_many_as_it_says_at_whichever_node_they_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(2)
            token = await ring.token("client", uses=3)
            asked = [enrol(nodes[n % 2].address, token, f"user{n}", SETTINGS) for n in range(6)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, BaseException)]
            assert len(refused) == 3
            assert all(isinstance(error, BadUsage) and "used up" in str(error) for error in refused)
            ids = {answer.certificate.subject for answer in answers if isinstance(answer, Credentials)}
            assert len(ids) == 3

    run(scenario())


def test_who_lost_the_answer_asks_again_with_the_same_key_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            token = await ring.token("client")
            csr = Request.sign(Ed25519PrivateKey.generate(), "ann")
            async with ring.connection(node, token.credentials) as connection:
                for _ in range(3):
                    await connection.call("enroll", csr, deadline=5)
                other = Request.sign(Ed25519PrivateKey.generate(), "ann")
                assert type(await failure_of(connection.call("enroll", other, deadline=5))) is BadUsage

    run(scenario())


def test_the_bearer_of_a_token_can_call_nothing_but_enroll(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            services = (NodeService, ClientService)
            methods = {name.removeprefix("exposed_") for each in services for name in dir(each) if "exposed_" in name}
            assert {"get", "put", "call", "make_token", "renew"} <= methods
            for grants in ("node", "client"):
                async with ring.connection(node, (await ring.token(grants)).credentials) as connection:
                    for method in methods:
                        error = await failure_of(connection.call(method, "key", b"", deadline=5))
                        assert "there are enroll)" in str(error), method

    run(scenario())


def test_rotation_makes_all_tokens_void_and_new_ones_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            nodes = await ring.of(2)
            old = await ring.token("client", uses=10)
            await enrol(nodes[0].address, old, "ann", SETTINGS)
            await ring.operate(nodes[0], "rotate_tokens")
            for node in nodes:
                error = await failure_of(enrol(node.address, old, "ben", SETTINGS))
                assert type(error) is BadUsage and "void" in str(error)
            await enrol(nodes[1].address, await ring.token("client"), "ben", SETTINGS)

    run(scenario())


def test_a_token_that_ends_while_its_bearer_is_connected_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            token = await ring.token("client", valid=2)
            async with ring.connection(node, token.credentials) as connection:
                await asyncio.to_thread(_until_ended, token)
                csr = Request.sign(Ed25519PrivateKey.generate(), "ann")
                error = await failure_of(connection.call("enroll", csr, deadline=5))
                assert isinstance(error, RingError)
            error = await failure_of(enrol(node.address, token, "ann", SETTINGS))
            assert type(error) is BadUsage and "ended" in str(error)

    run(scenario())


def _until_ended(token: Token) -> None:
    while time.time() <= token.until.timestamp():
        time.sleep(0.05)


def test_who_joins_does_not_give_its_token_to_another_ring(tmp_path: Path) -> None:
    """A node in the middle without the authority's key is found out before anything is said to it."""

    async def scenario() -> None:
        async with secure_ring(tmp_path / "a") as ring, secure_ring(tmp_path / "b") as other:
            await ring.first()
            node = await other.first()
            error = await failure_of(enrol(node.address, await ring.token("node"), "x", SETTINGS))
            assert type(error) is NotTrusted and "ring token" in str(error)

    run(scenario())


def test_a_client_gets_no_authority_and_cannot_become_a_node(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            client = await ring.client()
            assert client.authority_key == b""
            async with ring.connection(node, client) as connection:
                assert await connection.call("put", "k", 1, deadline=5) > (0, 0)
                csr = Request.sign(Ed25519PrivateKey.generate(), "x", ("127.0.0.1",))
                renewed = await connection.call("renew", csr, deadline=5)
                assert b"CERTIFICATE" in renewed
                certificate = x509.load_pem_x509_certificate(renewed)
                assert certificate.subject == client.certificate.subject
                with pytest.raises(x509.ExtensionNotFound):
                    certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
                assert "a repair by force" in str(await failure_of(connection.call("force_repair", deadline=5)))
                for method in ("make_token", "revoke", "rotate_tokens", "enroll"):
                    assert "no exposed method" in str(await failure_of(connection.call(method, "x", deadline=5)))

    run(scenario())


@pytest.mark.parametrize("consistency", ["chain", "eventual"])
def test_of_what_nodes_ask_each_other_a_client_may_ask_what_is_listed(tmp_path: Path, consistency: str) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first(consistency=consistency)
            async with ring.connection(node, await ring.client()) as connection:
                every = set(node._running.receive._handlers)
                assert {name for name in CLIENT_METHODS if consistency in name or "ring" in name} < every
                for method in every:
                    work = connection.call("call", method, b"", deadline=5)
                    if method in CLIENT_METHODS:
                        assert (await work)[:1] in (b"\x00", b"\x01")  # an answer, if only that this is no question
                    else:
                        assert "is for nodes" in str(await failure_of(work)), method

    run(scenario())


def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    elliptic = ec.generate_private_key(ec.SECP256R1())
    named = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = Request.sign(key, "ann")
    body = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    forged = base64.b64encode(body[:-1] + bytes([body[-1] ^ 1]))
    unknown = base64.b64encode(
        body.replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x01")
    )  # an algorithm of no name
    requests = [
        b"",
        b"-----BEGIN",
        "text",
        7,
        None,
        pem[:100],
        named.sign(key, None).public_bytes(serialization.Encoding.PEM),
        named.sign(elliptic, hashes.SHA256()).public_bytes(serialization.Encoding.PEM),
        Request.sign(key, "a\nb"),
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + forged + b"\n-----END CERTIFICATE REQUEST-----\n",
        pem + b" " * 20_000,
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + unknown + b"\n-----END CERTIFICATE REQUEST-----\n",
    ]

    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            token = await ring.token("client")
            async with ring.connection(node, token.credentials) as connection:
                for request in requests:
                    assert type(await failure_of(connection.call("enroll", request, deadline=5))) is BadValue, request
                await connection.call("enroll", pem, deadline=5)  # and none of them was a use

    run(scenario())


def test_many_who_come_at_once_are_all_let_in(tmp_path: Path) -> None:
    """Each makes the node keep who was let in, in one and the same file."""

    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            tokens = [await ring.token("client") for _ in range(20)]
            names = [f"ann@laptop{n}" for n in range(20)]
            issued = await asyncio.gather(
                *(enrol(node.address, token, name, SETTINGS) for token, name in zip(tokens, names, strict=True))
            )
            assert len({each.identity for each in issued}) == 20

    run(scenario())


def test_a_certificate_names_no_addresses_but_those_of_hosts() -> None:
    """Other names of a request would become the names of hosts, or an error after the token was used."""
    key = Ed25519PrivateKey.generate()
    person = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "é")])
    names = [x509.DNSName("host"), x509.DirectoryName(person), x509.UniformResourceIdentifier("http://host/")]
    builder = x509.CertificateSigningRequestBuilder().subject_name(person)
    signed = builder.add_extension(x509.SubjectAlternativeName(names), False).sign(key, None)
    assert Request.read(signed.public_bytes(serialization.Encoding.PEM)).hosts == ("host",)


def test_the_rings_own_records_are_out_of_reach(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with secure_ring(tmp_path) as ring:
            node = await ring.first()
            for who in (await ring.client(), ring.credentials(node)):
                async with ring.connection(node, who) as connection:
                    for method, *more in (("get",), ("delete",), ("put", 1), ("put_if", 1, None)):
                        work = connection.call(method, SYSTEM + b"standing", *more, deadline=5)
                        assert type(await failure_of(work)) is BadValue
            async with ring.connection(node, await ring.client()) as connection:
                work = connection.call("call", "chain.write", b"..." + SYSTEM + b"standing", deadline=5)
                assert type(await failure_of(work)) is BadValue

    run(scenario())
