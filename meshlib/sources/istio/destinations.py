"""Where the routes of a VirtualService lead: whether there is such a host, with such a subset and port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from meshlib.model.report import Issue
from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.destination_rule import Rule
from meshlib.sources.istio.service_entry import Service
from meshlib.sources.istio.virtual_service import VirtualService

ServiceOf = Callable[[str], Service | None]
RuleOf = Callable[[Service], Rule | None]


def destinations_of(route: dict[str, Any]) -> Iterator[tuple[FieldPath, dict[str, Any]]]:
    """Every destination of a route with its place in it."""
    for key in ("route", "mirrors"):
        for index, entry in enumerate(route.get(key) or ()):
            yield (key, index, "destination"), entry["destination"]
    if route.get("mirror"):
        yield ("mirror",), route["mirror"]


def check_destinations(virtual: Iterable[VirtualService], service_of: ServiceOf, rule_of: RuleOf) -> Iterator[Issue]:
    """What leads nowhere, once for each VirtualService and destination; such calls fail with NC, as in Istio."""
    for found in virtual:
        told = set()
        for route in found.http:
            for _, destination in destinations_of(route):
                reason = _reason(destination, service_of, rule_of)
                if reason and reason not in told:
                    told.add(reason)
                    problem = Problem(("http",), reason, "until there is, such calls fail with NC", "degraded")
                    yield found.document.origin.issue(problem, found.document.label)


def _reason(destination: dict[str, Any], service_of: ServiceOf, rule_of: RuleOf) -> str:
    host, subset = destination["host"], destination.get("subset", "")
    service = service_of(host)
    if service is None:
        return f"no ServiceEntry has the host {host}"
    port = (destination.get("port") or {}).get("number")
    if port is not None and service.port(port) is None:
        return f"the host {host} has no port {port}"
    rule = rule_of(service)
    if subset and (rule is None or subset not in {known.name for known in rule.subsets}):
        return f"no DestinationRule of the host {host} has the subset {subset}"
    return ""
