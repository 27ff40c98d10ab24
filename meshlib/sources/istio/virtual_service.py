"""VirtualService: what is checked beyond its fields, whom it speaks for, and its routes with those it delegates to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.delegates import merged_routes
from meshlib.sources.istio.names import is_visible, resolve

MESH = "mesh"
_HOSTS_OF = ("route", "mirrors")
_Delegates = Mapping[tuple[str, str], IstioDocument]


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A checked document; `hosts`, and those of destinations, are resolved."""

    hosts: tuple[str, ...]
    http: tuple[dict[str, Any], ...]
    namespace: str
    document: IstioDocument


def is_delegate(document: IstioDocument) -> bool:
    """Whether it speaks for no host of its own."""
    return not document.spec.get("hosts")


def check_more(document: IstioDocument) -> Iterator[Problem]:
    """What the fields alone do not say."""
    gateways = document.spec.get("gateways") or [MESH]
    if others := [name for name in gateways if name != MESH]:
        reason = f"gateways {', '.join(others)} are not served; only what the mesh's own callers use is applied"
        yield Problem(("gateways",), reason, severity="degraded")
    for index, http in enumerate(document.spec.get("http") or ()):
        yield from _check_http(http, ("http", index), delegate=is_delegate(document))


def _check_http(http: dict[str, Any], path: FieldPath, *, delegate: bool) -> Iterator[Problem]:
    route = http.get("route") or []
    if http.get("delegate") is not None:
        if delegate:
            yield Problem((*path, "delegate"), "a delegate delegates no further")
        for key in ("route", "redirect"):
            if http.get(key):
                yield Problem((*path, key), f"delegate and {key} exclude each other", "keep one")
    elif not route and not any(http.get(key) is not None for key in ("redirect", "directResponse")):
        yield Problem(path, "HTTPRoute needs route, redirect or directResponse")
    if len(route) > 1 and not sum(entry.get("weight") or 0 for entry in route):
        yield Problem((*path, "route"), "the weights add up to 0", "give each destination a weight")
    redirect = http.get("redirect") or {}
    if redirect.get("redirectCode", 301) not in {0, 301, 302, 303, 307, 308}:
        yield Problem((*path, "redirect", "redirectCode"), "no redirect code", "301, 302, 303, 307 or 308")
    answers = [key for key in ("redirect", "directResponse") if http.get(key) is not None]
    if answers and http.get("fault") is not None:
        yield Problem((*path, "fault"), f"fault and {answers[0]} exclude each other", "keep one")
    if http.get("mirror") is not None and http.get("mirrors"):
        yield Problem((*path, "mirrors"), "mirror and mirrors exclude each other", "keep one")


def check_for(document: IstioDocument, caller: Caller) -> Iterator[Problem]:
    """What of it is not for this caller."""
    for index, http in enumerate(document.spec.get("http") or ()):
        for number, match in enumerate(http.get("match") or ()):
            if reason := misses(match, caller):
                place = ("http", index, "match", number)
                yield Problem(place, f"{reason}: this match is left out", severity="degraded")


def misses(match: dict[str, Any], caller: Caller) -> str:
    """Why a match is never true for the caller; empty when it can be. Gateways stand instead of the source's labels
    and namespace, as in istiod.
    """
    if match.get("gateways"):
        return "" if MESH in match["gateways"] else "it is for gateways only"
    if not caller.has(match.get("sourceLabels")):
        return "the caller does not have these labels (sourceLabels)"
    if match.get("sourceNamespace") not in {None, "", caller.namespace}:
        return f"the caller stands in the namespace {caller.namespace!r}"
    if any(name.startswith("@") for key in ("headers", "withoutHeaders") for name in match.get(key) or ()):
        return "claims of tokens are for gateways only"
    return ""


def check_delegation(documents: Iterable[IstioDocument]) -> Iterator[tuple[IstioDocument, Problem]]:
    """Routes whose delegate is not there or not for their namespace, and delegates that nobody hands requests to."""
    known = list(documents)
    delegates = _delegates(known)
    used = set()
    for document in known:
        for index, http in enumerate(document.spec.get("http") or ()):
            if http.get("delegate") is None:
                continue
            key = _key(http["delegate"], document)
            used.add(key)
            if _delegate_for(document, http, delegates) is None:
                what = f"no VirtualService {'/'.join(key)} without hosts is exported to {document.namespace!r}"
                yield document, Problem(("http", index, "delegate"), f"{what}: the route is left out", "", "degraded")
    for key, document in delegates.items():
        if key not in used:
            yield document, Problem(("hosts",), "it has no hosts, and no other VirtualService delegates to it", "",
                                    "degraded")  # fmt: skip


def virtual_services(documents: Iterable[IstioDocument], caller: Caller) -> tuple[VirtualService, ...]:
    """Those that callers of the mesh see, in the order of their precedence: private ones of the caller's namespace,
    those exported to it, those for everybody; of each kind the oldest first, which is how the documents come.
    """
    known = list(documents)
    delegates = _delegates(known)
    found = [_virtual_service(document, delegates) for document in known if _is_for_mesh(document, caller)]
    return tuple(sorted(found, key=lambda virtual: _rank(virtual.document, caller)))


def _is_for_mesh(document: IstioDocument, caller: Caller) -> bool:
    spec = document.spec
    gateways = spec.get("gateways") or [MESH]
    is_seen = is_visible(spec.get("exportTo"), document.namespace, caller.namespace)
    return not is_delegate(document) and MESH in gateways and is_seen


def _rank(document: IstioDocument, caller: Caller) -> int:
    if "*" in (document.spec.get("exportTo") or ["*"]):
        return 2
    return 0 if document.namespace == caller.namespace else 1


def _virtual_service(document: IstioDocument, delegates: _Delegates) -> VirtualService:
    hosts = tuple(resolve(host, document.namespace) for host in document.spec["hosts"])
    routes = []
    for route in document.spec.get("http") or ():
        if route.get("delegate") is None:
            routes.append(_resolved(route, document.namespace))
            continue
        root = _resolved({key: value for key, value in route.items() if key != "delegate"}, document.namespace)
        below = _delegate_for(document, route, delegates)
        if below is not None:
            known = tuple(_resolved(each, below.namespace) for each in below.spec.get("http") or ())
            routes += merged_routes(root, known)
    return VirtualService(hosts, tuple(routes), document.namespace, document)


def _delegates(documents: Iterable[IstioDocument]) -> dict[tuple[str, str], IstioDocument]:
    return {(document.namespace, document.name): document for document in documents if is_delegate(document)}


def _key(delegate: Mapping[str, str], document: IstioDocument) -> tuple[str, str]:
    return delegate.get("namespace") or document.namespace, delegate["name"]


def _delegate_for(document: IstioDocument, route: dict[str, Any], delegates: _Delegates) -> IstioDocument | None:
    found = delegates.get(_key(route["delegate"], document))
    if found is None or not is_visible(found.spec.get("exportTo"), found.namespace, document.namespace):
        return None
    return found


def _resolved(route: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The route with the full names of the hosts it leads to: a short name is of the namespace it is written in."""
    out = dict(route)
    if route.get("mirror"):
        out["mirror"] = _destination(route["mirror"], namespace)
    for key in _HOSTS_OF:
        if route.get(key):
            out[key] = [{**entry, "destination": _destination(entry["destination"], namespace)} for entry in route[key]]
    return out


def _destination(destination: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {**destination, "host": resolve(destination["host"], namespace)}
