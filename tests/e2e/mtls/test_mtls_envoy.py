"""A real Envoy at the other end: it lets us in by our SPIFFE ID, and we let it in by its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from e2e.mtls.test_mtls_grpc import METHOD, grpc_server
from e2e.mtls.workloads import CLIENT_ID, SERVER_ID, Pair, Workload, client_to, mesh_to, pair_of_workloads, served
from meshlib import UpstreamConnectError, UpstreamResetError

pytestmark = pytest.mark.needs("envoy")
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
HTTP = "type.googleapis.com/envoy.extensions"
Json = dict[str, Any]
Start = Callable[[Json], Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_workloads() as made:
        yield made


def _socket(kind: str, workload: Workload, wanted: str, **more: Any) -> Json:
    """Envoy's TLS, with the files of a workload."""
    folder = workload.folder
    common = {
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(folder / "tls.crt")},
                "private_key": {"filename": str(folder / "tls.key")},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(folder / "ca.crt")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": wanted}}],
        },
        "alpn_protocols": ["h2", "http/1.1"],
    }
    config = {"@type": f"{TLS}.{kind}TlsContext", "common_tls_context": common, **more}
    return {"name": "tls", "typed_config": config}


def _bootstrap(action: Json, listener_tls: Json | None = None, cluster: Json | None = None) -> Json:
    manager = {
        "@type": f"{HTTP}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [action]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{HTTP}.filters.http.router.v3.Router"}},
        ],
    }
    chain: Json = {"filters": [{"name": "http", "typed_config": manager}]}
    if listener_tls is not None:
        chain["transport_socket"] = listener_tls
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "static_resources": {
            "listeners": [{"name": "in", "address": address, "filter_chains": [chain]}],
            "clusters": [cluster] if cluster is not None else [],
        }
    }


def _cluster(port: int, tls: Json, http2: bool = False) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    found: Json = {
        "name": "payments",
        "transport_socket": tls,
        "load_assignment": {
            "cluster_name": "payments",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if http2:
        options = {
            "@type": f"{HTTP}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        found["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return found


WHO = {
    "match": {"prefix": "/"},
    "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
    "response_headers_to_add": [{"header": {"key": "x-caller", "value": "%DOWNSTREAM_PEER_URI_SAN%"}}],
}
ONWARDS = {"match": {"prefix": "/"}, "route": {"cluster": "payments"}}


def test_envoy_knows_our_client(pair: Pair, envoy: Start) -> None:
    tls = _socket("Downstream", pair.server, CLIENT_ID, require_client_certificate=True)
    port = envoy(_bootstrap(WHO, tls)).port
    with client_to(port, pair.client.identity) as client:
        assert client.get("/").headers["x-caller"] == CLIENT_ID
    stranger = Workload(
        pair.client.folder.parent / "stranger", "spiffe://demo.test/ns/shop/sa/stranger", pair.authority
    )
    refused = pytest.raises((UpstreamConnectError, UpstreamResetError))
    with client_to(port, stranger.identity) as client, refused:
        client.get("/")


def test_envoy_is_known_to_our_server(pair: Pair, envoy: Start) -> None:
    with served(pair.server.identity) as port:
        tls = _socket("Upstream", pair.client, SERVER_ID)
        proxy = envoy(_bootstrap(ONWARDS, cluster=_cluster(port, tls)))
        answer = httpx.get(f"http://127.0.0.1:{proxy.port}/")
        assert answer.json()["state"] == CLIENT_ID
        wrong = _socket("Upstream", pair.client, "spiffe://demo.test/ns/shop/sa/billing")
        proxy = envoy(_bootstrap(ONWARDS, cluster=_cluster(port, wrong)))
        assert httpx.get(f"http://127.0.0.1:{proxy.port}/").status_code == 503


def test_envoy_carries_grpc_to_our_server(pair: Pair, envoy: Start, tmp_path: Path) -> None:
    """gRPC by mutual TLS twice: our client to Envoy, Envoy to our server. Each hop knows its caller."""
    envoys = Workload(tmp_path / "envoy", "spiffe://demo.test/ns/mesh/sa/envoy", pair.authority)
    with grpc_server(pair.server.identity) as port:
        inward = _socket("Downstream", envoys, CLIENT_ID, require_client_certificate=True)
        outward = _socket("Upstream", envoys, SERVER_ID)
        proxy = envoy(_bootstrap(ONWARDS, inward, _cluster(port, outward, http2=True)))
        with (
            mesh_to(proxy.port, pair.client.identity, envoys.spiffe_id) as mesh,
            mesh.grpc.channel("payments") as channel,
        ):
            answer = channel.unary_unary(METHOD)(b"", timeout=10)
        assert answer.decode() == f"{envoys.spiffe_id} {envoys.spiffe_id}"
        with (
            mesh_to(proxy.port, pair.client.identity, SERVER_ID) as mesh,
            mesh.grpc.channel("payments") as channel,
            pytest.raises(grpc.RpcError, match=f"it has: URI:{envoys.spiffe_id}"),
        ):
            channel.unary_unary(METHOD)(b"", timeout=10)
