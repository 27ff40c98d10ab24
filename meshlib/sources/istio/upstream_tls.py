"""How connections of a cluster are encrypted (istiod: `cluster_tls.go`): as a DestinationRule says, or with the mutual
TLS of the mesh for those workloads that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.policy import http_options
from meshlib.sources.istio.service_entry import Service

Json = dict[str, Any]

_TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_IDENTITY = {"instance_name": "default"}
_PLAIN = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
}


def apply_tls(cluster: Json, tls: Mapping[str, Any] | None, service: Service, *, automatic: bool) -> None:
    """Change the cluster (JSON form) as `tls` says, or without it as the workloads do. `automatic`: one of them has
    the mutual TLS of the mesh.
    """
    identities = _identities(service)
    if tls is None:
        if automatic and not service.external and cluster["type"] != "ORIGINAL_DST":
            cluster["transport_socket_matches"] = _automatic(cluster["name"], identities)
        return
    mode = tls.get("mode", "DISABLE")
    if mode == "ISTIO_MUTUAL":
        names = tls.get("subjectAltNames") or identities
        cluster["transport_socket"] = _socket(_istio_mutual(names), tls.get("sni") or _own_sni(cluster["name"]))
    elif mode in {"SIMPLE", "MUTUAL"}:
        _apply_origination(cluster, tls, identities, mutual=mode == "MUTUAL")


def _apply_origination(cluster: Json, tls: Mapping[str, Any], identities: list[str], *, mutual: bool) -> None:
    common: Json = {"validation_context": _validation(tls, identities)}
    if mutual:
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": tls.get("clientCertificate", "")},
                "private_key": {"filename": tls.get("privateKey", "")},
            }
        ]
    if not tls.get("sni"):
        _apply_names_by_host(cluster, tls)
    cluster["transport_socket"] = _socket(common, tls.get("sni", ""))


def _automatic(cluster: str, identities: list[str]) -> list[Json]:
    """Automatic mutual TLS: with the workloads that say they have it, plain text with the others."""
    mutual = _socket(_istio_mutual(identities), _own_sni(cluster))
    return [
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": mutual},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": _PLAIN},
    ]


def _identities(service: Service) -> list[str]:
    """What certificates of the service may be for: names of its entry, and the accounts of its workloads."""
    accounts = {endpoint.workload.account for endpoint in service.endpoints} - {""}
    return sorted({*service.names, *accounts})


def _socket(common: Json, sni: str) -> Json:
    context: Json = {"@type": _TLS_CONTEXT, "common_tls_context": common} | ({"sni": sni} if sni else {})
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _istio_mutual(names: list[str]) -> Json:
    """The workload's own identity, which the certificate provider `default` stands for (gRFC A29)."""
    return {
        "alpn_protocols": ["istio"],
        "tls_certificate_provider_instance": _IDENTITY,
        "validation_context": {"ca_certificate_provider_instance": _IDENTITY} | _names(names),
    }


def _own_sni(cluster: str) -> str:
    """`outbound_.9080_.v1_.reviews...`: by it a sidecar of the other side knows the cluster."""
    direction, port, subset, host = cluster.split("|")
    return f"{direction}_.{port}_.{subset}_.{host}"


def _apply_names_by_host(cluster: Json, tls: Mapping[str, Any]) -> None:
    """Without an SNI the request's host is sent, and without names the certificate must be for that host."""
    found = http_options(cluster).setdefault("upstream_http_protocol_options", {})
    found["auto_sni"] = True
    if not tls.get("subjectAltNames") and not tls.get("insecureSkipVerify"):
        found["auto_san_validation"] = True


def _validation(tls: Mapping[str, Any], identities: list[str]) -> Json:
    """Whom to trust: the named authorities or the system's, and nobody only where that is asked for."""
    if tls.get("insecureSkipVerify"):
        return {}
    roots: Json = {"trusted_ca": {"filename": tls["caCertificates"]}} if tls.get("caCertificates") else {}
    revoked: Json = {"crl": {"filename": tls["caCrl"]}} if tls.get("caCrl") else {}
    return (roots or {"system_root_certs": {}}) | revoked | _names(tls.get("subjectAltNames") or identities)


def _names(names: list[str]) -> Json:
    found = [{"exact": name} for name in names]
    return {"match_subject_alt_names": found} if found else {}
