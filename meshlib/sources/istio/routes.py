"""Services and VirtualServices → virtual hosts and route configurations (istiod: `httproute.go`, `route.go`).

There is one route configuration a port for sidecar-like consumers (named by the port, ports ignored in hosts), and one
a service and port for proxyless ones (named as the cluster, ports in the domains).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from meshlib.sources.istio.clusters import PASSTHROUGH_CLUSTER
from meshlib.sources.istio.hosts import is_covered
from meshlib.sources.istio.names import bracketed, cluster_name, domains, domains_with_port, matches
from meshlib.sources.istio.registry import Registry
from meshlib.sources.istio.route_action import action_of, default_action
from meshlib.sources.istio.route_match import is_catch_all, route_match
from meshlib.sources.istio.service_entry import Service
from meshlib.sources.istio.virtual_service import VirtualService, misses

Json = dict[str, Any]

HTTP_PORT = 80
"""On this port VirtualServices are served for hosts that no service has, as istiod does."""
_MAX_DIRECT_RESPONSE_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """The routes of one host on one port; `service` is None for a host that only a VirtualService names."""

    host: str
    service: Service | None
    routes: tuple[Json, ...]


def ports_of(registry: Registry) -> list[int]:
    """The ports that requests are routed on."""
    ports = {port.number for service in registry.services for port in service.ports if port.is_http}
    names = {service.host for service in registry.services}
    if any(_unknown_hosts(virtual, names) for virtual in registry.virtual_services):
        ports.add(HTTP_PORT)
    return sorted(ports)


def hosts_on(registry: Registry, port: int) -> list[HostRoutes]:
    """Every host of a port with its routes: those of VirtualServices in their order, then the others by name. The first
    VirtualService that claims a host has it, and the first host that claims an address.

    A VirtualService that speaks for a service of the port brings its other hosts along, whether or not they have that
    port; on port 80 it needs none, so that hosts can be routed that no service has (both as istiod does it).
    """
    services = {service.host: service for service in registry.services if _has_http(service, port)}
    known = {service.host for service in registry.services if service.port(port) is not None}
    found: dict[str, HostRoutes] = {}
    for virtual in registry.virtual_services:
        claimed = _claimed(virtual, services, registry)
        unknown = _unknown_hosts(virtual, known) if claimed or port == HTTP_PORT else []
        routes = tuple(_routes(virtual, port, registry)) if claimed or unknown else ()
        if not routes:
            continue
        for host in unknown:
            found.setdefault(host, HostRoutes(host, None, routes))
        for service in claimed:
            found.setdefault(service.host, HostRoutes(service.host, service, routes))
    for host, service in sorted(services.items()):
        if host not in found:
            found[host] = HostRoutes(host, service, (_default_route(service, port, registry),))
    return list(found.values())


def sidecar_table(hosts: Iterable[HostRoutes], port: int, registry: Registry) -> Json:
    """The route configuration of a port; unknown hosts are passed through (Istio's ALLOW_ANY), unless the caller's
    Sidecar says REGISTRY_ONLY.
    """
    taken: set[str] = set()
    virtual_hosts = []
    for entry in hosts:
        names: tuple[str, ...] = (bracketed(entry.host),)
        if entry.service is not None:
            names = domains(entry.host, entry.service.addresses, registry.caller.namespace)
        free = [name for name in names if name not in taken and name != "*"]
        taken.update(free)
        if free:
            virtual_hosts.append(_virtual_host(entry, port, free))
    return {
        "name": str(port),
        "virtual_hosts": [
            *sorted(virtual_hosts, key=itemgetter("name")),
            _block_all() if registry.scope.registry_only else _allow_any(),
        ],
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": _MAX_DIRECT_RESPONSE_BODY,
        "ignore_port_in_host_matching": True,
    }


def proxyless_table(entry: HostRoutes, service: Service, port: int, registry: Registry) -> Json:
    """The route configuration of one service on one port, as a proxyless gRPC client asks for it."""
    every = domains_with_port(service.host, port, service.addresses, registry.caller.namespace)
    names = [name for name in every if name != "*"]
    return {
        "name": cluster_name(port, "", service.host),
        "virtual_hosts": [_virtual_host(entry, port, names or ["*"])],
    }


def _virtual_host(entry: HostRoutes, port: int, names: list[str]) -> Json:
    name = f"{bracketed(entry.host)}:{port}"
    return {"name": name, "domains": names, "routes": list(entry.routes), "include_request_attempt_count": True}


def _allow_any() -> Json:
    action = {"route": {"cluster": PASSTHROUGH_CLUSTER, "timeout": "0s", "max_grpc_timeout": "0s"}}
    return _catch_all("allow_any", action)


def _block_all() -> Json:
    return _catch_all("block_all", {"direct_response": {"status": 502}})


def _catch_all(name: str, action: Json) -> Json:
    return {
        "name": name,
        "domains": ["*"],
        "routes": [{"name": name, "match": {"prefix": "/"}, **action}],
        "include_request_attempt_count": True,
    }


def _routes(virtual: VirtualService, port: int, registry: Registry) -> Iterator[Json]:
    """One route for each match; what comes after a route that takes everything can never be reached."""
    for route in virtual.http:
        for match in route.get("match") or (None,):
            if match is not None and (misses(match, registry.caller) or (match.get("port") or port) != port):
                continue
            name = route.get("name", "") + (f".{match['name']}" if match and match.get("name") else "")
            translated = route_match(match)
            action = action_of(route, port, _cluster_lookup(port), _hash_lookup(registry))
            yield {"name": name, "match": translated, **action}
            if is_catch_all(translated):
                return


def _default_route(service: Service, port: int, registry: Registry) -> Json:
    rule = registry.rule_of(service)
    consistent = rule.consistent_hash(port) if rule else None
    action = default_action(cluster_name(port, "", service.host), consistent)
    return {"name": "default", "match": {"prefix": "/"}, "route": action}


def _cluster_lookup(port: int) -> Callable[[Mapping[str, Any]], str]:
    def cluster_of(destination: Mapping[str, Any]) -> str:
        number = (destination.get("port") or {}).get("number", port)
        return cluster_name(number, destination.get("subset", ""), destination["host"])

    return cluster_of


def _hash_lookup(registry: Registry) -> Callable[[Mapping[str, Any]], Json | None]:
    def hash_of(destination: Mapping[str, Any]) -> Json | None:
        service = registry.service(destination["host"])
        rule = registry.rule_of(service) if service is not None else None
        if rule is None:
            return None
        return rule.consistent_hash((destination.get("port") or {}).get("number"), destination.get("subset", ""))

    return hash_of


def _has_http(service: Service, number: int) -> bool:
    port = service.port(number)
    return port is not None and port.is_http


def _claimed(virtual: VirtualService, services: Mapping[str, Service], registry: Registry) -> list[Service]:
    """The services it speaks for: those it names, and under its wildcards those it is in charge of."""
    found: dict[str, Service] = {}
    for pattern in virtual.hosts:
        if not pattern.startswith("*"):
            found |= {pattern: services[pattern]} if pattern in services else {}
            continue
        for host, service in services.items():
            if matches(pattern, host) and registry.owner(host) is virtual:
                found[host] = service
    return list(found.values())


def _unknown_hosts(virtual: VirtualService, known: set[str]) -> list[str]:
    return [host for host in virtual.hosts if not is_covered(host, known)]
