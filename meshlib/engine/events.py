"""Events: what observers are told. Made only when someone listens.

Observers run on the calling thread and inside the call: they must be quick and must not raise (an observer that raises
is dropped, with a log line). Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshlib.engine.commands import CallInfo
from meshlib.flags import ResponseFlag

__all__ = [
    "AttemptEnded",
    "BreakerChanged",
    "CallEnded",
    "EndpointEjected",
    "EndpointHealth",
    "EndpointHealthChanged",
    "EndpointReachable",
    "EndpointReturned",
    "EndpointUnreachable",
    "Event",
    "HealingChanged",
    "HealingState",
    "Observer",
    "PlanChanged",
    "RateLimited",
    "RequestServed",
]

EndpointHealth = Literal["healthy", "degraded", "unhealthy"]


HealingState = Literal["healthy", "isolated", "probing"]


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """One attempt is over. `result` is a status or a failure's name; `retry` the condition it is retried for."""

    at: float
    cluster: str
    endpoint: str
    attempt: int
    result: int | str
    duration: float
    retry: str = ""


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over, body included. `status` is None when it failed without a response."""

    at: float
    info: CallInfo
    method: str
    authority: str
    path: str
    status: int | None
    flag: ResponseFlag | None
    duration: float


@dataclass(frozen=True, slots=True)
class EndpointEjected:
    """Outlier detection took an endpoint out of balancing for `seconds`. `reason` is the detector, by the name its
    counters have, and `details` are the figures that made it do so.
    """

    at: float
    cluster: str
    endpoint: str
    reason: str
    seconds: float
    details: str = ""


@dataclass(frozen=True, slots=True)
class EndpointReturned:
    """An ejected endpoint is balanced to again. Its time is over, unless `reason` says otherwise."""

    at: float
    cluster: str
    endpoint: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EndpointHealthChanged:
    """Active health checks find an endpoint `healthy`, `degraded` or `unhealthy`, and it counted as something else
    before; or an endpoint that has joined fails its first one.
    """

    at: float
    cluster: str
    endpoint: str
    old: EndpointHealth
    new: EndpointHealth
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointUnreachable:
    """Nothing can be connected to an endpoint: with a failover timeout it is out of balancing."""

    at: float
    cluster: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointReachable:
    """An endpoint that was out of reach can be connected to again."""

    at: float
    cluster: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A circuit breaker moved between `closed`, `open` and `half-open`. `figures` are those that made it: counts of the
    window, rates in percent, seconds. `cluster` and `endpoint` are those of an endpoint's breaker, else empty.
    """

    at: float
    name: str
    old: str
    new: str
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    cluster: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A limit refused a request; `name` says which."""

    at: float
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class RequestServed:
    """A request to this application has been answered, body included. `route` is the application's template where it
    told one; `status` is None when there was no response, `grpc_status` for anything but gRPC.
    """

    at: float
    method: str
    path: str
    route: str
    status: int | None
    grpc_status: int | None
    flag: ResponseFlag | None
    duration: float


@dataclass(frozen=True, slots=True)
class HealingChanged:
    """An endpoint, or a cluster by its breaker (`endpoint` is empty then), went from `healthy` to `isolated`, on to
    `probing`, or back. `by`: which protection; `reason`: why, with the figures that decided it.
    """

    at: float
    cluster: str
    endpoint: str
    old: HealingState
    new: HealingState
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class PlanChanged:
    """A new plan is in force."""

    at: float
    version: str


Event = (
    AttemptEnded
    | CallEnded
    | EndpointEjected
    | EndpointHealthChanged
    | EndpointReachable
    | EndpointReturned
    | EndpointUnreachable
    | BreakerChanged
    | RateLimited
    | RequestServed
    | HealingChanged
    | PlanChanged
)
Observer = Callable[[Event], None]
