"""All checked objects of the files together: what the generator reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshlib.model.report import Issue
from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio import destination_rule, service_entry, virtual_service
from meshlib.sources.istio.destination_rule import Rule
from meshlib.sources.istio.fields import check
from meshlib.sources.istio.names import PROXY_NAMESPACE, is_visible, matches, resolve
from meshlib.sources.istio.service_entry import Service
from meshlib.sources.istio.virtual_service import VirtualService

_SPECS = {
    "ServiceEntry": service_entry.SPEC,
    "VirtualService": virtual_service.SPEC,
    "DestinationRule": destination_rule.SPEC,
}


@dataclass(frozen=True, slots=True)
class Registry:
    """Services by their order in the files, each host once; rules and virtual services in that order too."""

    services: tuple[Service, ...]
    rules: tuple[Rule, ...]
    virtual_services: tuple[VirtualService, ...]


def build_registry(documents: Iterable[IstioDocument]) -> tuple[Registry, list[Issue]]:
    """The registry of every document without errors, and the issues of all of them."""
    issues: list[Issue] = []
    good: dict[str, list[IstioDocument]] = {kind: [] for kind in _SPECS}
    for document in documents:
        problems = list(_problems(document))
        issues.extend(document.origin.issue(problem, document.label) for problem in problems)
        if any(problem.severity == "error" for problem in problems):
            continue
        if is_visible(document.spec.get("exportTo") or [], document.namespace):
            good[document.kind].append(document)
        else:
            problem = Problem(("exportTo",), f"not for callers in the namespace {PROXY_NAMESPACE!r}", "", "degraded")
            issues.append(document.origin.issue(problem, document.label))
    services: dict[str, Service] = {}
    for document in good["ServiceEntry"]:
        for service in service_entry.services_of(document):
            first = services.setdefault(service.host, service)
            if first is not service:
                issues.append(_taken(document, service.host, str(first.origin)))
    rules = destination_rule.rules_of(good["DestinationRule"])
    found = (virtual_service.virtual_service_of(document) for document in good["VirtualService"])
    registry = Registry(tuple(services.values()), rules, tuple(virtual for virtual in found if virtual))
    return registry, [*issues, *_without_service(registry, good["DestinationRule"]), *_check_together(registry)]


def _problems(document: IstioDocument) -> Iterator[Problem]:
    problems = list(check(document.spec, _SPECS[document.kind]))
    yield from problems
    if any(problem.severity == "error" for problem in problems):
        return  # the closer look relies on the types
    if document.kind == "ServiceEntry":
        yield from service_entry.check_more(document)
    elif document.kind == "VirtualService":
        yield from virtual_service.check_more(document)


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


def _without_service(registry: Registry, rules: Iterable[IstioDocument]) -> Iterator[Issue]:
    for document in rules:
        host = resolve(document.spec["host"], document.namespace)
        if not any(matches(host, service.host) for service in registry.services):
            problem = Problem(("host",), f"no ServiceEntry has the host {host}", severity="degraded")
            yield document.origin.issue(problem, document.label)


def _taken(document: IstioDocument, host: str, by: str) -> Issue:
    problem = Problem(("hosts",), f"the host {host} is taken by {by}", "put both into one object", "degraded")
    return document.origin.issue(problem, document.label)
