"""TLS of a cluster: what `UpstreamTlsContext` asks for is checked inside the handshake, or nothing is connected."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from meshlib import Mesh, UpstreamConnectError
from meshlib.http.tls import default_context
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.sources.static import static_cluster

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NAME = "payments.test"


class TlsServer:
    """Answers every request over TLS, one thread a connection; remembers the client certificates it saw."""

    def __init__(self, context: ssl.SSLContext) -> None:

        self.context = context
        self.peers: list[object] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: object) -> None:
        try:
            with self.context.wrap_socket(connection, server_side=True) as tls:  # type: ignore[arg-type]
                self.peers.append(tls.getpeercert())
                while tls.recv(65536):
                    tls.sendall(ANSWER)
        except OSError:
            return  # the client did not like us, which is what some tests want


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[TlsServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    running = TlsServer(context)
    yield running
    running.listener.close()


@pytest.fixture
def call(server: TlsServer) -> Iterator[Callable[[UpstreamTls], httpx.Response]]:
    """call(tls): one call to the server through a cluster with that TLS, by the blocking door."""
    clients: list[httpx.Client] = []

    def get(tls: UpstreamTls) -> httpx.Response:
        mesh = Mesh.static({"payments": _cluster(server, tls)})
        clients.append(mesh.http.client("payments"))
        return clients[-1].get("/")

    yield get
    for client in clients:
        client.close()


def _cluster(server: TlsServer, tls: UpstreamTls) -> Cluster:

    return dataclasses.replace(static_cluster("payments", [server.address]), tls=tls)


def _pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def test_without_a_trust_anchor_the_server_is_not_verified(call: Callable[[UpstreamTls], httpx.Response]) -> None:
    assert call(UpstreamTls(sni=NAME)).text == "ok"


@pytest.mark.parametrize("kind,value", [("exact", NAME), ("prefix", "payments."), ("suffix", ".test")])
def test_a_name_that_fits_is_accepted(
    call: Callable[[UpstreamTls], httpx.Response], authority: trustme.CA, kind: str, value: str
) -> None:
    names = (("DNS", "exact", "other.test"), ("DNS", kind, value))
    assert call(UpstreamTls(trusted_ca_pem=_pem(authority), subject_alt_names=names)).text == "ok"


def test_a_wrong_name_is_refused_and_named(
    call: Callable[[UpstreamTls], httpx.Response], authority: trustme.CA
) -> None:
    names = (("DNS", "exact", "billing.test"), ("URI", "exact", f"spiffe://{NAME}"))
    with pytest.raises(UpstreamConnectError, match=f"it has: DNS:{NAME}") as caught:
        call(UpstreamTls(trusted_ca_pem=_pem(authority), subject_alt_names=names))
    assert isinstance(caught.value, httpx.ConnectError)


def test_another_authority_is_refused(call: Callable[[UpstreamTls], httpx.Response], tmp_path: Path) -> None:
    other = tmp_path / "ca.pem"
    other.write_bytes(_pem(trustme.CA()))
    with pytest.raises(UpstreamConnectError, match="certificate verify failed"):
        call(UpstreamTls(trusted_ca=str(other)))


def test_the_systems_authorities_do_not_know_ours(call: Callable[[UpstreamTls], httpx.Response]) -> None:
    with pytest.raises(UpstreamConnectError, match="certificate verify failed"):
        call(UpstreamTls(system_root_certs=True))


@pytest.mark.parametrize(
    "tls,reason",
    [
        (UpstreamTls(unusable="certificates by SDS not supported"), "certificates by SDS"),
        (UpstreamTls(trusted_ca="no-such-file.pem"), "no-such-file.pem"),
        (UpstreamTls(subject_alt_names=(("DNS", "exact", NAME),)), "needs a trusted_ca"),
    ],
)
def test_protection_that_cannot_be_had_fails_closed(
    call: Callable[[UpstreamTls], httpx.Response], server: TlsServer, tls: UpstreamTls, reason: str
) -> None:
    with pytest.raises(UpstreamConnectError, match=reason):
        call(tls)
    assert server.peers == []


def test_our_own_certificate_is_shown(
    call: Callable[[UpstreamTls], httpx.Response], server: TlsServer, authority: trustme.CA
) -> None:
    ours = authority.issue_cert("checkout.test")
    chain = b"".join(pem.bytes() for pem in ours.cert_chain_pems)
    tls = UpstreamTls(certificate_chain_pem=chain, private_key_pem=ours.private_key_pem.bytes())
    assert call(tls).text == "ok"
    assert ("DNS", "checkout.test") in server.peers[-1]["subjectAltName"]  # type: ignore[index]


async def test_the_asyncio_door_checks_the_same(server: TlsServer, authority: trustme.CA) -> None:
    good = UpstreamTls(trusted_ca_pem=_pem(authority), subject_alt_names=(("DNS", "exact", NAME),))
    bad = UpstreamTls(trusted_ca_pem=_pem(authority), subject_alt_names=(("DNS", "exact", "billing.test"),))
    async with Mesh.static({"payments": _cluster(server, good)}).http.async_client("payments") as client:
        assert (await client.get("/")).text == "ok"
    async with Mesh.static({"payments": _cluster(server, bad)}).http.async_client("payments") as client:
        with pytest.raises(UpstreamConnectError, match="no subjectAltName matches"):
            await client.get("/")


def test_an_https_url_means_tls_though_the_cluster_says_nothing(
    server: TlsServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "system.pem"
    trusted.write_bytes(_pem(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    default_context.cache_clear()
    mesh = Mesh.static({NAME: [server.address], "billing.test": [server.address]})
    with mesh.http.client() as client:
        assert client.get(f"https://{NAME}/").text == "ok"
        with pytest.raises(UpstreamConnectError, match="Hostname mismatch"):
            client.get("https://billing.test/")
    default_context.cache_clear()
