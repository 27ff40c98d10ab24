"""RoutePlan: one route compiled: where it sends a request and what it does to it on the way.

What the route does not use is None here and costs nothing per call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshlib.engine.actions import Actions, compile_actions
from meshlib.engine.circuits import compile_circuit
from meshlib.engine.extras import Extras, compile_extras, header_tests
from meshlib.engine.fault import for_clusters
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.filters import Filter, compile_filters
from meshlib.engine.levels import compile_cors, compile_header_filters
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.request import RequestHead
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HostRewrite,
    MatchedCluster,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.policy.idle import IdleLimit, compile_idle
from meshlib.policy.retry import RetryRules, compile_retry
from meshlib.routing.cors import CorsRules
from meshlib.routing.direct import compile_body, content_type_of
from meshlib.routing.formatters import Format
from meshlib.routing.hashing import RequestHasher, compile_hash
from meshlib.routing.header_filter import Prepare
from meshlib.routing.headers import Mutate, compile_mutations, in_turn
from meshlib.routing.located import at
from meshlib.routing.matcher_tree import compile_matcher
from meshlib.routing.rewrite import (
    Location,
    RewriteHost,
    RewritePath,
    compile_host_rewrite,
    compile_path_rewrite,
    compile_redirect,
)
from meshlib.routing.weighted import Key, WeightedChoice, compile_key, compile_weighted


@dataclass(frozen=True, slots=True)
class RouteScope:
    """What surrounds a route: its manager's filters and the levels above it. `listener` names the filter chain."""

    listener: str
    filters: tuple[HttpFilter, ...]
    config: RouteConfiguration
    stream_idle_timeout: float | None = None
    max_stream_duration: float | None = None
    runtime: Struct = EMPTY_STRUCT

    @property
    def tells_upstream(self) -> bool:
        """Whether upstreams are told what the mesh does, in `x-envoy-*` headers."""
        return not self.router.suppress_envoy_headers

    @property
    def router(self) -> RouterFilter:
        """The router filter's own settings."""
        routers = (entry.config for entry in self.filters if isinstance(entry.config, RouterFilter))
        return next(routers, RouterFilter())

    @classmethod
    def of(cls, listener: str, manager: HttpConnectionManager | None, config: RouteConfiguration) -> RouteScope:
        """The scope of a listener's routes, or of a route configuration that stands alone (no filters)."""
        if manager is None:
            return cls(listener, (), config)
        return cls(listener, manager.http_filters, config, manager.stream_idle_timeout, manager.max_stream_duration)


class Share:
    """One cluster a route may send to, with what is particular to it."""

    __slots__ = (
        "actions",
        "authority",
        "cluster",
        "cluster_by",
        "criteria",
        "filter_response",
        "filters",
        "prepare",
        "request_headers",
        "response_headers",
        "rewrite_host",
        "route_response",
        "tells_upstream",
    )

    def __init__(
        self,
        cluster: str,
        criteria: Struct,
        filters: tuple[Filter, ...],
        request_headers: Mutate | None,
        response_headers: Mutate | None,
        rewrite_host: RewriteHost | None,
        *,
        authority: str = "",
        tells_upstream: bool = True,
        cluster_by: Callable[[RequestHead], str] | None = None,
        prepare: Prepare | None = None,
        filter_response: Mutate | None = None,
    ) -> None:
        self.actions: Actions | None = None
        self.authority = authority
        self.tells_upstream = tells_upstream  # not where the router filter has `suppress_envoy_headers`
        self.cluster = cluster
        self.cluster_by = cluster_by  # where the request names the cluster; `cluster` is then empty
        self.criteria = criteria
        self.filters = filters
        self.request_headers = request_headers
        self.prepare = prepare
        self.filter_response = filter_response
        self.route_response = response_headers  # without the filters: an answer of a filter has its own between them
        self.response_headers = in_turn(response_headers, filter_response)
        self.rewrite_host = rewrite_host


