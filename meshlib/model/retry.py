"""RetryPolicy, HedgePolicy and what bounds a gRPC call's own timeout (`envoy.config.route.v3`). Durations are float
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.matchers import HeaderMatcher
from meshlib.model.metadata import Struct

__all__ = ["GrpcTimeout", "RateLimitedBackOff", "ResetHeader", "RetryPolicy"]


@dataclass(frozen=True, slots=True)
class ResetHeader:
    """A response header that says when to come back: in so many `SECONDS`, or at a `UNIX_TIMESTAMP`. `name` is lower
    case.
    """

    name: str
    format: Literal["SECONDS", "UNIX_TIMESTAMP"] = "SECONDS"


@dataclass(frozen=True, slots=True)
class RateLimitedBackOff:
    """`rate_limited_retry_back_off`: the first of the headers that can be read, and asks for no more than
    `max_interval` (Envoy: 300 s), takes the place of the exponential back-off.
    """

    reset_headers: tuple[ResetHeader, ...]
    max_interval: float = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`envoy.config.route.v3.RetryPolicy`.

    The n-th back-off is drawn uniformly from `[0, 2**(n-1) * base_interval)`, capped at `max_interval`
    (Envoy: 25 ms, 10 x base). `previous_hosts`, `omit_canary_hosts` and `omit_host_metadata` (labels of `envoy.lb`, all
    of which a host must have to be left out) are the retry host predicates of those names; the balancer is asked up to
    `host_selection_retry_max_attempts` more times. `previous_priorities` is the retry priority of that name, by its
    update frequency; None: every attempt uses the cluster's own priorities.
    """

    retry_on: tuple[str, ...] = ()
    num_retries: int = 1
    per_try_timeout: float | None = None
    per_try_idle_timeout: float | None = None
    retriable_status_codes: tuple[int, ...] = ()
    base_interval: float = 0.025
    max_interval: float = 0.25
    previous_hosts: bool = False
    host_selection_retry_max_attempts: int = 1
    retriable_headers: tuple[HeaderMatcher, ...] = ()
    retriable_request_headers: tuple[HeaderMatcher, ...] = ()
    rate_limited_back_off: RateLimitedBackOff | None = None
    omit_canary_hosts: bool = False
    omit_host_metadata: tuple[Struct, ...] = ()
    previous_priorities: int | None = None


@dataclass(frozen=True, slots=True)
class GrpcTimeout:
    """How a gRPC caller's own timeout counts: less `offset`, and at most `maximum` (0: as long as it likes).

    `instead_of_route`: the deprecated `max_grpc_timeout`, which takes the place of the route's timeout for every gRPC
    call, so that one without a timeout of its own has `maximum`. Else `grpc_timeout_header_max`, which takes the place
    of `max_stream_duration` where the call brings a timeout.
    """

    maximum: float
    offset: float = 0.0
    instead_of_route: bool = False
