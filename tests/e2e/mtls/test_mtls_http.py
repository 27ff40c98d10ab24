"""httpx to uvicorn by mutual TLS: who is let in, and what the application knows of its caller."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
import websockets.sync.client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from e2e.mtls.workloads import (
    CLIENT_ID,
    DAY,
    SERVER_ID,
    Intruder,
    Pair,
    client_to,
    introduce,
    mesh_to,
    pair_of_workloads,
    running,
    served,
)
from meshlib import ConfigurationError, Mesh, UpstreamConnectError, UpstreamResetError
from meshlib.http.server import MeshMiddleware
from meshlib.identity import Identity, ServerTls
from meshlib.identity.dev_ca import DevCA
from meshlib.integrations.uvicorn import MeshH11Protocol, MeshHttpToolsProtocol, config, ssl_context_factory


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with pair_of_workloads() as made:
        yield made


@pytest.fixture(scope="module")
def port(pair: Pair) -> Iterator[int]:
    with served(pair.server.identity) as port:
        yield port


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("protocol", [MeshHttpToolsProtocol, MeshH11Protocol])
def test_the_application_knows_its_caller(pair: Pair, protocol: Any, loop: str) -> None:
    with (
        served(pair.server.identity, http=protocol, loop=loop) as port,
        client_to(port, pair.client.identity) as client,
    ):
        for _ in range(2):  # on the same connection
            answer = client.get("/", headers={"x-forwarded-client-cert": "URI=spiffe://demo.test/admin"}).json()
            assert answer["state"] == answer["extension"] == CLIENT_ID
            assert answer["tls"]["tls_version"] == 0x0304
            assert answer["tls"]["cipher_suite"] in (0x1301, 0x1302, 0x1303)
            assert "BEGIN CERTIFICATE" in answer["tls"]["client_cert_chain"][0]
            assert answer["tls"]["client_cert_name"] is None


@pytest.mark.parametrize("protocol", [MeshHttpToolsProtocol, MeshH11Protocol])
def test_a_websocket_knows_its_caller(pair: Pair, protocol: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told = f"{scope['extensions']['meshlib']['peer'].spiffe_id} {scope['state']['mesh'].peer.spiffe_id}"
        await send({"type": "websocket.send", "text": told})
        await receive()

    wrapped = MeshMiddleware(app, mesh=Mesh.static({}))
    tls = ssl.create_default_context(cadata=pair.authority.pem.decode())
    tls.check_hostname = False
    assert pair.client.identity.current.pair is not None
    pair.client.identity.current.pair.load_into(tls)
    with (
        served(pair.server.identity, wrapped, http=protocol) as port,
        websockets.sync.client.connect(f"wss://127.0.0.1:{port}/", ssl=tls) as connection,
    ):
        assert connection.recv(10) == f"{CLIENT_ID} {CLIENT_ID}"


async def test_the_asyncio_client_does_the_same(pair: Pair, port: int) -> None:
    async with mesh_to(port, pair.client.identity) as mesh, mesh.http.async_client("payments") as client:
        assert (await client.get("/")).json()["state"] == CLIENT_ID


def test_headers_make_nobody_known_over_plain_text() -> None:
    settings = uvicorn.Config(
        MeshMiddleware(introduce, mesh=Mesh.static({})),
        http=MeshHttpToolsProtocol,
        port=0,
        log_level="error",
        lifespan="off",
    )
    with running(uvicorn.Server(settings)) as port:
        headers = {"x-forwarded-client-cert": f"URI={CLIENT_ID}", "x-client-cert": CLIENT_ID}
        answer = httpx.get(f"http://127.0.0.1:{port}/", headers=headers).json()
    assert answer == {"state": None, "extension": None, "tls": None}


def test_a_client_without_a_certificate_is_refused_or_nobody(pair: Pair) -> None:
    tls = ServerTls(pair.server.identity, require_client_certificate=False)
    with served(tls) as port:
        assert Intruder(port, None, [pair.authority]).call()  # permissive: let in, without a peer
    with served(pair.server.identity) as port:
        assert not Intruder(port, None, [pair.authority]).call()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_is_let_in(pair: Pair, port: int, version: ssl.TLSVersion) -> None:
    authority, stranger = pair.authority, DevCA.new()
    yesterday = datetime.now(UTC) - DAY

    def accepted(issued: Any) -> bool:
        return Intruder(port, issued, [authority], version).call()

    assert accepted(authority.issue(CLIENT_ID))
    assert not accepted(stranger.issue(CLIENT_ID))
    assert not accepted(authority.issue("spiffe://other.test/ns/shop/sa/checkout")), "another trust domain"
    assert not accepted(authority.issue(CLIENT_ID, not_before=yesterday, life=timedelta(hours=1))), "expired"
    assert not accepted(authority.issue(CLIENT_ID, not_before=datetime.now(UTC) + DAY)), "not yet valid"


@pytest.mark.parametrize(
    "rules",
    [{"allow": [CLIENT_ID]}, {"trust_domains": ["demo.test"]}, {"require_client_certificate": False}],
)
def test_rules_beside_a_server_that_has_its_own_are_not_dropped_in_silence(pair: Pair, rules: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(rules))):
        config(introduce, identity=ServerTls(pair.server.identity), **rules)


def test_only_those_allowed_are_let_in(pair: Pair) -> None:
    tls = ServerTls(pair.server.identity, allow=[CLIENT_ID, "spiffe://demo.test/ns/tools/*"])
    with served(tls) as port:
        for spiffe_id, welcome in {
            CLIENT_ID: True,
            "spiffe://demo.test/ns/tools/sa/probe": True,
            "spiffe://demo.test/ns/tools": False,
            "spiffe://demo.test/ns/toolsmith/sa/probe": False,
            f"{CLIENT_ID}2": False,
        }.items():
            issued = pair.authority.issue(spiffe_id)
            assert Intruder(port, issued, [pair.authority]).call() is welcome, spiffe_id


def test_a_server_that_is_somebody_else_is_refused(pair: Pair, port: int) -> None:
    other = "spiffe://demo.test/ns/shop/sa/billing"
    refused = pytest.raises(UpstreamConnectError, match=f"it has: URI:{SERVER_ID}")
    with client_to(port, pair.client.identity, other) as client, refused:
        client.get("/")
    with client_to(port, pair.client.identity, other, "spiffe://demo.test/ns/shop/*") as client:
        assert client.get("/").status_code == 200


def named_server(authority: DevCA, *names: x509.GeneralName, common_name: str = "") -> Identity:
    """A server's identity with any names in its certificate."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(authority._certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
    certificate = builder.sign(authority._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity.from_pem(certificate, key.private_bytes(*plain), authority.pem)


@pytest.mark.parametrize(
    "names,common_name",
    [
        ((x509.UniformResourceIdentifier(SERVER_ID), x509.UniformResourceIdentifier("spiffe://demo.test/b")), ""),
        ((x509.UniformResourceIdentifier("spiffe://demo.test/b"), x509.UniformResourceIdentifier(SERVER_ID)), ""),
        ((x509.DNSName(SERVER_ID),), ""),
        ((x509.DNSName("payments"),), SERVER_ID),
        ((), SERVER_ID),
    ],
    ids=["two URIs", "two URIs, turned round", "a DNS name", "a common name", "only a common name"],
)
def test_a_server_whose_only_uri_is_not_the_wanted_one_is_refused(
    pair: Pair, names: tuple[x509.GeneralName, ...], common_name: str
) -> None:
    identity = named_server(pair.authority, *names, common_name=common_name)
    tls = ServerTls(identity, trust_domains=["demo.test"])
    refused = pytest.raises(UpstreamConnectError, match="no subjectAltName matches")
    with served(tls) as port, client_to(port, pair.client.identity) as client, refused:
        client.get("/")


def test_a_server_of_another_authority_is_refused(pair: Pair, port: int) -> None:
    stranger = DevCA.new().issue(CLIENT_ID).identity()
    with client_to(port, stranger) as client, pytest.raises(UpstreamConnectError, match="certificate verify failed"):
        client.get("/")


def test_a_mesh_whose_identity_lacks_a_part_connects_to_nobody(pair: Pair, port: int) -> None:
    for identity, reason in {
        Identity.from_pem(ca=pair.authority.pem): "'default' has no certificate",
        None: "no certificate provider 'default'",
    }.items():
        with client_to(port, identity) as client, pytest.raises(UpstreamConnectError, match=reason):
            client.get("/")


def test_a_client_whose_certificate_is_refused_learns_it(pair: Pair, port: int) -> None:
    """In TLS 1.3 a client has connected before the server has looked at its certificate: the first call tells."""
    issued = DevCA.new().issue(CLIENT_ID)
    known = Identity.from_pem(issued.certificate, issued.key, pair.authority.pem)
    with client_to(port, known) as client, pytest.raises((UpstreamConnectError, UpstreamResetError)):
        client.get("/")


def test_the_factory_works_with_uvicorns_own_means(pair: Pair) -> None:
    settings = uvicorn.Config(
        MeshMiddleware(introduce, mesh=Mesh.static({})),
        http=MeshHttpToolsProtocol,
        ssl_context_factory=ssl_context_factory(ServerTls(pair.server.identity)),
        port=0,
        log_level="error",
        lifespan="off",
    )
    with running(uvicorn.Server(settings)) as port, client_to(port, pair.client.identity) as client:
        assert client.get("/").json()["extension"] == CLIENT_ID
