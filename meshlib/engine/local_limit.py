"""The local rate limit filter (`envoy.filters.http.local_ratelimit`), for calls and for requests that are served."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace

from meshlib.engine.ends import Admit
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.filters import LocalReply
from meshlib.flags import ResponseFlag
from meshlib.model.filters import LocalRateLimit
from meshlib.model.header_mutation import MutationStep
from meshlib.model.headers import HeaderValueOption
from meshlib.model.rate_limits import RateLimit
from meshlib.model.request import RequestHead
from meshlib.model.route import RouteAction
from meshlib.policy.local_limiter import LocalLimiter, Taken
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.policy.rng import Rng, happens
from meshlib.routing.descriptors import Descriptors, Surroundings, applicable, compile_descriptors
from meshlib.routing.facts import CallFacts
from meshlib.routing.header_filter import compile_steps
from meshlib.routing.headers import Headers

_RESOURCE_EXHAUSTED = 8
_TOO_MANY_REQUESTS = 429
_BODY = b"local_rate_limited"
_RETRY_AFTER = b"retry-after"
_FORMATTED = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"
"""The runtime key without which Envoy 1.40 takes the operators in a descriptor's value for text."""


class LocalRateLimitFilter:
    """One filter on one route, or on all routes of a listener where it needs to know nothing of them."""

    __slots__ = (
        "__weakref__",
        "_count_ok",
        "_descriptors",
        "_enabled",
        "_enforced",
        "_grpc_status",
        "_limiter",
        "_mark",
        "_mutate",
        "_states",
        "_stats",
        "_tells",
        "_watches",
        "config",
        "quick",
    )

    def __init__(
        self,
        config: LocalRateLimit,
        states: FilterStates | None = None,
        limiter: LocalLimiter | None = None,
        site: FilterSite | None = None,
    ) -> None:
        self.config = config
        self._states = states if states is not None else FilterStates()
        self._limiter = limiter or LocalLimiter(config)
        self._stats = self._states.limit_stats(config.stat_prefix)
        self._count_ok = self._stats.ok.add
        runtime = site.runtime if site is not None else None
        self._enabled = (config.enabled if runtime is None else config.enabled.resolved(runtime)).fraction
        self._enforced = (config.enforced if runtime is None else config.enforced.resolved(runtime)).fraction
        self._descriptors = _descriptors(config, site, self._states.source_cluster)
        self._grpc_status = _RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None
        self._mutate = compile_steps(_steps(config.response_headers), "response")
        self._mark = compile_steps(_steps(config.request_headers_to_add_when_not_enforced), "request")
        self._tells = config.enable_x_ratelimit_headers
        self._watches = self._tells or any(limit.x_ratelimit == "DRAFT_VERSION_03" for limit in _said(config, site))
        plain = self._descriptors is None and not self._watches and not config.local_cluster_rate_limit
        self.quick: LocalTokenBucket | None = self._limiter.default if plain and self._enabled >= 1.0 else None

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit | None:
        """Take the tokens; over the limit, answer."""
        bucket = self.quick
        if bucket is not None:
            if bucket.take(now):
                self._count_ok()
                return None
            return self._over(Taken(False, bucket), head, now, rng)
        if self._enabled < 1.0 and not happens(self._enabled, rng):
            return None
        found = () if self._descriptors is None else self._descriptors(head)
        taken = self._limiter.take(now, found, self._states.instances if self.config.local_cluster_rate_limit else 1)
        if not taken.allowed:
            return self._over(taken, head, now, rng)
        if taken.shadowed:
            self._stats.rate_limited.add()
            self._stats.shadow_mode.add()
        else:
            self._count_ok()
        return self._admitted(taken, None)

    def _over(self, taken: Taken, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit | None:
        self._stats.rate_limited.add()
        if not happens(self._enforced, rng):
            return self._admitted(taken, self._marked(head))
        self._stats.enforced.add()
        config, bucket = self.config, taken.bucket
        headers: Headers = [] if self._mutate is None else self._mutate([], head)
        if config.enable_retry_after_header and config.status == _TOO_MANY_REQUESTS and bucket is not None:
            headers = with_retry_after(headers, bucket.next_available(now))
        if self._says(taken) and bucket is not None:
            headers = [*headers, *figures(bucket, now)]
        name = config.stat_prefix or "local_rate_limit"
        return LocalReply(config.status, headers, _BODY, ResponseFlag.RL, name, self._grpc_status)

    def _marked(self, head: RequestHead) -> RequestHead | None:
        """The request as the upstream is to see it, where it is marked."""
        if self._mark is None:
            return None
        return head.like(head.path, self._mark(list(head.headers), head))

    def _admitted(self, taken: Taken, head: RequestHead | None) -> Admit | None:
        bucket = taken.bucket
        says = bucket is not None and self._watches and self._says(taken)
        if head is None and not says:
            return None
        return Admit(head=head, on_response=(lambda at: figures(bucket, at)) if bucket is not None and says else None)

    def _says(self, taken: Taken) -> bool:
        option = taken.x_ratelimit
        return self._tells if option == "UNSPECIFIED" else option == "DRAFT_VERSION_03"


def figures(bucket: LocalTokenBucket, now: float) -> Headers:
    """`x-ratelimit-*` of the draft's version 3, as Envoy writes them: the bucket's size, the whole tokens in it, and
    the seconds until there is one, rounded up.
    """
    remaining = bucket.remaining(now)
    wait = 0.0 if remaining >= 1.0 else bucket.next_available(now)
    return [
        (b"x-ratelimit-limit", b"%d" % bucket.max_tokens),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % seconds_up(wait)),
    ]


