"""What meshlib decides for a request, told as `Observed`."""

import random
from dataclasses import dataclass

from differential.routing_envoy import CLUSTERS, REQUEST_NOISE, RESPONSE_NOISE
from differential.routing_observed import ROUTE_HEADER, Arrived, Ask, Observed, joined
from meshlib.model.request import RequestHead
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.routing.headers import Headers, compile_mutations
from meshlib.routing.rewrite import compile_host_rewrite, compile_path_rewrite, redirect_location
from meshlib.routing.router import RouteTable
from meshlib.routing.weighted import compile_weighted

ECHO_HEADERS = [(b"x-echo", b"1"), (b"x-resp-a", b"upstream")]


@dataclass(frozen=True, slots=True)
class _Matched:
    config: RouteConfiguration
    host: VirtualHost
    route: Route
    share: WeightedCluster | None


class OurRouting:
    """A compiled configuration to ask; `ResourceError` when it does not compile."""

    def __init__(self, config: RouteConfiguration, seed: int = 0) -> None:
        self._config = config
        self._table = RouteTable(config)
        self._rng = random.Random(seed)

    def ask(self, ask: Ask) -> Observed:
        head = head_of(ask)
        table = self._table.virtual_host(ask.authority)
        index = table.match(head, self._rng) if table else -1
        if table is None or index < 0:
            return Observed("", 404)
        route = table.config.routes[index]
        matched = _Matched(self._config, table.config, route, None)
        match route.action:
            case DirectResponseAction(status=status):
                return _answer(matched, head, status, "", [])
            case RedirectAction() as action:
                return _answer(matched, head, action.response_code, redirect_location(action, head, route.match), [])
            case RouteAction(cluster=WeightedClusters() as clusters):
                share = clusters.clusters[compile_weighted(clusters).pick(self._rng)]
                return _forward(_Matched(self._config, table.config, route, share), head, share.name)
            case RouteAction(cluster=ClusterHeader(name=name)):
                return _forward(matched, head, next(iter(head.get_all(name)), ""))
            case RouteAction(cluster=str() as name):
                return _forward(matched, head, name)
            case other:
                raise TypeError(f"not a client's action: {other!r}")


def head_of(ask: Ask) -> RequestHead:
    headers = [("Host", ask.authority), *ask.headers]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return RequestHead(ask.method, "http", ask.authority, ask.path, raw)


def _forward(matched: _Matched, head: RequestHead, cluster: str) -> Observed:
    action = matched.route.action
    assert isinstance(action, RouteAction)
    if cluster not in CLUSTERS:
        return _answer(matched, head, action.cluster_not_found_response_code, "", [])
    mutated = RequestHead(head.method, head.scheme, head.authority, head.path, _mutate_request(matched, head))
    before, authority = _authorities(matched, action, mutated, f"{cluster}.host")
    rewrite = compile_path_rewrite(matched.route)
    path = rewrite(mutated) if rewrite else mutated.path
    headers = list(mutated.headers)
    if path != head.path:
        headers = [pair for pair in headers if pair[0].lower() != b"x-envoy-original-path"]
        headers.append((b"x-envoy-original-path", head.path.encode("latin-1")))
    if authority != before:
        headers.append((b"x-envoy-original-host", before.encode("latin-1")))
        forwarded = ",".join(mutated.get_all("x-forwarded-host"))
        if action.append_x_forwarded_host and forwarded.split(",")[-1] != before:
            headers = [pair for pair in headers if pair[0].lower() != b"x-forwarded-host"]
            value = f"{forwarded},{before}" if forwarded else before
            headers.append((b"x-forwarded-host", value.encode("latin-1")))
    upstream = RequestHead(head.method, head.scheme, authority, path, headers)
    return _answer(
        matched,
        upstream,
        200,
        "",
        ECHO_HEADERS,
        Arrived(cluster, path, authority, joined(_text(headers), REQUEST_NOISE)),
    )


def _authorities(matched: _Matched, action: RouteAction, head: RequestHead, hostname: str) -> tuple[str, str]:
    """The authority before and after the route's own rewrite, which has the last word over the share's literal."""
    before = (matched.share.host_rewrite_literal if matched.share else "") or head.authority
    rewrite = compile_host_rewrite(action.host_rewrite)
    return before, (rewrite(head, hostname) if rewrite else None) or before


def _mutate_request(matched: _Matched, head: RequestHead) -> Headers:
    first = (matched.share.request_headers,) if matched.share else ()
    mutate = compile_mutations(
        *first,
        matched.route.request_headers,
        matched.host.request_headers,
        matched.config.request_headers,
        most_specific_wins=matched.config.most_specific_header_mutations_wins,
    )
    return mutate(list(head.headers), head) if mutate else list(head.headers)


def _answer(
    matched: _Matched, head: RequestHead, status: int, location: str, headers: Headers, arrived: Arrived | None = None
) -> Observed:
    first = (matched.share.response_headers,) if matched.share else ()
    mutate = compile_mutations(
        *first,
        matched.route.response_headers,
        matched.host.response_headers,
        matched.config.response_headers,
        most_specific_wins=matched.config.most_specific_header_mutations_wins,
        target="response",
    )
    pairs = _text(mutate(headers, head) if mutate else headers)
    route = dict(pairs).get(ROUTE_HEADER, "")
    return Observed(route, status, location, joined(pairs, RESPONSE_NOISE), arrived)


def _text(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
