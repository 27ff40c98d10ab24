"""The global rate limit filter: what a rate limit service is asked, and what becomes of its answer
(`envoy.filters.http.ratelimit`).

Asking is I/O, so it is somebody else's (`RateLimitServices`): the filter makes the question, and decides by the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from meshlib.engine.commands import Question
from meshlib.engine.ends import Admit, End
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.filters import LocalReply
from meshlib.engine.local_limit import surroundings
from meshlib.engine.pauses import Consult
from meshlib.engine.told import with_metadata
from meshlib.flags import ResponseFlag
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.grpc_service import GrpcService
from meshlib.model.header_mutation import MutationStep
from meshlib.model.matchers import FractionalPercent
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.rate_limits import RateLimit
from meshlib.model.request import RequestHead
from meshlib.model.route import RouteAction
from meshlib.policy.rate_limit_service import OVER_LIMIT, DescriptorStatus, ServiceAnswer, request
from meshlib.policy.rng import Rng, happens
from meshlib.routing.descriptors import applicable, compile_descriptors
from meshlib.routing.header_filter import compile_steps
from meshlib.routing.headers import Headers

NAMESPACE = "envoy.filters.http.ratelimit"
"""Where a service's `dynamic_metadata` stand in a request's."""
_RESOURCE_EXHAUSTED = 8
_RATE_LIMITED = (b"x-envoy-ratelimited", b"true")


class RateLimitServices(Protocol):
    """Whoever can ask rate limit services."""

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> Question:
        """Ask with the bytes of a `RateLimitRequest`, `timeout` seconds at most. The answer is a `ServiceAnswer`, or
        None where there is none.
        """

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        """The same for nobody: whatever the answer is, it changes nothing. Does not block, and never raises."""


class Unreachable:
    """Stands for services that cannot be asked here at all."""

    def question(self, service: GrpcService, data: bytes, timeout: float | None) -> Unreachable:
        """A question that has no answer."""
        del service, data, timeout
        return self

    def tell(self, service: GrpcService, data: bytes, timeout: float | None) -> None:
        """Nobody hears it."""

    def ask(self) -> None:
        """No answer."""

    async def aask(self) -> None:
        """No answer."""


class GlobalLimitFilter:
    """One filter on one route, or on a server. `site` None: it is a server's, from code."""

    def __init__(self, config: GlobalRateLimit, states: FilterStates, site: FilterSite | None = None) -> None:
        self.config = config
        self._states = states
        limits, around = _said(config, site), surroundings(site, states.source_cluster)
        self._now = compile_descriptors([limit for limit in limits if not limit.apply_on_stream_done], around)
        self._after = compile_descriptors([limit for limit in limits if limit.apply_on_stream_done], around)
        runtime = EMPTY_STRUCT if site is None else site.runtime
        self._enabled = config.enabled.resolved(runtime).fraction
        self._enforced = config.enforced.resolved(runtime).fraction
        share = config.failure_mode_deny_percent
        self._denied = float(config.failure_mode_deny) if share is None else share.resolved(runtime).fraction
        self._internal = {"internal": True, "external": False}.get(config.request_type)
        self._mutate = compile_steps([MutationStep(append=option) for option in config.response_headers], "response")
        self._cluster = "" if site is None else site.cluster
        prefix = f"{config.stat_prefix}." if config.stat_prefix else ""
        self._stats = {name: f"ratelimit.{prefix}{name}" for name in _STATS}

    @property
    def idle(self) -> bool:
        """Whether it has nothing to ask."""
        return self._now is None and self._after is None

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> Consult | Admit | None:
        """Ask, where the request has descriptors."""
        if self._enabled < 1.0 and not happens(self._enabled, rng):
            return None
        if self._internal is not None and (head.get("x-envoy-internal") == "true") is not self._internal:
            return None
        found = self._now(head) if self._now is not None else None
        ended = None if self._after is None else partial(self._tell, head)
        if not found:
            return None if ended is None else Admit(ended)
        services, config = self._states.services, self.config
        asker: RateLimitServices = Unreachable() if services is None else services()
        question = asker.question(config.service, request(config.domain, found), config.timeout)
        return Consult(question, lambda answer, at: self._decided(head, rng, ended, answer), ended)

    def _tell(self, head: RequestHead, end: End | None = None) -> None:
        """What counts when a request has ended; nobody waits for it."""
        del end
        found, services = self._after(head) if self._after is not None else None, self._states.services
        if found and services is not None:
            services().tell(self.config.service, request(self.config.domain, found), self.config.timeout)

    def _decided(
        self, head: RequestHead, rng: Rng, ended: Callable[..., None] | None, answer: ServiceAnswer | None
    ) -> LocalReply | Admit | None:
        verdict = self._without_service(head, rng) if answer is None else self._by(answer, head, rng)
        if ended is None:
            return verdict
        if isinstance(verdict, LocalReply):
            ended()  # what is refused has ended, too
            return verdict
        return Admit(ended) if verdict is None else Admit(ended, head=verdict.head, on_response=verdict.on_response)

    def _count(self, head: RequestHead, stat: str) -> None:
        cluster = self._cluster if isinstance(self._cluster, str) else self._cluster(head)
        self._states.add(f"cluster.{cluster}.{self._stats[stat]}" if cluster else f"server.{self._stats[stat]}")

    def _without_service(self, head: RequestHead, rng: Rng) -> LocalReply | None:
        self._count(head, "error")
        if self._denied and happens(self._denied, rng):
            return LocalReply(self.config.status_on_error, [], b"", ResponseFlag.RLSE, self.config.domain)
        self._count(head, "failure_mode_allowed")
        return None

    def _by(self, answer: ServiceAnswer, head: RequestHead, rng: Rng) -> LocalReply | Admit | None:
        over = answer.code == OVER_LIMIT
        self._count(head, "over_limit" if over else "ok")
        headers = list(answer.response_headers)
        if over and self.config.x_envoy_ratelimited:
            headers = [*(pair for pair in headers if pair[0] != _RATE_LIMITED[0]), _RATE_LIMITED]
        if self.config.x_ratelimit_headers:
            headers += x_ratelimit(answer.statuses)
        if over and happens(self._enforced, rng):
            return self._refused(headers, answer.raw_body, head)
        changed = head
        if answer.request_headers:
            changed = head.like(head.path, [*head.headers, *answer.request_headers])
        if answer.metadata.items:
            changed = with_metadata(changed, NAMESPACE, answer.metadata)
        if not headers and changed is head:
            return None
        told = (lambda at: headers) if headers else None
        return Admit(head=None if changed is head else changed, on_response=told)

    def _refused(self, headers: Headers, body: bytes, head: RequestHead) -> LocalReply:
        config = self.config
        if self._mutate is not None:
            headers = self._mutate(headers, head)
        grpc_status = _RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None
        return LocalReply(config.status, headers, body, ResponseFlag.RL, config.domain, grpc_status)


