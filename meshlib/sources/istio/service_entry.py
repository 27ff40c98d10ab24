"""ServiceEntry → services: hosts, ports and endpoints of what can be called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.resources import IstioDocument, Origin
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio import workload_entry
from meshlib.sources.istio.fields import PORT, TEXT, Fields, ListOf, MapOf, OneOf
from meshlib.sources.istio.names import resolve
from meshlib.sources.istio.workload_entry import Workload, workload_of

PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", "HTTPS", "TLS", "TCP", "MONGO", "UDP", "REDIS", "MYSQL")
RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
_HTTP = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB", ""))  # without a protocol Istio detects it
_HTTP2 = frozenset(("HTTP2", "GRPC", "GRPC-WEB", "GRPC_WEB"))
_BY_NAME = frozenset(("DNS", "DNS_ROUND_ROBIN"))

_PORT = Fields(
    "ServicePort",
    {"number": PORT, "protocol": TEXT, "name": TEXT, "targetPort": PORT},
    required=("number",),
)
SPEC = Fields(
    "ServiceEntry",
    {
        "hosts": ListOf(TEXT),
        "addresses": ListOf(TEXT),
        "ports": ListOf(_PORT),
        "resolution": OneOf(RESOLUTIONS),
        "location": OneOf(("MESH_EXTERNAL", "MESH_INTERNAL")),
        "endpoints": ListOf(workload_entry.SPEC),
        "workloadSelector": Fields("WorkloadSelector", {"labels": MapOf(TEXT)}),
        "exportTo": ListOf(TEXT),
        "subjectAltNames": ListOf(TEXT),
    },
    required=("hosts",),
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
    """One workload for one service: `targets` are where it listens, by the name of the service's port."""

    workload: Workload
    targets: tuple[tuple[str, int], ...]

    def port(self, port: Port) -> int | None:
        """Where it listens for the service's port; None where it does not."""
        return dict(self.targets).get(port.name)


@dataclass(frozen=True, slots=True)
class Service:
    """A host with its ports and endpoints. `names` are what the certificates of its workloads may be for; `external`
    is a service outside the mesh. `first_ports`: without those that other entries of the host add.
    """

    host: str
    addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    resolution: str
    endpoints: tuple[Endpoint, ...]
    namespace: str
    external: bool
    names: tuple[str, ...]
    origin: Origin
    first_ports: tuple[Port, ...]

    def port(self, number: int) -> Port | None:
        """The port of that number."""
        return next((port for port in self.ports if port.number == number), None)


def check_more(document: IstioDocument) -> Iterator[Problem]:
    """What the fields alone do not say."""
    spec = document.spec
    if not spec.get("ports"):
        yield Problem((), "ServiceEntry needs ports")
    yield from _check_endpoints(spec)
    for index, port in enumerate(spec.get("ports") or ()):
        protocol = port.get("protocol", "").upper()
        if protocol and protocol not in PROTOCOLS:
            place = ("ports", index, "protocol")
            yield Problem(place, f"unknown protocol {port['protocol']!r}", f"one of {', '.join(PROTOCOLS)}")


def _check_endpoints(spec: Any) -> Iterator[Problem]:
    resolution = spec.get("resolution") or "NONE"
    endpoints, selects = spec.get("endpoints") or [], spec.get("workloadSelector") is not None
    if selects and endpoints:
        yield Problem(("endpoints",), "workloadSelector and endpoints exclude each other", "keep one")
    if resolution == "STATIC" and not endpoints and not selects:
        yield Problem(("resolution",), "resolution STATIC needs endpoints", "list them, or use resolution DNS")
    if resolution == "NONE" and endpoints:
        yield Problem(("endpoints",), "resolution NONE takes no endpoints", "use resolution STATIC")
    for index, port in enumerate(spec.get("ports") or ()):
        if resolution == "NONE" and port.get("targetPort") not in {None, port["number"]}:
            reason = "with resolution NONE calls pass through to the port they are made for"
            yield Problem(("ports", index, "targetPort"), reason, severity="degraded")
    if resolution == "DYNAMIC_DNS":
        yield Problem(("resolution",), "DYNAMIC_DNS is treated as NONE: the name called is the one resolved",
                      severity="degraded")  # fmt: skip
    for index, entry in enumerate(endpoints):
        yield from workload_entry.check_more(entry, ("endpoints", index))
    for index, host in enumerate(spec["hosts"]):
        if host.startswith("*") and resolution == "DNS" and not endpoints:
            yield Problem(("hosts", index), "a wildcard cannot be resolved by DNS", "list endpoints, or use NONE")


def services_of(document: IstioDocument, workloads: Iterable[Workload]) -> Iterator[Service]:
    """One service for each host; `workloads` are those among which a `workloadSelector` chooses."""
    spec = document.spec
    ports = tuple(
        Port(p["number"], p.get("protocol", "").upper(), p.get("name", ""), p.get("targetPort", p["number"]))
        for p in spec.get("ports") or ()
    )
    resolution = (spec.get("resolution") or "NONE").replace("DYNAMIC_DNS", "NONE")
    found = list(_workloads(document, workloads, resolution))
    endpoints = tuple(Endpoint(workload, _targets(workload, ports)) for workload in found)
    external = spec.get("location") != "MESH_INTERNAL"
    names = tuple(spec.get("subjectAltNames") or ())
    for host in spec["hosts"]:
        name = resolve(host, document.namespace)
        own = endpoints
        if not own and resolution in _BY_NAME and spec.get("workloadSelector") is None:
            itself = Workload(name)
            own = (Endpoint(itself, _targets(itself, ports)),)
        yield Service(
            name, _addresses(spec), ports, resolution, own, document.namespace, external, names, document.origin, ports
        )  # fmt: skip


def _addresses(spec: Any) -> tuple[str, ...]:
    """The addresses that requests may be made for. Blocks catch connections of a sidecar; no request is for one."""
    listed = (address.removesuffix("/32").removesuffix("/128") for address in spec.get("addresses") or ())
    return tuple(address for address in listed if "/" not in address)


def _workloads(document: IstioDocument, workloads: Iterable[Workload], resolution: str) -> Iterator[Workload]:
    selector = document.spec.get("workloadSelector")
    if selector is None:
        for entry in document.spec.get("endpoints") or ():
            yield workload_of(entry, document.namespace)
        return
    labels = selector.get("labels") or {}
    for workload in workloads:
        is_own = workload.namespace == document.namespace and labels.items() <= dict(workload.labels).items()
        if is_own and (workload.is_by_address or resolution in _BY_NAME):
            yield workload


def _targets(workload: Workload, ports: Iterable[Port]) -> tuple[tuple[str, int], ...]:
    own = dict(workload.ports)
    return tuple((port.name, own.get(port.name) or port.target) for port in ports)