class RoutePlan:
    """A compiled route. `shares` has one entry per cluster; `choose` draws among them (None: there is only one), by
    chance or by the number that `key` finds in the request.
    """

    __slots__ = (
        "action",
        "choose",
        "config",
        "content_type",
        "cors",
        "extras",
        "hasher",
        "idle",
        "include_attempt_count",
        "index",
        "key",
        "label",
        "location",
        "retry",
        "rewrite_path",
        "shares",
        "stream_timeout",
        "timeout",
        "virtual_host",
        "write_body",
    )

    def __init__(self, index: int, route: Route, virtual_host: VirtualHost, scope: RouteScope, states: FilterStates):
        self.index = index
        self.config = route
        self.action = route.action
        self.virtual_host = virtual_host
        self.label = f"{virtual_host.name}/{route.name or index}"
        self.include_attempt_count = virtual_host.include_request_attempt_count
        self.choose: WeightedChoice | None = None
        self.key: Key | None = None
        self.retry: RetryRules | None = None
        self.hasher: RequestHasher | None = None
        self.rewrite_path: RewritePath | None = None
        self.write_body: Format | None = None
        self.content_type = b"text/plain"
        per_filter = [config.typed_per_filter_config for config in (scope.config, virtual_host, route)]
        self.cors: CorsRules | None = compile_cors(scope.filters, per_filter) if any(per_filter) else None
        self.location: Location | None = None
        self.timeout: float | None = None
        self.stream_timeout: float | None = None
        self.idle: IdleLimit | None = None
        self.extras: Extras | None = None
        self.shares: tuple[Share, ...] = (self._share(None, scope, states),)
        if isinstance(route.action, RouteAction):
            self._compile_action(route.action, scope, states)
        elif isinstance(route.action, RedirectAction):
            self.location = compile_redirect(route.action, route.match)
        elif isinstance(route.action, DirectResponseAction):
            self.write_body = compile_body(route.action)
            self.content_type = content_type_of(route.action)

    def _compile_action(self, action: RouteAction, scope: RouteScope, states: FilterStates) -> None:
        if action.max_stream_duration is not None:  # Envoy then looks neither at the route's timeout nor at the manager
            self.timeout = self.stream_timeout = action.max_stream_duration or None
        else:
            self.timeout = _shorter(action.timeout, scope.max_stream_duration)
            self.stream_timeout = scope.max_stream_duration or None
        policy = action.retry_policy or self.virtual_host.retry_policy
        self.retry = compile_retry(policy, header_tests(policy.retriable_headers) if policy else ())
        per_try_idle = self.retry.per_try_idle_timeout if self.retry else None
        self.idle = compile_idle(action.idle_timeout, scope.stream_idle_timeout, per_try_idle)
        circuit = None
        if scope.config.virtual_hosts:  # else it stands outside of them: the route of a copy has no breaker
            circuit = compile_circuit(self.label, scope.config.name, self.config.circuit_breaker, states)
        self.extras = compile_extras(action, self.virtual_host, self.retry, self._body_limit(), scope.router, circuit)
        self.hasher = compile_hash(action.hash_policies)
        self.rewrite_path = compile_path_rewrite(self.config)
        if isinstance(action.cluster, WeightedClusters):
            self.choose = compile_weighted(action.cluster)
            self.key = compile_key(action.cluster, action.hash_policies)
            self.shares = tuple(self._share(share, scope, states) for share in action.cluster.clusters)
        for share in self.shares:
            share.actions = compile_actions(
                self.config,
                self.virtual_host,
                scope,
                share.filters,
                lambda route, host, around: RoutePlan(self.index, route, host, around, states),
            )

    def _body_limit(self) -> int | None:
        route, host = self.config.request_body_buffer_limit, self.virtual_host.request_body_buffer_limit
        return host if route is None else route

    def _share(self, share: WeightedCluster | None, scope: RouteScope, states: FilterStates) -> Share:
        route, host, rc = self.config, self.virtual_host, scope.config
        specific_wins = rc.most_specific_header_mutations_wins
        first = (share,) if share else ()
        levels = [config.typed_per_filter_config for config in (rc, host, route, *first)]
        prepare, filter_response = compile_header_filters(scope.filters, levels)
        cluster_by = _cluster_by(share, route)
        return Share(
            cluster=_cluster_name(share, route),
            cluster_by=cluster_by,
            criteria=criteria_of(share, route),
            filters=_filters_of(
                compile_filters(
                    scope.listener,
                    scope.filters,
                    (
                        (("rc", rc.name), rc.typed_per_filter_config),
                        (("vhost", rc.name, host.name), host.typed_per_filter_config),
                        (("route", rc.name, host.name, self.index), route.typed_per_filter_config),
                        (
                            ("share", rc.name, host.name, self.index, share.name if share else ""),
                            share.typed_per_filter_config if share else (),
                        ),
                    ),
                    states,
                    FilterSite(route, host, cluster_by or _cluster_name(share, route), scope.runtime),
                ),
                _cluster_name(share, route),
                cluster_by,
                states,
            ),
            request_headers=compile_mutations(
                *(s.request_headers for s in first),
                route.request_headers,
                host.request_headers,
                rc.request_headers,
                most_specific_wins=specific_wins,
            ),
            response_headers=compile_mutations(
                *(s.response_headers for s in first),
                route.response_headers,
                host.response_headers,
                rc.response_headers,
                most_specific_wins=specific_wins,
                target="response",
            ),
            rewrite_host=compile_host_rewrite(_host_rewrite(route)),
            authority=share.host_rewrite_literal if share else "",
            tells_upstream=scope.tells_upstream,
            prepare=prepare,
            filter_response=filter_response,
        )

    def cluster_name(self, share: Share, head: RequestHead) -> str:
        """The cluster of a request; empty when the request was to name it and does not."""
        return share.cluster if share.cluster_by is None else share.cluster_by(head)


