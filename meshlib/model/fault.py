"""The fault filter (`envoy.extensions.filters.http.fault.v3`): calls that are delayed, aborted or answered slowly."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.filters import FilterConfig
from meshlib.model.matchers import NEVER, FractionalPercent, HeaderMatcher
from meshlib.model.metadata import EMPTY_STRUCT, Struct

__all__ = ["FAULT_FILTER", "FaultAbort", "FaultDelay", "FaultRateLimit", "HttpFault"]

FAULT_FILTER = "envoy.filters.http.fault"
"""The name by which a route overrides the filter."""


@dataclass(frozen=True, slots=True)
class FaultDelay:
    """A delay of `seconds`; None: of as many milliseconds as the request's `x-envoy-fault-delay-request` says, for as
    much of `percentage` as its `x-envoy-fault-delay-request-percentage` asks for.
    """

    seconds: float | None
    percentage: FractionalPercent = NEVER


@dataclass(frozen=True, slots=True)
class FaultAbort:
    """An answer in place of the upstream's: an HTTP status, or a gRPC status. Neither: the one in the request's
    `x-envoy-fault-abort-request`, else in its `x-envoy-fault-abort-grpc-request`, for as much of `percentage` as its
    `x-envoy-fault-abort-request-percentage` asks for.
    """

    http_status: int | None = None
    grpc_status: int | None = None
    percentage: FractionalPercent = NEVER

    @property
    def by_header(self) -> bool:
        """Whether the request says the status."""
        return self.http_status is None and self.grpc_status is None


@dataclass(frozen=True, slots=True)
class FaultRateLimit:
    """A response body of at most `limit_kbps` KiB a second; None: as the request's `x-envoy-fault-throughput-response`
    says, for as much of `percentage` as its `x-envoy-fault-throughput-response-percentage` asks for.
    """

    limit_kbps: int | None
    percentage: FractionalPercent = NEVER


@dataclass(frozen=True, slots=True)
class HttpFault(FilterConfig):
    """`envoy.filters.http.fault`. Without a delay, an abort and a rate limit the filter does nothing, but a route may
    say otherwise in its place.

    It concerns requests to `upstream_cluster` (empty: any) that fit all `headers` and, if there are
    `downstream_nodes`, say in `x-envoy-downstream-service-node` that they come from one. `max_active_faults` (None: no
    limit) bounds what is under way. The `*_runtime` keys are where a runtime's values replace these. `filter_metadata`
    is told with `FaultInjected`.
    """

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    response_rate_limit: FaultRateLimit | None = None
    upstream_cluster: str = ""
    headers: tuple[HeaderMatcher, ...] = ()
    downstream_nodes: tuple[str, ...] = ()
    max_active_faults: int | None = None
    delay_percent_runtime: str = "fault.http.delay.fixed_delay_percent"
    abort_percent_runtime: str = "fault.http.abort.abort_percent"
    delay_duration_runtime: str = "fault.http.delay.fixed_duration_ms"
    abort_http_status_runtime: str = "fault.http.abort.http_status"
    abort_grpc_status_runtime: str = "fault.http.abort.grpc_status"
    max_active_faults_runtime: str = "fault.http.max_active_faults"
    response_rate_limit_percent_runtime: str = "fault.http.rate_limit.response_percent"
    disable_downstream_cluster_stats: bool = False
    filter_metadata: Struct = EMPTY_STRUCT

    @property
    def injects(self) -> bool:
        """Whether there is anything to inject."""
        return self.delay is not None or self.abort is not None or self.response_rate_limit is not None
