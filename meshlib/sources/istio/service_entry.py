"""ServiceEntry → services: hosts, ports and endpoints of what can be called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib.sources.files.resources import IstioDocument, Origin
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.fields import PORT, TEXT, WHOLE, Fields, ListOf, MapOf, OneOf
from meshlib.sources.istio.names import resolve

PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", "HTTPS", "TLS", "TCP", "MONGO", "UDP", "REDIS", "MYSQL")
RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
_HTTP = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", ""))  # without a protocol Istio detects it
_HTTP2 = frozenset(("HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB"))

_PORT = Fields(
    "ServicePort",
    {"number": PORT, "protocol": TEXT, "name": TEXT, "targetPort": PORT},
    required=("number",),
)
_ENDPOINT = Fields(
    "WorkloadEntry",
    {"address": TEXT, "ports": MapOf(PORT), "labels": MapOf(TEXT), "locality": TEXT, "weight": WHOLE},
    required=("address",),
    not_applied={"network": "networks are not told apart", "serviceAccount": "peer identity is not checked from files"},
)
SPEC = Fields(
    "ServiceEntry",
    {
        "hosts": ListOf(TEXT),
        "addresses": ListOf(TEXT),
        "ports": ListOf(_PORT),
        "resolution": OneOf(RESOLUTIONS),
        "location": OneOf(("MESH_EXTERNAL", "MESH_INTERNAL")),
        "endpoints": ListOf(_ENDPOINT),
        "exportTo": ListOf(TEXT),
    },
    required=("hosts",),
    not_applied={
        "workloadSelector": "workloads are not known from files; list endpoints",
        "subjectAltNames": "peer identity is not checked from files",
    },
)


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service: `target` is where endpoints listen that do not say otherwise."""

    number: int
    protocol: str
    name: str
    target: int

    @property
    def is_http(self) -> bool:
        """Whether requests on it are routed; others are connections that are not for this library."""
        return self.protocol in _HTTP

    @property
    def is_http2(self) -> bool:
        """Whether upstreams are spoken to in HTTP/2."""
        return self.protocol in _HTTP2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One workload: an IP address, a name, or `unix:///path`."""

    address: str
    ports: dict[str, int]
    labels: dict[str, str]
    locality: str
    weight: int

    def port(self, port: Port) -> int:
        """Where it listens for the service's port."""
        return self.ports.get(port.name, port.target)


@dataclass(frozen=True, slots=True)
class Service:
    """A host with its ports and endpoints."""

    host: str
    addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    resolution: str
    endpoints: tuple[Endpoint, ...]
    namespace: str
    origin: Origin

    def port(self, number: int) -> Port | None:
        """The port of that number."""
        return next((port for port in self.ports if port.number == number), None)


def check_more(document: IstioDocument) -> Iterator[Problem]:
    """What the fields alone do not say."""
    spec = document.spec
    resolution = spec.get("resolution") or "NONE"
    if not spec.get("ports"):
        yield Problem((), "ServiceEntry needs ports")
    if resolution == "STATIC" and not spec.get("endpoints") and not spec.get("workloadSelector"):
        yield Problem(("resolution",), "resolution STATIC needs endpoints", "list them, or use resolution DNS")
    if resolution == "NONE" and spec.get("endpoints"):
        yield Problem(("endpoints",), "resolution NONE takes no endpoints", "use resolution STATIC")
    if resolution == "DYNAMIC_DNS":
        yield Problem(("resolution",), "DYNAMIC_DNS is treated as NONE: the name called is the one resolved",
                      severity="degraded")  # fmt: skip
    for index, host in enumerate(spec["hosts"]):
        if host.startswith("*") and resolution == "DNS" and not spec.get("endpoints"):
            yield Problem(("hosts", index), "a wildcard cannot be resolved by DNS", "list endpoints, or use NONE")
    for index, port in enumerate(spec.get("ports") or ()):
        protocol = port.get("protocol", "").upper()
        if protocol and protocol not in PROTOCOLS:
            place = ("ports", index, "protocol")
            yield Problem(place, f"unknown protocol {port['protocol']!r}", f"one of {', '.join(PROTOCOLS)}")


def services_of(document: IstioDocument) -> Iterator[Service]:
    """One service for each host."""
    spec = document.spec
    ports = tuple(
        Port(p["number"], p.get("protocol", "").upper(), p.get("name", ""), p.get("targetPort", p["number"]))
        for p in spec.get("ports") or ()
    )
    endpoints = tuple(
        Endpoint(e["address"], dict(e.get("ports") or {}), dict(e.get("labels") or {}), e.get("locality", ""),
                 e.get("weight") or 1)
        for e in spec.get("endpoints") or ()
    )  # fmt: skip
    resolution = (spec.get("resolution") or "NONE").replace("DYNAMIC_DNS", "NONE")
    # CIDR blocks catch connections of a sidecar; no request is addressed to one.
    addresses = tuple(address for address in spec.get("addresses") or () if "/" not in address)
    for host in spec["hosts"]:
        name = resolve(host, document.namespace)
        yield Service(name, addresses, ports, resolution, endpoints, document.namespace, document.origin)
