"""HTTP filters at run time: built from the model once per route, so that a route without filters runs none.

A filter looks at the request and either lets it pass (None; `Admit` where it wants to hear of the end,
`meshlib.engine.ends`) or answers it (`LocalReply`), or it wants a pause first (`meshlib.engine.pauses`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Protocol

from meshlib.engine.ends import Admit
from meshlib.engine.pauses import Pause
from meshlib.engine.session import SessionFilter
from meshlib.flags import ResponseFlag
from meshlib.model.filters import FilterConfig, HttpFilter, LocalRateLimit, PerFilterConfig
from meshlib.model.header_mutation import MutationStep
from meshlib.model.request import RequestHead
from meshlib.model.session import StatefulSession
from meshlib.policy.rate_limit import LocalRateLimiter
from meshlib.policy.rng import Rng
from meshlib.routing.header_filter import compile_steps
from meshlib.routing.headers import Headers

_RESOURCE_EXHAUSTED = 8


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


FilterStates = MutableMapping[Hashable, Filter]
"""Filters by (scope, configuration): a bucket survives a new plan as long as its configuration is the same."""


class LocalRateLimitFilter:
    """Client and server side local rate limit; answers with the configured status and RL."""

    def __init__(self, config: LocalRateLimit) -> None:
        self.config = config
        self._limiter = LocalRateLimiter(config)
        self._bucket = self._limiter.asks_all  # as nearly every limit has it
        self._grpc_status = _RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None
        self._mutate = compile_steps([MutationStep(append=option) for option in config.response_headers], "response")

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> LocalReply | None:
        """Take a token; over the limit, answer."""
        bucket = self._bucket
        if bucket is not None and bucket.take(now):
            return None
        verdict = self._limiter.check(now, rng) if bucket is None else self._limiter.over(rng)
        if verdict.allowed:
            return None
        name = self.config.stat_prefix or "local_rate_limit"
        headers: Headers = [] if self._mutate is None else self._mutate([], head)
        return LocalReply(self.config.status, headers, b"local_rate_limited", ResponseFlag.RL, name, self._grpc_status)


_BUILDERS: dict[type[FilterConfig], Callable[..., Filter | None]] = {
    LocalRateLimit: lambda config: LocalRateLimitFilter(config) if config.token_bucket else None,
    StatefulSession: lambda config: SessionFilter(config, config.state) if config.state else None,
}


def compile_filters(
    scope: Hashable,
    filters: Iterable[HttpFilter],
    overrides: tuple[tuple[Hashable, Iterable[PerFilterConfig]], ...],
    states: FilterStates,
) -> tuple[Filter, ...]:
    """The chain of one route: `overrides` go from the widest scope to the most specific, which wins.

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
        if not disabled and (built := _runtime((owner, entry.name, config), states)):
            chain.append(built)
    return tuple(chain)


def _runtime(key: tuple[Hashable, str, FilterConfig], states: FilterStates) -> Filter | None:
    existing = states.get(key)
    if existing is not None:
        return existing
    builder = _BUILDERS.get(type(key[2]))
    built = builder(key[2]) if builder else None
    return states.setdefault(key, built) if built else None
