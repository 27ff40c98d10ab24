"""Whatever istiod sends is taken: nothing is refused for being rich, and what is left out is told by field."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshlib import Mesh
from meshlib.explain import Explainer
from parts.istio_nodes import Kind, alike, istio_mesh, refusals
from parts.istio_server import IstioServer
from parts.xds import eventually

pytestmark = pytest.mark.needs("istio_generator")

RICH = (Path(__file__).parent / "rich.yaml").read_text()
PROVIDERS = """\
extensionProviders:
- {name: spans, zipkin: {service: zipkin.istio-system.svc.cluster.local, port: 9411}}
- {name: lines, envoyFileAccessLog: {path: /dev/stdout}}
- {name: numbers, prometheus: {}}
"""
HTTP_FILTERS = ("Listener", "filter_chains[].filters[].typed_config.http_filters[].typed_config")
MANAGER = "filter_chains[].filters[].typed_config"
ROUTE = "virtual_hosts[].routes[]"
VALIDATION = "transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context"
HTTP2 = (
    'typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].explicit_http_config'
    ".http2_protocol_options"
)
ROUTE_REPORTS = {
    ("RouteConfiguration", f"{ROUTE}.route.hash_policy[].connection_properties"),
    ("RouteConfiguration", f'{ROUTE}.typed_per_filter_config["envoy.filters.http.fault"]'),
}
# Reviewed: what of a full sidecar's configuration is left out, and told. Everything else is applied, or is about
# things that a call cannot notice (the decoders' tables say why for each field).
SIDECAR_REPORTS = ROUTE_REPORTS | {
    ("Cluster", f"{VALIDATION}.crl"),
    ("Cluster", "transport_socket_matches[].transport_socket"),  # the PROXY protocol
    ("Cluster", f"{HTTP2}.connection_keepalive"),
    ("Cluster", f"{HTTP2}.max_concurrent_streams"),
    ("Cluster", "upstream_bind_config"),
    ("Cluster", "upstream_connection_options"),
    ("Listener", "access_log"),
    ("Listener", "default_filter_chain.filters"),
    ("Listener", "filter_chains[].filters"),
    ("Listener", f"{MANAGER}.access_log"),
    ("Listener", f"{MANAGER}.normalize_path"),
    ("Listener", f"{MANAGER}.path_with_escaped_slashes_action"),
    ("Listener", f"{MANAGER}.request_id_extension"),
    ("Listener", f"{MANAGER}.tracing"),
    ("Listener", f"{MANAGER}.upgrade_configs"),
    ("Listener", "listener_filters"),
    ("Listener", "traffic_direction"),
    HTTP_FILTERS,
}
FILTERS = {
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.lua.v3.Lua",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "stats.PluginConfig",
}


@pytest.fixture(scope="module")
def istio(generator: Callable[..., IstioServer]) -> IstioServer:
    return generator(RICH, PROVIDERS)


def started(istio: IstioServer, kind: Kind, *, delta: bool) -> Mesh:
    """A mesh that has everything: for a proxyless node, what it asks for by name."""
    declared = [
        "full:9080",
        "reviews:9080",
        "reviews.default.svc.cluster.local:9081",
        "sniffed.example.com:9080",
        "k8s:80",
    ]
    mesh = istio_mesh(istio, kind, delta=delta, declared=declared if kind == "grpc" else ())
    mesh.wait_ready()
    if kind == "grpc":
        eventually(lambda: set(mesh.plan.snapshot.listeners) == set(declared), "all that was declared")
    return mesh


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
@pytest.mark.parametrize("kind", ["sidecar", "grpc"])
def test_nothing_is_refused_and_what_is_left_out_is_told_once(istio: IstioServer, kind: Kind, delta: bool) -> None:
    with started(istio, kind, delta=delta) as mesh:
        assert refusals(mesh) == 0
        assert istio.nacks() == []
        assert {issue.severity for issue in mesh.issues} == {"degraded"}
        told = {alike(issue) for issue in mesh.issues}
        assert {(kind, path) for kind, path, _ in told} == (SIDECAR_REPORTS if kind == "sidecar" else ROUTE_REPORTS)
        assert len({(issue.resource, issue.path) for issue in mesh.issues}) == len(mesh.issues), "each field once"
        named = {reason.split()[1] for resource, path, reason in told if (resource, path) == HTTP_FILTERS}
        assert named == (FILTERS if kind == "sidecar" else set())


def test_a_proxyless_call_without_a_port_is_for_port_80(istio: IstioServer) -> None:
    with istio_mesh(istio, "grpc").start() as mesh:
        for host in ("k8s", "k8s.default.svc.cluster.local", "unknown.test"):
            mesh.wait_for(host, time.monotonic() + 10)
        assert mesh.plan.snapshot.listeners.keys() == {"k8s:80", "k8s.default.svc.cluster.local:80"}
        found = mesh.plan.find("http", "k8s")
        assert found is not None
        assert found.listener == "k8s:80"
        for scheme, host in (("https", "k8s"), ("http", "unknown.test"), ("https", "unknown.test")):
            eventually(lambda s=scheme, h=host: not mesh.plan.may_come(s, h), f"{scheme}://{host} is known to be none")


def test_a_port_whose_protocol_is_not_said_has_a_listener_of_its_own(istio: IstioServer) -> None:
    with started(istio, "sidecar", delta=True) as mesh:
        explain = Explainer(mesh.plan.snapshot).explain
        for host in ("10.5.5.7", "alone.default.svc.cluster.local", "alone.default", "alone"):
            found = explain("GET", f"http://{host}:8123/")
            assert (found.listener, found.cluster) == (
                "10.5.5.7_8123", "outbound|8123||alone.default.svc.cluster.local"), host  # fmt: skip
        assert explain("GET", "http://other:8123/").listener == "virtualOutbound"