def seconds_up(seconds: float) -> int:
    """Whole seconds, rounded up but for what is a rounding error; of a wait that never ends a day."""
    return math.ceil(seconds - 1e-6) if math.isfinite(seconds) else 86400


def with_retry_after(headers: Headers, seconds: float) -> Headers:
    """The headers with `retry-after`, at least a second, unless they have one."""
    if any(name.lower() == _RETRY_AFTER for name, _ in headers):
        return headers
    return [*headers, (_RETRY_AFTER, b"%d" % max(1, seconds_up(seconds)))]


def local_rate_limit(
    config: LocalRateLimit, key: Hashable, states: FilterStates, site: FilterSite
) -> LocalRateLimitFilter | None:
    """The filter of a route. Those that need to know nothing of their route are one for all routes; whatever runtime
    says, buckets stay.
    """
    if config.token_bucket is None and not config.descriptors:
        return None
    limiter = states.kept(("limiter", key), lambda: LocalLimiter(config))
    if _said(config, site):
        return LocalRateLimitFilter(config, states, limiter, site)
    said = tuple(item.resolved(site.runtime) for item in (config.enabled, config.enforced))
    return states.kept((key, said), lambda: LocalRateLimitFilter(config, states, limiter, site))


def _said(config: LocalRateLimit, site: FilterSite | None) -> tuple[RateLimit, ...]:
    """The rate limits whose descriptors count."""
    if not config.descriptors:
        return ()
    if config.rate_limits or site is None:
        return tuple(limit for limit in config.rate_limits if not limit.apply_on_stream_done)
    action = site.route.action
    if not isinstance(action, RouteAction):  # an answer of its own, for which Envoy asks no actions
        return ()
    found = applicable(
        action.rate_limits,
        site.virtual_host.rate_limits,
        include_virtual_host=action.include_vh_rate_limits,
        option=config.vh_rate_limits,
        stage=config.stage,
    )
    # Of a route's, as in Envoy, each counts for one, when it begins.
    return tuple(replace(limit, hits_addend=None) for limit in found if not limit.disable_key)


def _descriptors(config: LocalRateLimit, site: FilterSite | None, source_cluster: str) -> Descriptors | None:
    return compile_descriptors(_said(config, site), surroundings(site, source_cluster))


def surroundings(site: FilterSite | None, source_cluster: str) -> Surroundings:
    """What the actions of a filter at `site` read beside the request; None: it is a server's, from code."""
    if site is None:
        return Surroundings(source_cluster)
    facts = CallFacts(
        route=site.route.name,
        route_metadata=site.route.metadata,
        virtual_host_metadata=site.virtual_host.metadata,
        cluster=site.cluster if isinstance(site.cluster, str) else "",
    )
    formatted = site.runtime.get(_FORMATTED) is True
    return Surroundings(source_cluster, site.cluster, facts, formatted=formatted)


def _steps(options: tuple[HeaderValueOption, ...]) -> list[MutationStep]:
    return [MutationStep(append=option) for option in options]
