"""TLS as istiod asks for it: secrets by name, names by the request's host, and TLS that depends on the endpoint."""

from typing import Any

import pytest

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.endpoint import Address, LbEndpoint
from meshlib.model.metadata import Metadata
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import CLUSTER
from parts import xds_resources as xds

Json = dict[str, Any]
KIND = "type.googleapis.com/envoy.extensions.transport_sockets"
RAW = {"name": "envoy.transport_sockets.raw_buffer"}


def decoded(**fields: Any) -> tuple[Cluster, Decoded]:
    found = decode_message(xds.message(CLUSTER, {**xds.eds_cluster(), **fields}))
    assert isinstance(found.resource, Cluster)
    return found.resource, found


def socket(certificate: str = "", roots: str = "", **more: Any) -> Json:
    common: Json = {"combined_validation_context": {"default_validation_context": {}}, **more}
    if roots:
        common["combined_validation_context"]["validation_context_sds_secret_config"] = {"name": roots}
    if certificate:
        common["tls_certificate_sds_secret_configs"] = [{"name": certificate}]
    context = {"@type": f"{KIND}.tls.v3.UpstreamTlsContext", "common_tls_context": common}
    return {"name": "tls", "typed_config": context}


@pytest.mark.parametrize(
    "certificate, roots, expected",
    [
        ("default", "ROOTCA", UpstreamTls(certificate_provider="default", ca_provider="default")),
        ("", "file-root:system", UpstreamTls(system_root_certs=True)),
        ("", "file-root:/ca.pem", UpstreamTls(trusted_ca="/ca.pem")),
        ("file-cert:/c.pem~/k.pem", "ROOTCA",
         UpstreamTls(certificate_chain="/c.pem", private_key="/k.pem", ca_provider="default")),
    ],
)  # fmt: skip
def test_secrets_whose_names_say_where_they_are(certificate: str, roots: str, expected: UpstreamTls) -> None:
    found, report = decoded(transport_socket=socket(certificate, roots))
    assert found.tls == expected
    assert report.issues == ()


@pytest.mark.parametrize(
    "certificate, roots",
    [("kubernetes://mine", "ROOTCA"), ("file-cert:only", "ROOTCA"), ("", "file-root:"), ("", "kubernetes://ca")],
)
def test_any_other_secret_makes_the_cluster_unusable(certificate: str, roots: str) -> None:
    found, report = decoded(transport_socket=socket(certificate, roots))
    assert found.tls is not None
    assert "SDS not supported" in found.tls.unusable
    assert len(report.issues) == 1


@pytest.mark.parametrize(
    "version, told, least",
    [("TLSv1_2", False, "TLSv1_2"), ("TLSv1_3", False, "TLSv1_3"), ("TLSv1_0", True, "TLSv1_2")],
)
def test_versions_of_tls_other_than_those_spoken_are_told(version: str, told: bool, least: str) -> None:
    parameters = {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": "TLSv1_3"}
    found, report = decoded(transport_socket=socket(roots="ROOTCA", tls_params=parameters))
    assert found.tls is not None
    assert found.tls.minimum_version == least
    assert [issue.path.rpartition(".")[2] for issue in report.issues] == (
        ["tls_minimum_protocol_version"] if told else [])  # fmt: skip


@pytest.mark.parametrize("name", ["payments\0.example", "payments\r\n", "zahlung\u00e9"])
def test_a_server_name_that_cannot_be_said_in_a_handshake_is_refused(name: str) -> None:
    wanted = socket(roots="ROOTCA")
    wanted["typed_config"]["sni"] = name
    with pytest.raises(ResourceError, match=r"sni: is no name of a server"):
        decoded(transport_socket=wanted)


def test_a_name_check_that_is_not_made_makes_the_cluster_unusable() -> None:
    """UpstreamTlsContext.auto_sni_san_validation: the certificate must be for the SNI. Without it any would do."""
    wanted = socket(roots="ROOTCA")
    wanted["typed_config"] |= {"auto_host_sni": True, "auto_sni_san_validation": True}
    found, report = decoded(transport_socket=wanted)
    assert found.tls is not None
    assert "auto_sni_san_validation" in found.tls.unusable
    assert len(report.issues) == 1


@pytest.mark.parametrize(
    "protocols, expected", [(["istio-peer-exchange", "istio"], True), (["h2"], False), ([], False)]
)
def test_istio_s_names_of_protocols(protocols: list[str], expected: bool) -> None:
    found, report = decoded(transport_socket=socket(roots="ROOTCA", alpn_protocols=protocols))
    assert found.tls is not None
    assert found.tls.istio_alpn is expected
    assert report.issues == ()


def test_names_by_the_host_of_the_request() -> None:
    import envoy.extensions.upstreams.http.v3.http_protocol_options_pb2  # noqa: F401  JSON needs the type

    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{kind}",
        "explicit_http_config": {"http_protocol_options": {}},
        "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": True},
    }
    found, report = decoded(
        transport_socket=socket(roots="file-root:system"), typed_extension_protocol_options={kind: options}
    )
    assert found.tls == UpstreamTls(system_root_certs=True, auto_sni=True, auto_san_validation=True)
    assert found.tls.by_host
    assert report.issues == ()


def test_automatic_mutual_tls_is_for_the_endpoints_that_have_it() -> None:
    matches = [
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": socket("default", "ROOTCA")},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": RAW},
    ]
    found, report = decoded(transport_socket_matches=matches)
    mutual = UpstreamTls(certificate_provider="default", ca_provider="default")
    assert found.tls_of(endpoint({"tlsMode": "istio"})) == mutual
    assert found.tls_of(endpoint({"tlsMode": "istio", "other": "x"})) == mutual
    assert found.tls_of(endpoint({"tlsMode": "disabled"})) is None
    assert found.tls_of(endpoint({})) is None
    assert report.issues == ()


def test_without_a_match_the_cluster_s_own_socket_counts() -> None:
    matches = [{"name": "a", "match": {"tlsMode": "istio"}, "transport_socket": RAW}]
    found, _ = decoded(transport_socket_matches=matches, transport_socket=socket(roots="file-root:/ca.pem"))
    assert found.tls_of(endpoint({"tlsMode": "istio"})) is None
    assert found.tls_of(endpoint({})) == UpstreamTls(trusted_ca="/ca.pem")


def endpoint(mode: Json) -> LbEndpoint:
    return LbEndpoint(Address("10.0.0.1", 80), metadata=Metadata.of({"envoy.transport_socket_match": mode}))
