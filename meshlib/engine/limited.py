"""What a route says of rate limits that a service decides, compiled: its filter on that route."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meshlib.engine.global_limit import GlobalLimitFilter
from meshlib.model.filters import FilterConfig
from meshlib.model.global_rate_limit import GlobalRateLimit, GlobalRateLimitPerRoute
from meshlib.model.matchers import FractionalPercent
from meshlib.model.metadata import Struct
from meshlib.model.rate_limits import RateLimit
from meshlib.model.request import RequestHead
from meshlib.model.route import Route, RouteAction, VirtualHost
from meshlib.routing.descriptors import Surroundings, applicable, compile_descriptors
from meshlib.routing.facts import CallFacts

if TYPE_CHECKING:
    from meshlib.engine.filters import FilterStates

_NOTHING_SAID = GlobalRateLimitPerRoute()


@dataclass(frozen=True, slots=True)
class Limited:
    """A route that leads to `cluster`, or to what that finds in the request."""

    route: Route
    action: RouteAction
    virtual_host: VirtualHost
    cluster: str | Callable[[RequestHead], str]
    runtime: Struct

    def filter(self, config: GlobalRateLimit, own: FilterConfig, states: FilterStates) -> GlobalLimitFilter | None:
        """The filter for this route, which may have a word of its `own`; None where it has nothing to ask."""
        per_route = own if isinstance(own, GlobalRateLimitPerRoute) else _NOTHING_SAID
        limits = per_route.rate_limits or config.rate_limits or self._of_route(config, per_route)
        config = replace(config, domain=per_route.domain or config.domain, rate_limits=limits)
        facts = CallFacts(
            route=self.route.name,
            route_metadata=self.route.metadata,
            virtual_host_metadata=self.virtual_host.metadata,
            cluster=self.cluster if isinstance(self.cluster, str) else "",
        )
        around = Surroundings(states.source_cluster, self.cluster, facts)
        return limit_filter(config, around, states, self._stat_of)

    def _of_route(self, config: GlobalRateLimit, per_route: GlobalRateLimitPerRoute) -> tuple[RateLimit, ...]:
        action = self.action
        found = applicable(
            action.rate_limits,
            self.virtual_host.rate_limits,
            include_virtual_host=action.include_vh_rate_limits,
            option=per_route.vh_rate_limits,
            stage=config.stage,
        )
        # Of a route's or a virtual host's own limits Envoy reads no `hits_addend`: only of a filter's.
        return tuple(replace(limit, hits_addend=None) for limit in found if not self._is_disabled(limit))

    def _is_disabled(self, limit: RateLimit) -> bool:
        """Whether the runtime switches it off (`ratelimit.<disable_key>.http_filter_enabled: 0`)."""
        key = limit.disable_key
        share = FractionalPercent(100, runtime_key=f"ratelimit.{key}.http_filter_enabled") if key else None
        return share is not None and share.resolved(self.runtime).fraction <= 0.0

    def _stat_of(self, head: RequestHead) -> str:
        cluster = self.cluster
        return f"cluster.{cluster if isinstance(cluster, str) else cluster(head)}"


def limit_filter(
    config: GlobalRateLimit, around: Surroundings, states: FilterStates, stat_of: Callable[[RequestHead], str]
) -> GlobalLimitFilter | None:
    """The filter for a configuration's own `rate_limits`; None where it has none, or nobody can ask."""
    now = compile_descriptors([limit for limit in config.rate_limits if not limit.apply_on_stream_done], around)
    after = compile_descriptors([limit for limit in config.rate_limits if limit.apply_on_stream_done], around)
    if states.services is None or (now is None and after is None):
        return None
    return GlobalLimitFilter(
        config, now, after, states.services, lambda head, stat: states.count(f"{stat_of(head)}.{stat}")
    )
