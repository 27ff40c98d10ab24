"""VirtualService: its fields, and whom it speaks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.fields import DURATION, FLAG, PORT, TEXT, Fields, ListOf, MapOf, OneOf, Scalar
from meshlib.sources.istio.names import PROXY_NAMESPACE, resolve

MESH = "mesh"
_NOT_YET = "not applied in this version"
_STRING_MATCH = Fields(
    "StringMatch", {"exact": TEXT, "prefix": TEXT, "regex": TEXT}, exclusive=("exact", "prefix", "regex")
)
_MATCH = Fields(
    "HTTPMatchRequest",
    {
        "name": TEXT,
        "uri": _STRING_MATCH,
        "scheme": _STRING_MATCH,
        "method": _STRING_MATCH,
        "authority": _STRING_MATCH,
        "headers": MapOf(_STRING_MATCH),
        "withoutHeaders": MapOf(_STRING_MATCH),
        "queryParams": MapOf(_STRING_MATCH),
        "ignoreUriCase": FLAG,
        "port": PORT,
        "gateways": ListOf(TEXT),
        "sourceLabels": MapOf(TEXT),
        "sourceNamespace": TEXT,
    },
    ignored=("statPrefix",),
)
_OPERATIONS = Fields("HeaderOperations", {"set": MapOf(TEXT), "add": MapOf(TEXT), "remove": ListOf(TEXT)})
_HEADERS = Fields("Headers", {"request": _OPERATIONS, "response": _OPERATIONS})
_DESTINATION = Fields(
    "Destination",
    {"host": TEXT, "subset": TEXT, "port": Fields("PortSelector", {"number": PORT}, required=("number",))},
    required=("host",),
)
_ROUTE = Fields(
    "HTTPRouteDestination",
    {"destination": _DESTINATION, "weight": Scalar("whole", 0, 2**31 - 1), "headers": _HEADERS},
    required=("destination",),
)
_REDIRECT = Fields(
    "HTTPRedirect",
    {
        "uri": TEXT,
        "prefixRewrite": TEXT,
        "authority": TEXT,
        "port": PORT,
        "derivePort": OneOf(("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")),
        "scheme": TEXT,
        "redirectCode": Scalar("whole", 0, 599),
    },
    exclusive=("port", "derivePort"),
)
_DIRECT_RESPONSE = Fields(
    "HTTPDirectResponse",
    {
        "status": Scalar("whole", 200, 599),
        "body": Fields("HTTPBody", {"string": TEXT, "bytes": TEXT}, exclusive=("string", "bytes")),
    },
    required=("status",),
)
_REWRITE = Fields(
    "HTTPRewrite",
    {
        "uri": TEXT,
        "authority": TEXT,
        "uriRegexRewrite": Fields("RegexRewrite", {"match": TEXT, "rewrite": TEXT}, required=("match",)),
    },
    exclusive=("uri", "uriRegexRewrite"),
)
_RETRIES = Fields(
    "HTTPRetry",
    {
        "attempts": Scalar("whole", 0, 2**31 - 1),
        "perTryTimeout": DURATION,
        "retryOn": TEXT,
        "retryIgnorePreviousHosts": FLAG,
        "backoff": DURATION,
    },
    not_applied={"retryRemoteLocalities": _NOT_YET},
)
_HTTP = Fields(
    "HTTPRoute",
    {
        "name": TEXT,
        "match": ListOf(_MATCH),
        "route": ListOf(_ROUTE),
        "redirect": _REDIRECT,
        "directResponse": _DIRECT_RESPONSE,
        "rewrite": _REWRITE,
        "timeout": DURATION,
        "retries": _RETRIES,
        "headers": _HEADERS,
    },
    exclusive=("route", "redirect", "directResponse"),
    not_applied={
        "delegate": "delegation is not applied in this version: the route is left out",
        "fault": "fault injection is not applied in this version",
        "mirror": "mirroring is not applied in this version",
        "mirrors": "mirroring is not applied in this version",
        "mirrorPercentage": "mirroring is not applied in this version",
        "corsPolicy": "CORS policies are not applied in this version",
    },
)
SPEC = Fields(
    "VirtualService",
    {"hosts": ListOf(TEXT), "gateways": ListOf(TEXT), "exportTo": ListOf(TEXT), "http": ListOf(_HTTP)},
    required=("hosts",),
    not_applied={"tls": "only HTTP is routed", "tcp": "only HTTP is routed"},
)


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A checked document; `hosts` are resolved."""

    hosts: tuple[str, ...]
    http: tuple[dict[str, Any], ...]
    namespace: str
    document: IstioDocument


def check_more(document: IstioDocument) -> Iterator[Problem]:
    """What the fields alone do not say."""
    gateways = document.spec.get("gateways") or [MESH]
    if others := [name for name in gateways if name != MESH]:
        reason = f"gateways {', '.join(others)} are not served; only what the mesh's own callers use is applied"
        yield Problem(("gateways",), reason, severity="degraded")
    for index, http in enumerate(document.spec.get("http") or ()):
        yield from _check_http(http, ("http", index))


def _check_http(http: dict[str, Any], path: FieldPath) -> Iterator[Problem]:
    route = http.get("route") or []
    if not route and not any(http.get(key) is not None for key in ("redirect", "directResponse", "delegate")):
        yield Problem(path, "HTTPRoute needs route, redirect or directResponse")
    if len(route) > 1 and not sum(entry.get("weight") or 0 for entry in route):
        yield Problem((*path, "route"), "the weights add up to 0", "give each destination a weight")
    for index, match in enumerate(http.get("match") or ()):
        if reason := cannot_match(match):
            yield Problem((*path, "match", index), f"{reason}: this match is left out", severity="degraded")
    redirect = http.get("redirect") or {}
    if redirect.get("redirectCode", 301) not in {0, 301, 302, 303, 307, 308}:
        yield Problem((*path, "redirect", "redirectCode"), "no redirect code", "301, 302, 303, 307 or 308")


def cannot_match(match: dict[str, Any]) -> str:
    """Why a match is never true for callers that take their configuration from files; empty when it can be."""
    if match.get("gateways"):
        return "" if MESH in match["gateways"] else "it is for gateways only"
    if match.get("sourceLabels"):
        return "callers have no labels here (sourceLabels)"
    if match.get("sourceNamespace", PROXY_NAMESPACE) not in {"", PROXY_NAMESPACE}:
        return f"callers stand in the namespace {PROXY_NAMESPACE!r}"
    if any(name.startswith("@") for key in ("headers", "withoutHeaders") for name in match.get(key) or ()):
        return "claims of tokens are not matched in this version"
    return ""


def virtual_service_of(document: IstioDocument) -> VirtualService | None:
    """The document as a virtual service; None when it is for gateways only."""
    if MESH not in (document.spec.get("gateways") or [MESH]):
        return None
    hosts = tuple(resolve(host, document.namespace) for host in document.spec["hosts"])
    return VirtualService(hosts, tuple(document.spec.get("http") or ()), document.namespace, document)
