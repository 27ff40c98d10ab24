"""Istio documents → the Envoy resources that istiod would send to a workload that sees all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshlib.model.report import Issue
from meshlib.sources.files.messages import to_message
from meshlib.sources.files.resources import Content, IstioDocument, LoadedResource, Origin
from meshlib.sources.files.type_registry import ASSIGNMENT, CLUSTER, LISTENER, ROUTE_CONFIGURATION, short_name
from meshlib.sources.istio.caller import NOBODY, Caller
from meshlib.sources.istio.clusters import (
    BLACK_HOLE_CLUSTER,
    DEFAULTS,
    black_hole_cluster,
    clusters_of,
    passthrough_cluster,
)
from meshlib.sources.istio.listeners import (
    VIRTUAL_OUTBOUND,
    black_hole_listener,
    http_filters,
    proxyless_listener,
    sidecar_listener,
)
from meshlib.sources.istio.registry import Registry, build_registry
from meshlib.sources.istio.routes import HostRoutes, hosts_on, ports_of, proxyless_table, sidecar_table

Generated = tuple[str, dict[str, Any], Origin]


def translate(documents: Iterable[IstioDocument], caller: Caller = NOBODY) -> Content:
    """Resources and issues, as they are for `caller`. A document with an error adds nothing, and its errors are among
    the issues.
    """
    registry, issues = build_registry(documents, caller)
    resources: list[LoadedResource] = []
    for type_name, value, origin in _generate(registry):
        message, problems = to_message(value, type_name)
        name = value.get("name") or value["cluster_name"]
        issues.extend(origin.issue(problem, f"{short_name(type_name)} {name}") for problem in problems)
        if message is not None:
            by_port = type_name == LISTENER and "api_listener" not in value and name != VIRTUAL_OUTBOUND
            resources.append(
                LoadedResource(type_name, name, message, origin, defaults=DEFAULTS, by_port=by_port, checked=True)
            )
    return Content(tuple(resources), issues=_unique(issues))


def _generate(registry: Registry) -> Iterator[Generated]:
    for service in (*registry.services, *registry.reached):
        for cluster, assignment in clusters_of(service, registry.rule_of(service), registry.caller):
            yield CLUSTER, cluster, service.origin
            if assignment is not None:
                yield ASSIGNMENT, assignment, service.origin
    ports = ports_of(registry)
    for port in ports:
        hosts = hosts_on(registry, port)
        origin = _origin(hosts, registry)
        filters = http_filters(route for entry in hosts for route in entry.routes)
        yield LISTENER, sidecar_listener(port, filters), origin
        yield ROUTE_CONFIGURATION, sidecar_table(hosts, port, registry), origin
        for entry in hosts:
            yield from _proxyless(entry, port, registry)
    if ports:
        yield CLUSTER, passthrough_cluster(), _origin([], registry)
    if registry.sidecar is not None and registry.scope.registry_only:
        yield CLUSTER, black_hole_cluster(), registry.sidecar.origin
        yield LISTENER, black_hole_listener(BLACK_HOLE_CLUSTER), registry.sidecar.origin


def _proxyless(entry: HostRoutes, port: int, registry: Registry) -> Iterator[Generated]:
    if entry.service is None:
        return
    table = proxyless_table(entry, entry.service, port, registry)
    filters = http_filters(entry.routes)
    yield LISTENER, proxyless_listener(entry.host, port, table["name"], filters), entry.service.origin
    yield ROUTE_CONFIGURATION, table, entry.service.origin


def _origin(hosts: list[HostRoutes], registry: Registry) -> Origin:
    """A route configuration of a port comes from many objects; the first stands for them."""
    for entry in hosts:
        if entry.service is not None:
            return entry.service.origin
    if registry.virtual_services:
        return registry.virtual_services[0].document.origin
    return registry.services[0].origin


def _unique(issues: list[Issue]) -> tuple[Issue, ...]:
    return tuple(dict.fromkeys(issues))
