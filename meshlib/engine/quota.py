"""The filter of assigned quotas (`envoy.filters.http.rate_limit_quota`).

It decides by what the service last said: no request waits for the service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshlib.engine.ends import Admit
from meshlib.engine.filter_states import FilterSite, FilterStates
from meshlib.engine.filters import LocalReply
from meshlib.flags import ResponseFlag
from meshlib.model.grpc_service import GrpcService
from meshlib.model.header_mutation import MutationStep
from meshlib.model.headers import HeaderValueOption
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.rate_limit_quota import BucketId, BucketSettings, RateLimitQuota
from meshlib.model.request import RequestHead
from meshlib.policy.quota import Limiter, QuotaBook, limiter_of
from meshlib.policy.rng import Rng, happens
from meshlib.routing.header_filter import compile_steps
from meshlib.routing.headers import Mutate
from meshlib.routing.matcher_tree import compile_input, compile_matcher


class Quotas(Protocol):
    """Whoever keeps what services assign, and tells them what is used."""

    def book(self, service: GrpcService, domain: str) -> QuotaBook:
        """The buckets of a domain."""


class Untold:
    """Quotas where no service can be spoken to: every bucket stays without an assignment."""

    def __init__(self) -> None:
        self._books: dict[tuple[GrpcService, str], QuotaBook] = {}

    def book(self, service: GrpcService, domain: str) -> QuotaBook:
        """The buckets of a domain."""
        found = self._books.get((service, domain))
        return found or self._books.setdefault((service, domain), QuotaBook(domain, lambda: None))


class _Bucket:
    """One `BucketSettings`, compiled."""

    __slots__ = ("_parts", "fallback", "mutate", "settings")

    def __init__(self, settings: BucketSettings) -> None:
        self.settings = settings
        self._parts = [
            (key, value if isinstance(value, str) else compile_input(value)) for key, value in settings.bucket_id
        ]
        self.fallback: Limiter | None = None if settings.bucket_id else limiter_of(settings.no_assignment)
        self.mutate = _mutate(settings.response_headers, "response")

    def id_of(self, head: RequestHead) -> BucketId | None:
        """What the request's bucket is called, None where something of it is not in the request."""
        found = []
        for key, value in self._parts:
            text = value if isinstance(value, str) else value(head)
            if text is None:
                return None
            found.append((key, text))
        return tuple(sorted(found))


class QuotaFilter:
    """One filter on one route."""

    def __init__(self, config: RateLimitQuota, quotas: Callable[[], Quotas], site: FilterSite | None = None) -> None:
        self.config = config
        self._quotas = quotas
        tree = compile_matcher(config.buckets)
        self._find = tree.find
        self._buckets = {settings: _Bucket(settings) for settings in tree.actions}
        runtime = EMPTY_STRUCT if site is None else site.runtime
        self._enabled = config.enabled.resolved(runtime).fraction
        self._enforced = config.enforced.resolved(runtime).fraction
        self._mark = _mutate(config.request_headers_to_add_when_not_enforced, "request")

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | Admit | None:
        """Take from the request's bucket."""
        if self._enabled < 1.0 and not happens(self._enabled, rng):
            return None
        settings = self._find(head)
        if settings is None:
            return None
        bucket = self._buckets[settings]
        name = bucket.id_of(head)
        if name is None:
            return None
        if bucket.fallback is not None:
            allowed = bucket.fallback(now)
        else:
            book = self._quotas().book(self.config.service, self.config.domain)
            allowed = book.bucket(name, settings, now).take(now)
        if allowed:
            return None
        if happens(self._enforced, rng):
            return self._denied(bucket, head)
        return None if self._mark is None else Admit(head=head.like(head.path, self._mark(list(head.headers), head)))

    def _denied(self, bucket: _Bucket, head: RequestHead) -> LocalReply:
        settings = bucket.settings
        headers = [] if bucket.mutate is None else bucket.mutate([], head)
        is_grpc = (head.get("content-type") or "").startswith("application/grpc")
        body = settings.grpc_message.encode() if is_grpc else settings.body
        name = self.config.domain
        return LocalReply(settings.status, headers, body, ResponseFlag.RL, name, settings.grpc_status)


def quota_filter(config: RateLimitQuota, states: FilterStates, site: FilterSite) -> QuotaFilter | None:
    """The filter of a route; None where nobody keeps quotas."""
    return None if states.quotas is None else QuotaFilter(config, states.quotas, site)


def _mutate(options: tuple[HeaderValueOption, ...], target: str) -> Mutate | None:
    steps = [MutationStep(append=option) for option in options]
    return compile_steps(steps, "request" if target == "request" else "response")
