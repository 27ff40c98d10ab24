"""The services that a caller sees, each host once (istiod: `push_context.go`, `sidecar.go`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.names import is_visible
from meshlib.sources.istio.service_entry import Port, Service, services_of
from meshlib.sources.istio.workload_entry import Workload


@dataclass(frozen=True, slots=True)
class Found:
    """A service with the object that says it and whether that object is for everybody."""

    service: Service
    document: IstioDocument
    is_public: bool


def own_hidden_services(
    documents: Iterable[IstioDocument], workloads: Iterable[Workload], caller: Caller
) -> Iterator[Service]:
    """Services of the caller's namespace that are not exported to it: routes may lead to them all the same. They have
    the ports of their first entry, and the endpoints of all.
    """
    chosen = list(workloads)
    hosts: dict[str, list[Service]] = {}
    for document in documents:
        is_own = document.namespace == caller.namespace
        if is_own and not is_visible(document.spec.get("exportTo"), document.namespace, caller.namespace):
            for service in services_of(document, chosen):
                hosts.setdefault(service.host, []).append(service)
    for first, *more in hosts.values():
        yield replace(first, endpoints=(*first.endpoints, *(each for other in more for each in other.endpoints)))


def visible_services(
    documents: Iterable[IstioDocument], workloads: Iterable[Workload], caller: Caller
) -> tuple[tuple[Service, ...], list[tuple[IstioDocument, str, IstioDocument]]]:
    """The services, those for this caller in particular first, and `(document, host, by)` for each host of a document
    that the service of another namespace, `by`, stands for.

    Of one host in several namespaces the caller's own counts, else the first. Several entries of one namespace for a
    host are one service: with the ports of the first and those the others add, and the endpoints of all.
    """
    chosen = list(workloads)
    found = [each for document in documents for each in _found(document, chosen, caller)]
    found.sort(key=lambda each: each.is_public)
    hosts: dict[str, list[Found]] = {}
    for each in found:
        hosts.setdefault(each.service.host, []).append(each)
    services, hidden = [], []
    for host, candidates in hosts.items():
        own = [each for each in candidates if each.service.namespace == caller.namespace]
        first = (own or candidates)[0]
        same = [each for each in candidates if each.service.namespace == first.service.namespace]
        hidden += [(each.document, host, first.document) for each in candidates if each not in same]
        services.append(_merged([each.service for each in same]))
    return tuple(services), hidden


def _found(document: IstioDocument, workloads: list[Workload], caller: Caller) -> Iterator[Found]:
    export_to = document.spec.get("exportTo")
    if not is_visible(export_to, document.namespace, caller.namespace):
        return
    for service in services_of(document, workloads):
        yield Found(service, document, "*" in (export_to or ["*"]))


def _merged(services: list[Service]) -> Service:
    first = services[0]
    if len(services) == 1:
        return first
    ports: dict[int, Port] = {}
    for service in services:
        if service.resolution == first.resolution:
            for port in service.ports:
                ports.setdefault(port.number, port)
    endpoints = tuple(endpoint for service in services for endpoint in service.endpoints)
    if first.resolution == "DNS_ROUND_ROBIN":
        endpoints = endpoints[:1]
    return replace(first, ports=tuple(ports.values()), endpoints=endpoints)
