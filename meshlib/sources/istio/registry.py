"""All checked objects of the files together, as one caller sees them: what the generator reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.report import Issue
from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio import (
    destination_rule_fields,
    service_entry,
    sidecar,
    virtual_service,
    virtual_service_fields,
    workload_entry,
)
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.destination_rule import Rule
from meshlib.sources.istio.destinations import check_destinations, destinations_of
from meshlib.sources.istio.fields import Fields, check, stated
from meshlib.sources.istio.hosts import HostIndex, is_covered
from meshlib.sources.istio.names import is_visible, resolve
from meshlib.sources.istio.rules import Rules, rules_for
from meshlib.sources.istio.service_entry import Service
from meshlib.sources.istio.services import own_hidden_services, visible_services
from meshlib.sources.istio.sidecar import Scope, scope_of
from meshlib.sources.istio.virtual_service import VirtualService, virtual_services
from meshlib.sources.istio.workload_entry import workloads_of

_Documents = dict[str, list[IstioDocument]]
_SPECS: dict[str, Fields] = {
    "ServiceEntry": service_entry.SPEC,
    "VirtualService": virtual_service_fields.SPEC,
    "DestinationRule": destination_rule_fields.SPEC,
    "WorkloadEntry": workload_entry.SPEC,
    "Sidecar": sidecar.SPEC,
}
_MORE: dict[str, Callable[[IstioDocument], Iterator[Problem]]] = {
    "ServiceEntry": service_entry.check_more,
    "VirtualService": virtual_service.check_more,
    "WorkloadEntry": lambda document: workload_entry.check_more(document.spec),
    "Sidecar": sidecar.check_more,
}


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """What one caller sees: services, each host once; `reached` ones are not imported, but routes lead to them."""

    caller: Caller
    scope: Scope
    sidecar: IstioDocument | None
    """The object that says the scope."""

    services: tuple[Service, ...]
    reached: tuple[Service, ...]
    rules: Rules
    virtual_services: tuple[VirtualService, ...]
    by_host: Mapping[str, Service]
    """The services, imported or reached."""

    owners: HostIndex[VirtualService]

    def rule_of(self, service: Service) -> Rule | None:
        """The DestinationRule that holds for a service."""
        return self.rules.find(service.host, service.namespace)

    def service(self, host: str) -> Service | None:
        """The service of that host, imported or reached."""
        return self.by_host.get(host)

    def owner(self, host: str) -> VirtualService | None:
        """The VirtualService in charge of a host: the first that names it, or the longest wildcard that covers it."""
        return next(iter(self.owners.of(host)), None)


def build_registry(documents: Iterable[IstioDocument], caller: Caller) -> tuple[Registry, list[Issue]]:
    """The registry of every document without errors, and the issues of all of them."""
    issues: list[Issue] = []
    good = _checked(documents, caller, issues)
    scope, said_by = scope_of(good["Sidecar"], caller)
    workloads = workloads_of(good["WorkloadEntry"])
    everything, hidden = visible_services(good["ServiceEntry"], workloads, caller)
    issues += [_taken(document, host, str(by.origin)) for document, host, by in hidden]
    services = tuple(service for service in everything if scope.imports(service.namespace, service.host))
    virtual = tuple(
        found for found in virtual_services(good["VirtualService"], caller)
        if scope.imports_any(found.namespace, found.hosts)
    )  # fmt: skip
    known = {service.host for service in everything}
    own = (each for each in own_hidden_services(good["ServiceEntry"], workloads, caller) if each.host not in known)
    imported = {service.host for service in services}
    others = (*(service for service in everything if service.host not in imported), *own)
    reached = tuple(found for service in others if (found := _reached(service, virtual, caller)) is not None)
    registry = Registry(
        caller, scope, said_by, services, reached, rules_for(good["DestinationRule"], caller), virtual,
        {service.host: service for service in (*reached, *services)},
        HostIndex((host, found) for found in virtual for host in found.hosts),
    )  # fmt: skip
    issues += [document.origin.issue(problem, document.label)
               for document, problem in virtual_service.check_delegation(good["VirtualService"])]  # fmt: skip
    issues += [*_without_service(everything, good["DestinationRule"]), *_check_together(registry)]
    issues += check_destinations(registry.virtual_services, registry.service, registry.rule_of)
    return registry, issues


def _checked(documents: Iterable[IstioDocument], caller: Caller, issues: list[Issue]) -> _Documents:
    """The documents without errors by kind, the oldest first; those without a time of creation are the youngest."""
    good: _Documents = {kind: [] for kind in _SPECS}
    for found in documents:
        document = replace(found, spec=stated(found.spec, _SPECS[found.kind]))
        problems = list(_problems(document, caller))
        issues.extend(document.origin.issue(problem, document.label) for problem in problems)
        if not any(problem.severity == "error" for problem in problems):
            good[document.kind].append(document)
    for some in good.values():
        some.sort(key=lambda document: (not document.created, document.created))
    return good


def _problems(document: IstioDocument, caller: Caller) -> Iterator[Problem]:
    problems = list(check(document.spec, _SPECS[document.kind]))
    yield from problems
    if any(problem.severity == "error" for problem in problems):
        return  # the closer look relies on the types
    if more := _MORE.get(document.kind):
        yield from more(document)
    if document.kind == "VirtualService":
        yield from virtual_service.check_for(document, caller)
    is_delegate = document.kind == "VirtualService" and virtual_service.is_delegate(document)
    if not is_delegate and not is_visible(document.spec.get("exportTo"), document.namespace, caller.namespace):
        yield Problem(("exportTo",), f"not for callers in the namespace {caller.namespace!r}", "", "degraded")


def _reached(service: Service, virtual: Iterable[VirtualService], caller: Caller) -> Service | None:
    """The service with those of its first entry's ports that routes lead to; None if none does."""
    ports: set[int] = set()
    for found in virtual:
        for route in found.http:
            if _is_for(route, caller):
                ports |= {_port(destination) for _, destination in destinations_of(route)
                          if destination["host"] == service.host}  # fmt: skip
    kept = tuple(port for port in service.first_ports if 0 in ports or port.number in ports)
    return replace(service, ports=kept) if kept else None


