"""Who we say we are: the xDS node, as a proxyless gRPC client or as a full sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Json = None | bool | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Locality:
    """Where the process runs; empty strings for what is not known."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """``envoy.config.core.v3.Node``; ``metadata`` is any JSON object, read-only by agreement."""

    id: str = ""
    cluster: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict, hash=False)
    locality: Locality = Locality()


def sidecar_node(
    *,
    ip: str,
    pod: str,
    namespace: str,
    cluster: str = "",
    domain: str = "svc.cluster.local",
    istio_version: str = "",
    generator: str = "",
    metadata: Mapping[str, Json] | None = None,
    locality: Locality = Locality(),
) -> Node:
    """The node of an Istio sidecar, ``sidecar~ip~pod.ns~ns.svc.cluster.local``.

    Without ``generator`` istiod sends a full sidecar's configuration (wildcard LDS and CDS), which holds far more than
    what it sends to ``generator="grpc"``. ``metadata`` is laid over NAMESPACE, CLUSTER_ID and the two options.
    """
    known: dict[str, Json] = {"NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes", "INSTANCE_IPS": ip}
    if istio_version:
        known["ISTIO_VERSION"] = istio_version
    if generator:
        known["GENERATOR"] = generator
    return Node(
        id=f"sidecar~{ip}~{pod}.{namespace}~{namespace}.{domain}",
        cluster=cluster or f"{pod}.{namespace}",
        metadata={**known, **(metadata or {})},
        locality=locality,
    )