def _filters_of(
    compiled: tuple[Filter, ...],
    cluster: str,
    cluster_by: Callable[[RequestHead], str] | None,
    states: FilterStates,
) -> tuple[Filter, ...]:
    """The filters of a way to a cluster: those of the configuration, without faults for other clusters, and then those
    that code has put before it.
    """
    return (*for_clusters(compiled, cluster, cluster_by), *states.attached.get(cluster, ()))


def _cluster_name(share: WeightedCluster | None, route: Route) -> str:
    if share:
        return share.name
    action = route.action
    return action.cluster if isinstance(action, RouteAction) and isinstance(action.cluster, str) else ""


def _cluster_by(share: WeightedCluster | None, route: Route) -> Callable[[RequestHead], str] | None:
    """What finds the cluster in the request, where the configuration does not name it."""
    if share is not None:
        return _named_by_header(share.cluster_header) if share.cluster_header else None
    action = route.action
    if not isinstance(action, RouteAction):
        return None
    if isinstance(action.cluster, MatchedCluster):
        with at("cluster_specifier_plugin"):
            find = compile_matcher(action.cluster.matcher).find
        return lambda head: find(head) or ""
    return _named_by_header(action.cluster.name) if isinstance(action.cluster, ClusterHeader) else None


def _named_by_header(name: str) -> Callable[[RequestHead], str]:
    return lambda head: next(iter(head.get_all(name)), "")


def criteria_of(share: WeightedCluster | None, route: Route) -> Struct:
    """Metadata match of the route, overlaid with the share's."""
    base = route.action.metadata_match if isinstance(route.action, RouteAction) else EMPTY_STRUCT
    if share is None or not share.metadata_match.items:
        return base
    merged = dict(base.items) | dict(share.metadata_match.items)
    return Struct(tuple(sorted(merged.items())))


def _host_rewrite(route: Route) -> HostRewrite | None:
    return route.action.host_rewrite if isinstance(route.action, RouteAction) else None


def _shorter(*timeouts: float | None) -> float | None:
    given = [timeout for timeout in timeouts if timeout]
    return min(given) if given else None
