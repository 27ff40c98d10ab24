"""A cluster's TLS as a control plane or a file says it: certificate providers and watched files, rotated under way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.mtls.workloads import CLIENT_ID, REFRESH, SERVER_ID, Pair, pair_of_workloads, served
from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, Resource, ResourceStore
from meshlib.identity.dev_ca import DevCA
from meshlib.sources.xds.bootstrap import Bootstrap, CertificateProvider, XdsServer
from meshlib.sources.xds.node import Node
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds
from parts.xds import eventually

CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
SANS = [{"san_type": "URI", "matcher": {"exact": SERVER_ID}}]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_workloads() as made:
        yield made


def _socket(common: dict[str, Any]) -> dict[str, Any]:
    return {"name": "tls", "typed_config": {"@type": CONTEXT, "common_tls_context": common}}


def _through_a_rotation(pair: Pair, mesh: Mesh) -> None:
    """Calls succeed before, between and after the steps of replacing the authority."""
    with mesh.http.client("payments") as client:

        def known() -> None:
            assert client.get("/").json()["extension"] == CLIENT_ID

        known()
        old, new = pair.authority, DevCA.new()
        for step in (
            lambda: pair.trust(old, new),
            lambda: pair.move_to(new),
            lambda: pair.trust(new),
        ):
            step()
            # The mesh follows the files by an identity of its own, so it may be a moment later than the pair.
            eventually(lambda: _newest(pair, mesh), "the mesh has the newest certificates")
            known()


def _newest(pair: Pair, mesh: Mesh) -> bool:
    wanted = pair.client.identity.current
    assert wanted.pair is not None
    assert wanted.bundle is not None
    sources = [source for secured in mesh.upstreams._made.values() for source, _ in secured._sources]
    materials = [source.current for source in sources]
    return all(
        (material.pair is None or material.pair.chain == wanted.pair.chain)
        and (material.bundle is None or material.bundle.pem == wanted.bundle.pem)
        for material in materials
    )


@pytest.mark.parametrize("spelling", ["new", "deprecated"])
def test_a_control_plane_names_provider_instances(pair: Pair, spelling: str) -> None:
    instance = {"instance_name": "mesh_certificates"}
    common: dict[str, Any] = {
        "tls_certificate_provider_instance": instance,
        "validation_context": {"ca_certificate_provider_instance": instance, "match_typed_subject_alt_names": SANS},
    }
    if spelling == "deprecated":
        common = {
            "tls_certificate_certificate_provider_instance": instance,
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": SANS},
                "validation_context_certificate_provider_instance": instance,
            },
        }
    config = {
        "certificate_file": str(pair.client.folder / "tls.crt"),
        "private_key_file": str(pair.client.folder / "tls.key"),
        "ca_certificate_file": str(pair.client.folder / "ca.crt"),
        "refresh_interval": f"{REFRESH}s",
    }
    store = ResourceStore()
    with served(pair.server.identity) as port:
        store.replace(
            Resource.of_message(xds.message(*item))
            for item in (
                (LISTENER, xds.api_listener("payments")),
                (ROUTE_CONFIGURATION, xds.route_configuration()),
                (CLUSTER, xds.eds_cluster(transport_socket=_socket(common))),
                (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("payments", xds.endpoint("127.0.0.1", port))),
            )
        )
        server = AdsServer(store).start()
        bootstrap = Bootstrap(
            (XdsServer(f"127.0.0.1:{server.port}"),),
            node=Node(id="checkout"),
            certificate_providers=(CertificateProvider("mesh_certificates", "file_watcher", config),),
        )
        with Mesh.from_xds(bootstrap) as mesh:
            _through_a_rotation(pair, mesh)
            assert mesh.issues == ()
        server.stop(0)


def test_a_file_names_files(pair: Pair, tmp_path: Path) -> None:
    folder = pair.client.folder
    with served(pair.server.identity) as port:
        (tmp_path / "mesh.yaml").write_text(f"""\
static_resources:
  clusters:
  - name: payments
    load_assignment:
      cluster_name: payments
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address:
        {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": {CONTEXT}
        common_tls_context:
          tls_certificates:
          - certificate_chain: {{filename: {folder}/tls.crt}}
            private_key: {{filename: {folder}/tls.key}}
            watched_directory: {{path: {folder}}}
          validation_context:
            trusted_ca: {{filename: {folder}/ca.crt}}
            match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: "{SERVER_ID}"}}}}]
  listeners:
  - name: payments
    api_listener:
      api_listener:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: http
        route_config:
          virtual_hosts: [{{name: payments, domains: [payments], routes: [{{match: {{prefix: /}},
            route: {{cluster: payments}}}}]}}]
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
""")
        with Mesh.from_file(tmp_path / "mesh.yaml") as mesh:
            _through_a_rotation(pair, mesh)
            assert mesh.issues == ()
