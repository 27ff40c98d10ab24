"""A discovery chain as routes, as Consul itself makes them for Envoy (`agent/xds/routes.go`).

A router's routes in their order, the catch-all last; a splitter's shares in hundredths of a percent; a resolver's
cluster. The request timeout of a resolver counts only where the chain starts with it, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from meshlib.model.headers import NO_MUTATIONS, HeaderMutations, HeaderValueOption
from meshlib.model.matchers import (
    HeaderMatcher,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DEFAULT_ROUTE_TIMEOUT,
    HashPolicy,
    RetryPolicy,
    Route,
    RouteAction,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.sources.consul.chain import Chain
from meshlib.sources.consul.fields import Fields

_EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_HUNDREDTHS = 100  # Consul's weights have two decimals, Envoy's are whole numbers
_PATHS = (("PathExact", "path"), ("PathPrefix", "prefix"), ("PathRegex", "safe_regex"))
_VALUES = (("Exact", "exact"), ("Regex", "safe_regex"), ("Prefix", "prefix"), ("Suffix", "suffix"))
_DESTINATION = (
    "Service",
    "ServiceSubset",
    "Namespace",
    "Partition",
    "PrefixRewrite",
    "RequestTimeout",
    "IdleTimeout",
    "NumRetries",
    "RetryOnConnectFailure",
    "RetryOn",
    "RetryOnStatusCodes",
    "RequestHeaders",
    "ResponseHeaders",
)


@dataclass(frozen=True, slots=True)
class RouteDefaults:
    """What holds where the chain says nothing: `timeout` in seconds (None: off), `retries` of the virtual host."""

    timeout: float | None = DEFAULT_ROUTE_TIMEOUT
    retries: RetryPolicy | None = None


ROUTE_DEFAULTS = RouteDefaults()


def virtual_host(name: str, chain: Chain, clusters: Mapping[str, str], defaults: RouteDefaults) -> VirtualHost:
    """The routes of a chain, for every authority that leads to it. `clusters` are the names by target."""
    return VirtualHost(name, ("*",), _Translation(chain, clusters, defaults).routes(), retry_policy=defaults.retries)


class _Translation:
    def __init__(self, chain: Chain, clusters: Mapping[str, str], defaults: RouteDefaults) -> None:
        self._chain = chain
        self._clusters = clusters
        self._timeout = defaults.timeout

    def routes(self) -> tuple[Route, ...]:
        start = self._chain.nodes.get(self._chain.start)
        if start is None:
            what = f"Consul discovery chain {self._chain.service}"
            raise ResourceError("StartNode", f"node {self._chain.start!r} is not in the chain", what)
        match start.text("Type"):
            case "router":
                return tuple(self._route(index, route) for index, route in enumerate(start.objects("Routes")))
            case "splitter":
                return (Route(_EVERYTHING, self._split(start, self._timeout), name="split"),)
            case "resolver":
                resolver = self._chain.resolver(self._chain.start, start)
                timeout = _timeout(resolver.request_timeout, self._timeout)
                return (Route(_EVERYTHING, self._resolve(self._chain.start, start, timeout), name="default"),)
        raise ResourceError(start.at("Type"), f"{start.text('Type')!r} is unknown", start.resource)

    def _route(self, index: int, route: Fields) -> Route:
        route.only("Definition", "NextNode")
        definition = route.object("Definition")
        said = definition.object("Destination") if definition else None
        match = _match(definition.object("Match") if definition else None)
        action = self._next(route, _timeout(said.duration("RequestTimeout") if said else None, self._timeout))
        if said is None:
            return Route(match, action, name=f"route {index}")
        said.only(*_DESTINATION)
        prefix, regex = _rewrite(said, match)
        action = RouteAction(
            action.cluster,
            timeout=action.timeout,
            idle_timeout=_idle(said.duration("IdleTimeout")),
            retry_policy=_retries(said),
            hash_policies=action.hash_policies,
            prefix_rewrite=prefix,
            regex_rewrite=regex,
        )
        request, response = _mutations(said, "RequestHeaders"), _mutations(said, "ResponseHeaders")
        return Route(match, action, name=f"route {index}", request_headers=request, response_headers=response)

    def _next(self, route: Fields, timeout: float | None) -> RouteAction:
        name = route.text("NextNode")
        node = self._chain.node(name, route)
        if node.text("Type") == "splitter":
            return self._split(node, timeout)
        return self._resolve(name, route, timeout)

    def _resolve(self, name: str, from_where: Fields, timeout: float | None) -> RouteAction:
        resolver = self._chain.resolver(name, from_where)
        hashes = _hash_policies(self._chain.node(name, from_where))
        return RouteAction(self._clusters[resolver.target], timeout=timeout, hash_policies=hashes)

    def _split(self, node: Fields, timeout: float | None) -> RouteAction:
        shares = tuple(self._share(split) for split in node.objects("Splits"))
        if not sum(share.weight for share in shares):
            raise ResourceError(node.at("Splits"), "the weights add up to nothing", node.resource)
        return RouteAction(WeightedClusters(shares), timeout=timeout, hash_policies=_hash_policies(node))

    def _share(self, split: Fields) -> WeightedCluster:
        split.only("Definition", "Weight", "NextNode")
        resolver = self._chain.resolver(split.text("NextNode"), split)
        weight = round(split.number("Weight") * _HUNDREDTHS)
        if weight < 0:
            raise ResourceError(split.at("Weight"), "is negative", split.resource)
        said = split.object("Definition")
        if said is None:
            return WeightedCluster(self._clusters[resolver.target], weight)
        said.only("Weight", "Service", "ServiceSubset", "Namespace", "Partition", "RequestHeaders", "ResponseHeaders")
        return WeightedCluster(
            self._clusters[resolver.target],
            weight,
            request_headers=_mutations(said, "RequestHeaders"),
            response_headers=_mutations(said, "ResponseHeaders"),
        )


def _timeout(said: float | None, default: float | None) -> float | None:
    """Nothing said: the default. Negative: off, in Consul's words."""
    if not said:
        return default
    return said if said > 0 else None


