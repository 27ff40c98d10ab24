"""A discovery chain as routes, as Consul itself makes them for Envoy (`agent/xds/routes.go`).

A router's routes in their order, the catch-all last; a splitter's shares in hundredths of a percent; a resolver's
cluster. The request timeout of a resolver counts only where the chain starts with it, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from meshlib.model.matchers import RegexRewrite, RouteMatch
from meshlib.model.report import ResourceError
from meshlib.model.route import (
    DEFAULT_ROUTE_TIMEOUT,
    RetryPolicy,
    Route,
    RouteAction,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.sources.consul.chain import Chain
from meshlib.sources.consul.chain_match import EVERYTHING, regex, route_match
from meshlib.sources.consul.chain_policies import hash_policies, mutations, retry_policy
from meshlib.sources.consul.fields import Fields

_HUNDREDTHS = 100  # Consul's weights have two decimals, Envoy's are whole numbers
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
                return (Route(EVERYTHING, self._split(start, self._timeout), name="split"),)
            case "resolver":
                resolver = self._chain.resolver(self._chain.start, start)
                timeout = _timeout(resolver.request_timeout, self._timeout)
                return (Route(EVERYTHING, self._resolve(self._chain.start, start, timeout), name="default"),)
        raise ResourceError(start.at("Type"), f"{start.text('Type')!r} is unknown", start.resource)

    def _route(self, index: int, route: Fields) -> Route:
        route.only("Definition", "NextNode")
        definition = route.object("Definition")
        said = definition.object("Destination") if definition else None
        match = route_match(definition.object("Match") if definition else None)
        action = self._next(route, _timeout(said.duration("RequestTimeout") if said else None, self._timeout))
        if said is None:
            return Route(match, action, name=f"route {index}")
        said.only(*_DESTINATION)
        prefix, regex = _rewrite(said, match)
        action = replace(
            action,
            idle_timeout=_idle(said.duration("IdleTimeout")),
            retry_policy=retry_policy(said),
            prefix_rewrite=prefix,
            regex_rewrite=regex,
        )
        request, response = mutations(said, "RequestHeaders"), mutations(said, "ResponseHeaders")
        return Route(match, action, name=f"route {index}", request_headers=request, response_headers=response)

    def _next(self, route: Fields, timeout: float | None) -> RouteAction:
        name = route.text("NextNode")
        node = self._chain.node(name, route)
        if node.text("Type") == "splitter":
            return self._split(node, timeout)
        return self._resolve(name, route, timeout)

    def _resolve(self, name: str, from_where: Fields, timeout: float | None) -> RouteAction:
        resolver = self._chain.resolver(name, from_where)
        hashes = hash_policies(self._chain.node(name, from_where))
        return RouteAction(self._clusters[resolver.target], timeout=timeout, hash_policies=hashes)

    def _split(self, node: Fields, timeout: float | None) -> RouteAction:
        shares = tuple(self._share(split) for split in node.objects("Splits"))
        if not sum(share.weight for share in shares):
            raise ResourceError(node.at("Splits"), "the weights add up to nothing", node.resource)
        return RouteAction(WeightedClusters(shares), timeout=timeout, hash_policies=hash_policies(node))

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
            request_headers=mutations(said, "RequestHeaders"),
            response_headers=mutations(said, "ResponseHeaders"),
        )


def _timeout(said: float | None, default: float | None) -> float | None:
    """Nothing said: the default. Negative: off, in Consul's words."""
    if not said:
        return default
    return said if said > 0 else None


def _idle(said: float | None) -> float | None:
    return None if not said else max(0.0, said)  # 0 switches it off for the route


def _rewrite(said: Fields, match: RouteMatch) -> tuple[str, RegexRewrite | None]:
    """A prefix replaced by "/" takes the slash that follows with it, as Consul does it since 1.22."""
    rewrite = said.text("PrefixRewrite")
    if rewrite != "/" or match.path.kind != "prefix":
        return rewrite, None
    flags = "" if match.path.case_sensitive else "(?i)"
    pattern = regex(f"{flags}^{re.escape(match.path.value)}(/?)(.*)", said, "PrefixRewrite")
    return "", RegexRewrite(pattern, r"/\2")
