"""TLS as istiod asks for it, over real connections: automatic mutual TLS by endpoint, ISTIO_MUTUAL for a proxyless
node, and TLS origination with the names that the request's host gives.
"""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from e2e.mtls.workloads import CLIENT_ID, SERVER_ID, served
from meshlib.errors import CallError
from meshlib.identity import Identity
from meshlib.identity.dev_ca import DevCA
from parts.fast_backend import FastBackend
from parts.istio_bookinfo import documents
from parts.istio_nodes import Kind, istio_mesh, refusals
from parts.istio_server import IstioServer

pytestmark = pytest.mark.needs("istio_generator")
AUTHORITY = DevCA.new()


def entry(name: str, port: int, *, sidecar: bool, spiffe_id: str = SERVER_ID) -> str:
    """A service with one endpoint, with a sidecar of this identity or without one."""
    labels = "{security.istio.io/tlsMode: istio}" if sidecar else "{}"
    return f"""\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: default}}
spec:
  hosts: [{name}.default.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 9080, name: http, protocol: HTTP}}]
  resolution: STATIC
  subjectAltNames: ["{spiffe_id}"]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}, labels: {labels}}}]
"""


def rule(host: str, tls: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {host.partition('.')[0]}, namespace: default}}\n"
        f"spec: {{host: {host}, trafficPolicy: {{tls: {tls}}}}}\n"
    )


@pytest.fixture
def secured_port() -> Iterator[int]:
    with served(AUTHORITY.issue(SERVER_ID).identity()) as port:
        yield port


@pytest.fixture
def me() -> Identity:
    return AUTHORITY.issue(CLIENT_ID).identity()


def test_automatic_mutual_tls_is_for_endpoints_with_a_sidecar(
    istio_generator: Callable[..., IstioServer],
    fast_backend: Callable[..., FastBackend],
    secured_port: int,
    me: Identity,
) -> None:
    plain = fast_backend("legacy")
    services = [entry("payments", secured_port, sidecar=True), entry("legacy", plain.port, sidecar=False)]
    istio = istio_generator(documents(services))
    with istio_mesh(istio, identity=me).wait_ready() as mesh, mesh.http.client() as client:
        assert client.get("http://payments:9080/").json()["extension"] == CLIENT_ID
        assert client.get("http://legacy:9080/").json()["name"] == "legacy"
        assert refusals(mesh) == 0


def test_without_an_identity_such_calls_fail_and_never_go_on_in_plain_text(
    istio_generator: Callable[..., IstioServer], fast_backend: Callable[..., FastBackend]
) -> None:
    permissive = fast_backend("permissive")
    istio = istio_generator(entry("payments", permissive.port, sidecar=True))
    with istio_mesh(istio).wait_ready() as mesh, mesh.http.client() as client:
        with pytest.raises(CallError, match="give the mesh an identity"):
            client.get("http://payments:9080/")
        assert permissive.connections_made == 0


def test_somebody_else_s_certificate_is_refused(
    istio_generator: Callable[..., IstioServer], secured_port: int, me: Identity
) -> None:
    istio = istio_generator(entry("payments", secured_port, sidecar=True, spiffe_id="spiffe://demo.test/ns/x/sa/other"))
    with (
        istio_mesh(istio, identity=me).wait_ready() as mesh,
        mesh.http.client() as client,
        pytest.raises(CallError, match="UF"),
    ):
        client.get("http://payments:9080/")


@pytest.mark.parametrize("kind", ["sidecar", "grpc"])
def test_istio_mutual_in_a_destination_rule(
    kind: Kind, istio_generator: Callable[..., IstioServer], secured_port: int, me: Identity
) -> None:
    mutual = f"{{mode: ISTIO_MUTUAL, subjectAltNames: ['{SERVER_ID}']}}"
    istio = istio_generator(documents([entry("payments", secured_port, sidecar=False), rule("payments", mutual)]))
    with istio_mesh(istio, kind, identity=me).wait_ready() as mesh, mesh.http.client() as client:
        assert client.get("http://payments:9080/").json()["extension"] == CLIENT_ID
        assert refusals(mesh) == 0


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def outside(folder: Path, name: str) -> Iterator[int]:
    """A TLS server whose certificate is for a DNS name; its port."""
    AUTHORITY.issue(SERVER_ID, dns_names=[name]).write(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.parametrize("certificate, taken", [("payments", True), ("*.svc.cluster.local", False), ("other", False)])
def test_tls_origination_goes_by_the_host_that_is_called(
    certificate: str, taken: bool, istio_generator: Callable[..., IstioServer], tmp_path: Path
) -> None:
    with outside(tmp_path, certificate) as port:
        simple = f"{{mode: SIMPLE, caCertificates: {tmp_path / 'ca.crt'}}}"
        outer = entry("payments", port, sidecar=False).replace('  subjectAltNames: ["' + SERVER_ID + '"]\n', "")
        istio = istio_generator(documents([outer, rule("payments", simple)]))
        with istio_mesh(istio).wait_ready() as mesh, mesh.http.client() as client:
            if taken:
                assert client.get("http://payments:9080/").status_code == 204
                return
            with pytest.raises(CallError, match="UF"):
                client.get("http://payments:9080/")
