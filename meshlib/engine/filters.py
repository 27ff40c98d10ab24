"""HTTP filters at run time: built from the model once per route, so that a route without filters runs none.

A filter looks at the request and either lets it pass (None; `Admit` where it wants to hear of the end,
`meshlib.engine.ends`) or answers it (`LocalReply`), or it wants a pause first (`meshlib.engine.pauses`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

from meshlib.engine.ends import Admit
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.pauses import Pause
from meshlib.engine.session import SessionFilter
from meshlib.flags import ResponseFlag
from meshlib.model.fault import HttpFault
from meshlib.model.filters import FilterConfig, HttpFilter, LocalRateLimit, PerFilterConfig
from meshlib.model.global_rate_limit import GlobalRateLimit, GlobalRateLimitPerRoute
from meshlib.model.limiters import RequestLimit
from meshlib.model.rate_limit_quota import RateLimitQuota, RateLimitQuotaOverride
from meshlib.model.request import RequestHead
from meshlib.model.session import StatefulSession
from meshlib.model.shedding import AdaptiveConcurrency, AdmissionControl
from meshlib.policy.rng import Rng


@dataclass(slots=True)
class LocalReply:
    """An answer without an upstream; `name` says which filter made it, `flag` what was wrong, if anything.
    `grpc_status` is a gRPC call's status where it is not what `status` means to gRPC.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    flag: ResponseFlag | None
    name: str
    grpc_status: int | None = None


Verdict = LocalReply | Pause | Admit | None


class Filter(Protocol):
    """One filter on one route."""

    @property
    def config(self) -> FilterConfig:
        """What it was built from."""

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Verdict:
        """Decide about a request before it is balanced, or served."""


def _local_rate_limit(config: LocalRateLimit, key: Hashable, states: FilterStates, site: FilterSite) -> Filter | None:
    from meshlib.engine.local_limit import local_rate_limit

    return local_rate_limit(config, key, states, site)


def _global_rate_limit(config: GlobalRateLimit, key: Hashable, states: FilterStates, site: FilterSite) -> Filter | None:
    from meshlib.engine.global_limit import global_rate_limit

    del key  # it has no state: the service has
    return global_rate_limit(config, states, site)


def _rate_limit_quota(config: RateLimitQuota, key: Hashable, states: FilterStates, site: FilterSite) -> Filter | None:
    from meshlib.engine.quota import quota_filter

    del key  # its buckets are the domain's, whatever route they are of
    return quota_filter(config, states, site)


def _request_limit(config: RequestLimit) -> Filter:
    from meshlib.engine.request_limit import RequestLimitFilter

    return RequestLimitFilter(config)


def _shedder(config: FilterConfig) -> Filter | None:
    from meshlib.engine.shedding import BUILDERS  # which answers by LocalReply

    return BUILDERS[type(config)](config)


_BUILDERS: dict[type[FilterConfig], Callable[..., Filter | None]] = {
    AdaptiveConcurrency: _shedder,
    AdmissionControl: _shedder,
    RequestLimit: _request_limit,
    StatefulSession: lambda config: SessionFilter(config, config.state) if config.state else None,
}


def _fault(
    config: HttpFault, key: tuple[Hashable, str, FilterConfig], states: FilterStates, site: FilterSite
) -> Filter | None:
    del site
    faults = states.faults
    if faults is None or not config.injects:
        return None
    where = "/".join(map(str, key[0])) if isinstance(key[0], tuple) else str(key[0])
    return states.kept(key, lambda: faults.filter(config, f"{key[1]} of {where}"))


_SITED: dict[type[FilterConfig], Callable[..., Filter | None]] = {
    HttpFault: _fault,
    LocalRateLimit: _local_rate_limit,
    GlobalRateLimit: _global_rate_limit,
    RateLimitQuota: _rate_limit_quota,
}
"""Filters that read what their route says: made of (configuration, key of their state, states, site)."""


def compile_filters(
    scope: Hashable,
    filters: Iterable[HttpFilter],
    overrides: tuple[tuple[Hashable, Iterable[PerFilterConfig]], ...],
    states: FilterStates,
    site: FilterSite,
) -> tuple[Filter, ...]:
    """The chain of one route, which is `site`: `overrides` go from the widest scope to the most specific, which wins.

    Filters without a runtime (the router, unsupported ones) cost nothing: they are left out.
    """
    chain = []
    for entry in filters:
        owner, config, disabled = scope, entry.config, entry.disabled
        for override_scope, configs in overrides:
            for override in configs:
                if override.name == entry.name:
                    disabled = override.disabled
                    if override.config is not None:
                        owner, config = override_scope, override.config
        if isinstance(config, GlobalRateLimitPerRoute) and isinstance(entry.config, GlobalRateLimit):
            config = entry.config.on_route(config)
        if isinstance(config, RateLimitQuotaOverride) and isinstance(entry.config, RateLimitQuota):
            config = entry.config.on_route(config)
        if not disabled and (built := _runtime((owner, entry.name, config), states, site)):
            chain.append(built)
    return tuple(chain)


def _runtime(key: tuple[Hashable, str, FilterConfig], states: FilterStates, site: FilterSite) -> Filter | None:
    config = key[2]
    sited = _SITED.get(type(config))
    if sited is not None:
        return sited(config, key, states, site)
    builder = _BUILDERS.get(type(config))
    return None if builder is None else states.kept(key, lambda: builder(config))