def _is_for(route: dict[str, Any], caller: Caller) -> bool:
    """Whether a route counts for what is imported. As in istiod, one match that names another namespace rules the route
    out, unless another one names the caller's; a match that names none does not speak for it
    (`virtualServiceDestinationsFilteredBySourceNamespace`).
    """
    named = {match.get("sourceNamespace") for match in route.get("match") or ()} - {None, ""}
    return not named or caller.namespace in named


def _port(destination: dict[str, Any]) -> int:
    return (destination.get("port") or {}).get("number") or 0


def _check_together(registry: Registry) -> Iterator[Issue]:
    for service in registry.services:
        for port in service.ports:
            if not port.is_http:
                reason = f"port {port.number} ({port.protocol}) carries no HTTP: requests on it are not routed"
                yield service.origin.issue(
                    Problem(("ports",), reason, severity="degraded"), f"ServiceEntry {service.host}"
                )
    owners: dict[str, IstioDocument] = {}
    for virtual in registry.virtual_services:
        for host in virtual.hosts:
            first = owners.setdefault(host, virtual.document)
            if first is not virtual.document:
                yield _taken(virtual.document, host, str(first.origin))


def _without_service(services: Iterable[Service], rules: Iterable[IstioDocument]) -> Iterator[Issue]:
    hosts = {service.host for service in services}
    for document in rules:
        host = resolve(document.spec["host"], document.namespace)
        if not is_covered(host, hosts):
            problem = Problem(("host",), f"no ServiceEntry has the host {host}", severity="degraded")
            yield document.origin.issue(problem, document.label)


def _taken(document: IstioDocument, host: str, by: str) -> Issue:
    problem = Problem(("hosts",), f"the host {host} is taken by {by}", "put both into one object", "degraded")
    return document.origin.issue(problem, document.label)