def global_rate_limit(config: GlobalRateLimit, states: FilterStates, site: FilterSite) -> GlobalLimitFilter | None:
    """The filter of a route; None where there is nothing to ask, or nobody who asks."""
    if states.services is None:
        return None
    made = GlobalLimitFilter(config, states, site)
    return None if made.idle else made


def _said(config: GlobalRateLimit, site: FilterSite | None) -> tuple[RateLimit, ...]:
    """The rate limits whose descriptors count: the filter's own, else the route's and the virtual host's."""
    action = None if site is None else site.route.action
    if site is None or not isinstance(action, RouteAction):  # an answer of its own, for which Envoy does not ask
        return config.rate_limits if site is None else ()
    if config.rate_limits:
        return config.rate_limits
    found = applicable(
        action.rate_limits,
        site.virtual_host.rate_limits,
        include_virtual_host=action.include_vh_rate_limits,
        option=config.vh_rate_limits,
        stage=config.stage,
    )
    # Of a route's or a virtual host's own limits Envoy reads no `hits_addend`: only of a filter's.
    return tuple(replace(limit, hits_addend=None) for limit in found if not _is_disabled(limit, site.runtime))


def _is_disabled(limit: RateLimit, runtime: Struct) -> bool:
    """Whether the runtime switches it off (`ratelimit.<disable_key>.http_filter_enabled: 0`)."""
    key = f"ratelimit.{limit.disable_key}.http_filter_enabled"
    return bool(limit.disable_key) and FractionalPercent(100, runtime_key=key).resolved(runtime).fraction <= 0.0


_STATS = ("ok", "error", "over_limit", "failure_mode_allowed")


def x_ratelimit(statuses: Sequence[DescriptorStatus]) -> Headers:
    """`x-ratelimit-*`, of draft version 03: the descriptor that is nearest to its limit, and the policies of all."""
    limited = [status for status in statuses if status.requests_per_unit is not None]
    if not limited:
        return []
    nearest = min(limited, key=lambda status: status.remaining)
    policies = "".join(_policy(status) for status in limited)
    return [
        (b"x-ratelimit-limit", f"{nearest.requests_per_unit}{policies}".encode("utf-8", "replace")),
        (b"x-ratelimit-remaining", b"%d" % nearest.remaining),
        (b"x-ratelimit-reset", b"%d" % nearest.reset),
    ]


def _policy(status: DescriptorStatus) -> str:
    if not status.window:
        return ""
    name = f';name="{status.name}"' if status.name else ""
    return f", {status.requests_per_unit};w={status.window}{name}"
