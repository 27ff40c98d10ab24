"""TLS to DNS clusters: the address is dialled, the name is asked for and checked."""

import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from meshlib import Mesh
from meshlib.errors import UpstreamConnectError
from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.dns import Dns
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from parts.dns_server import DnsServer

NAME, HOST = "payments.test", "127.0.0.2"


class TlsServer:
    """Answers every request with its address, and keeps the names that it was asked for."""

    def __init__(self, authority: trustme.CA) -> None:
        self.names: list[str | None] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(NAME).configure_cert(context)
        context.sni_callback = lambda sock, name, context: self.names.append(name)
        self._listener = socket.create_server((HOST, 0))
        self._tls = context
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._tls.wrap_socket(plain, server_side=True) as sock:
                    sock.recv(65536)
                    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            except OSError:
                plain.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[TlsServer]:
    made = TlsServer(authority)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["STRICT_DNS", "LOGICAL_DNS"])
@pytest.mark.parametrize(("wanted", "sni"), [(NAME, ""), (NAME, "other.test"), ("else.test", "")])
async def test_the_name_is_asked_for_and_checked(
    server: TlsServer, authority: trustme.CA, kind: Any, wanted: str, sni: str
) -> None:
    names = DnsServer({NAME: [HOST]})
    tls = UpstreamTls(
        sni=sni,
        trusted_ca_pem=authority.cert_pem.bytes(),
        subject_alt_names=(("DNS", "exact", wanted),),
    )
    group = LocalityLbEndpoints((LbEndpoint(Address(NAME, server.port)),))
    assignment = ClusterLoadAssignment("payments", (group,))
    cluster = Cluster("payments", kind, load_assignment=assignment, dns=Dns(lookup_family="V4_ONLY"), tls=tls)
    async with Mesh.static({"payments": cluster}, name_servers=[names.address]) as mesh:
        for client in (mesh.http.client(), mesh.http.async_client()):
            try:
                answered = client.get("http://payments/")
                text = (answered if not hasattr(answered, "__await__") else await answered).text
                assert (text, wanted) == ("ok", NAME)
            except UpstreamConnectError:
                assert wanted == "else.test"
    names.close()
    assert set(server.names) == {sni or NAME}
