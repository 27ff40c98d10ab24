"""CircuitBreaker: closed, open, half-open, in pybreaker's words, with the windows and rates of Resilience4j."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["BreakerScope", "CircuitBreaker", "FallbackResponse", "WindowType"]

WindowType = Literal["count", "time"]
BreakerScope = Literal["cluster", "endpoint"]


@dataclass(frozen=True, slots=True)
class FallbackResponse:
    """What is answered in place of the error while a breaker refuses. `headers` are (name, value); a gRPC call gets
    `grpc_status` (None: what `status` means to gRPC), and no message.
    """

    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    grpc_status: int | None = None


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """A closed / open / half-open breaker. Times are in seconds, rates in percent.

    Any of three opens it: `fail_max` consecutive failures (0: those are not counted); a `failure_rate`, or a
    `slow_call_rate` of calls that took longer than `slow_call_duration`, reached over the window (None: not looked at),
    once that holds `minimum_calls`. The window is the last `window_size` calls (`count`; it never waits for more calls
    than it holds) or the calls of the last `window_size` seconds (`time`; in tenths).

    After `reset_timeout` it is half open, with `half_open_permits` probes in flight at most. `success_threshold`
    successes close it; one failure, or one slow probe where slow calls are looked at, opens it again, and so does
    `half_open_max_wait` without a decision (0: it waits for ever). For `ramp_up` seconds after that closing a growing
    share of the calls passes, from `ramp_up_from` percent to all of them, and the others are refused.

    `scope`: one for the cluster, or one for each endpoint, which is out of balancing while its breaker is not closed.
    A route's breaker is for the route, whatever its scope. `exclude` are exceptions that are no failures, as types or
    predicates. `listeners` are called with each `meshlib.policy.breaker.Transition`, besides the mesh's own. `name` is
    what it is called in events (empty: the cluster, the endpoint or the route). `fallback` is answered while it
    refuses.

    On the wire it is metadata of a cluster or a route, `metadata.filter_metadata["meshlib.circuit_breaker"]`, because
    xDS has no such resource; a data plane that does not know it ignores it.
    """

    fail_max: int = 5
    reset_timeout: float = 60.0
    success_threshold: int = 1
    half_open_permits: int = 1
    failure_rate: float | None = None
    slow_call_rate: float | None = None
    slow_call_duration: float = 60.0
    window_type: WindowType = "count"
    window_size: float = 100
    minimum_calls: int = 100
    half_open_max_wait: float = 0.0
    ramp_up: float = 0.0
    ramp_up_from: float = 10.0
    scope: BreakerScope = "cluster"
    fallback: FallbackResponse | None = None
    name: str = ""
    exclude: tuple[type[BaseException] | Callable[[BaseException], bool], ...] = ()
    listeners: tuple[Callable[[Any], None], ...] = ()

    def is_system_error(self, error: BaseException) -> bool:
        """Whether an exception is a failure, which those that are excluded are not (pybreaker's word)."""
        return not any(isinstance(error, item) if isinstance(item, type) else item(error) for item in self.exclude)
