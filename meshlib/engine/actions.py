"""What a route does beside sending a request, compiled: copies of it, redirects that are followed, sticky sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.engine.filters import Filter
from meshlib.engine.session import SessionFilter
from meshlib.model.filters import RouterFilter
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.route import ClusterHeader, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.routing.internal_redirect import InternalRedirects
from meshlib.routing.shadow import Shadow, compile_shadow

if TYPE_CHECKING:
    from meshlib.engine.route import RoutePlan, RouteScope

BODY_LIMIT = 1 << 20
"""Bytes of a streamed body that are kept for a copy (Envoy: the listener's `per_connection_buffer_limit_bytes`)."""
_ANY = RouteMatch(PathMatcher("prefix", "/"))
MakeRoute = Callable[[Route, VirtualHost, "RouteScope"], "RoutePlan"]


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """One mirror policy: by `route`, which has nothing but a cluster, `fraction` (0 to 1) of the requests is sent once
    more, as `shadow` makes them.
    """

    shadow: Shadow
    route: RoutePlan
    fraction: float
    traced: bool


@dataclass(frozen=True, slots=True)
class Actions:
    """None of a route that has none of these. `body_limit` in bytes."""

    mirrors: tuple[MirrorPlan, ...] = ()
    redirects: InternalRedirects | None = None
    sessions: tuple[SessionFilter, ...] = ()
    body_limit: int = BODY_LIMIT


NO_ACTIONS = Actions()


def compile_actions(
    route: Route, host: VirtualHost, scope: RouteScope, filters: Iterable[Filter], make: MakeRoute
) -> Actions | None:
    """The actions of a route whose filter chain is `filters`; `make` compiles the routes of its copies."""
    action = route.action
    if not isinstance(action, RouteAction):
        return None
    policies = action.request_mirror_policies or host.request_mirror_policies or scope.config.request_mirror_policies
    sessions = tuple(item for item in filters if isinstance(item, SessionFilter))
    if not policies and action.internal_redirect is None and not sessions:
        return None
    return Actions(
        tuple(_mirror(policy, route, host, scope, make) for policy in policies),
        None if action.internal_redirect is None else InternalRedirects(action.internal_redirect),
        sessions,
        _body_limit(route, host),
    )


def _mirror(
    policy: RequestMirrorPolicy, route: Route, host: VirtualHost, scope: RouteScope, make: MakeRoute
) -> MirrorPlan:
    """A copy's route has no retries, no filters and no rewrites: the copy is made of the request as it is sent, and its
    time is what the call has.
    """
    cluster = policy.cluster or ClusterHeader(policy.cluster_header)
    bare = Route(_ANY, RouteAction(cluster, timeout=None), route.name)
    routers = tuple(entry for entry in scope.filters if isinstance(entry.config, RouterFilter))
    around = replace(scope, filters=routers, config=RouteConfiguration(""), max_stream_duration=None)
    plan = make(bare, VirtualHost(host.name, host.domains, ()), around)
    return MirrorPlan(compile_shadow(policy), plan, policy.fraction.resolved(scope.runtime).fraction, policy.traced)


def _body_limit(route: Route, host: VirtualHost) -> int:
    for limit in (route.request_body_buffer_limit, host.request_body_buffer_limit):
        if limit is not None:
            return limit
    return BODY_LIMIT