def _idle(said: float | None) -> float | None:
    return None if not said else max(0.0, said)  # 0 switches it off for the route


def _match(said: Fields | None) -> RouteMatch:
    http = said.object("HTTP") if said else None
    if said:
        said.only("HTTP")
    if http is None:
        return _EVERYTHING
    http.only("PathExact", "PathPrefix", "PathRegex", "CaseInsensitive", "Header", "QueryParam", "Methods")
    sensitive = not http.flag("CaseInsensitive")
    path = next((PathMatcher(kind, http.text(key), sensitive) for key, kind in _PATHS if http.text(key)), None)  # type: ignore[arg-type]
    headers = tuple(_header(header) for header in http.objects("Header"))
    if methods := http.texts("Methods"):
        wanted = "|".join(re.escape(method) for method in methods)
        headers = (*headers, HeaderMatcher(":method", StringMatcher("safe_regex", wanted)))
    queries = tuple(_query_parameter(query) for query in http.objects("QueryParam"))
    return RouteMatch(path or PathMatcher("prefix", "/", sensitive), headers, queries)


def _header(said: Fields) -> HeaderMatcher:
    said.only("Name", "Present", "Exact", "Prefix", "Suffix", "Regex", "Invert")
    return HeaderMatcher(said.text("Name").lower(), _value(said), invert=said.flag("Invert"))


def _query_parameter(said: Fields) -> QueryParameterMatcher:
    said.only("Name", "Present", "Exact", "Regex")
    return QueryParameterMatcher(said.text("Name"), _value(said))


def _value(said: Fields) -> StringMatcher | Present:
    found = next((StringMatcher(kind, said.text(key)) for key, kind in _VALUES if said.text(key)), None)  # type: ignore[arg-type]
    if found is None and not said.flag("Present"):
        raise ResourceError(said.path, "one of Present, Exact, Prefix, Suffix and Regex is needed", said.resource)
    return found or Present()


def _rewrite(said: Fields, match: RouteMatch) -> tuple[str, RegexRewrite | None]:
    """A prefix replaced by "/" takes the slash that follows with it, as Consul does it since 1.22."""
    rewrite = said.text("PrefixRewrite")
    if rewrite != "/":
        return rewrite, None
    if match.path.kind != "prefix":
        return rewrite, None
    flags = "" if match.path.case_sensitive else "(?i)"
    return "", RegexRewrite(f"{flags}^{re.escape(match.path.value)}(/?)(.*)", r"/\2")


def _retries(said: Fields) -> RetryPolicy | None:
    number, codes = said.integer("NumRetries"), said.integers("RetryOnStatusCodes")
    conditions = list(said.texts("RetryOn"))
    if said.flag("RetryOnConnectFailure") and "connect-failure" not in conditions:
        conditions.append("connect-failure")
    if codes:
        conditions.append("retriable-status-codes")
    if not conditions and not number:
        return None
    return RetryPolicy(tuple(conditions), num_retries=number or 1, retriable_status_codes=codes)


def _hash_policies(node: Fields) -> tuple[HashPolicy, ...]:
    balancer = node.object("LoadBalancer")
    if balancer is None or balancer.text("Policy") not in ("ring_hash", "maglev"):
        return ()
    return tuple(_hash_policy(policy) for policy in balancer.objects("HashPolicies"))


def _hash_policy(said: Fields) -> HashPolicy:
    said.only("Field", "FieldValue", "CookieConfig", "SourceIP", "Terminal")
    terminal = said.flag("Terminal")
    if said.flag("SourceIP"):
        return HashPolicy("source_ip", terminal=terminal)
    name = said.text("FieldValue")
    match said.text("Field"):
        case "header":
            return HashPolicy("header", name.lower(), terminal)
        case "query_parameter":
            return HashPolicy("query_parameter", name, terminal)
        case "cookie":
            cookie = said.object("CookieConfig")
            ttl = cookie.duration("TTL") if cookie else None
            ttl = 0.0 if cookie and cookie.flag("Session") else ttl or None
            return HashPolicy("cookie", name, terminal, ttl=ttl, path=cookie.text("Path") if cookie else "")
    raise ResourceError(said.at("Field"), f"{said.text('Field')!r} is unknown", said.resource)


def _mutations(said: Fields, key: str) -> HeaderMutations:
    headers = said.object(key)
    if headers is None:
        return NO_MUTATIONS
    headers.only("Add", "Set", "Remove")
    added = [HeaderValueOption(name.lower(), value) for name, value in headers.mapping("Add").items()]
    put = [
        HeaderValueOption(name.lower(), value, "OVERWRITE_IF_EXISTS_OR_ADD")
        for name, value in headers.mapping("Set").items()
    ]
    return HeaderMutations((*added, *put), tuple(name.lower() for name in headers.texts("Remove")))
