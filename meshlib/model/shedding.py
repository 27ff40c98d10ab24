"""Load shedding: what a server, or a route, refuses so that the rest is served in time.

`AdaptiveConcurrency` and `AdmissionControl` are Envoy's filters, field by field, and come by xDS too; in them
percentages are numbers from 0 to 100. `Bulkhead`, `QueueDeadline` and `Priorities` are of this library, for servers.

What all have: `status`, the HTTP status of a refusal (gRPC: UNAVAILABLE), and `retry_after`, seconds that a refused
caller is told to wait in `retry-after`; None says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from meshlib.model.filters import FilterConfig

__all__ = ["AdaptiveConcurrency", "AdmissionControl", "Bulkhead", "Priorities", "QueueDeadline", "Shedding", "shedding"]

GRPC_SUCCESS = (0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16)


@dataclass(frozen=True, slots=True)
class Priorities:
    """How much of a limit requests of each criticality may fill: those that may fill less are shed first.

    `shares`: criticality and share, from 0 to 1. A request's criticality is what the `header` says (lower case; a word
    that is not in `shares` says nothing), else that of the first of `paths` (prefix, criticality) its path begins with,
    else that of its `callers` (verified identity, criticality), else `default`.

    The header is believed from anyone: drop it at the edge if callers could lie.
    """

    shares: tuple[tuple[str, float], ...] = (("critical", 1.0), ("default", 0.9), ("sheddable", 0.6))
    header: str = "x-criticality"
    paths: tuple[tuple[str, str], ...] = ()
    callers: tuple[tuple[str, str], ...] = ()
    default: str = "default"

    def __post_init__(self) -> None:
        known = dict(self.shares)
        for name, share in self.shares:
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"the share of {name!r} must be from 0 to 1, is {share!r}")
        for name in (self.default, *(named for _, named in (*self.paths, *self.callers))):
            if name not in known:
                raise ValueError(f"criticality {name!r} has no share; there are {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class AdaptiveConcurrency(FilterConfig):
    """`envoy.extensions.filters.http.adaptive_concurrency.v3`: a limit of concurrent requests that follows latency.

    The latency without load (minRTT) is measured by letting only `min_concurrency` requests in until `request_count`
    have ended, every `min_rtt_interval` seconds and up to `jitter` percent more; or it is told (`min_rtt`, seconds, is
    Envoy's `fixed_value`; None: measured). Every `concurrency_update_interval` seconds the limit goes by what the
    latency has become: `sample_aggregate_percentile` of the requests that ended, against minRTT and `buffer` percent
    of it.

    `concurrency_update_interval` and `min_rtt_interval` have no default in Envoy; here 0.1 s and 60 s.
    """

    max_concurrency_limit: int = 1000
    sample_aggregate_percentile: float = 50.0
    concurrency_update_interval: float = 0.1
    min_rtt_interval: float = 60.0
    min_rtt: float | None = None
    request_count: int = 50
    jitter: float = 15.0
    min_concurrency: int = 3
    buffer: float = 25.0
    enabled: bool = True
    status: int = 503
    retry_after: float | None = None
    priorities: Priorities | None = None

    def __post_init__(self) -> None:
        _positive(self, "max_concurrency_limit", "concurrency_update_interval", "request_count", "min_concurrency")


@dataclass(frozen=True, slots=True)
class AdmissionControl(FilterConfig):
    """`envoy.extensions.filters.http.admission_control.v3`: refuses at random, the more the more requests fail.

    Of n requests in the last `sampling_window` seconds s succeeded; the next one is refused with the probability
    `((n - s / sr_threshold) / (n + 1)) ** (1 / aggression)`, at most `max_rejection_probability`, once there are
    `rps_threshold` requests a second. A success is an HTTP status in one of `http_success_status` (from, below), or a
    gRPC status in `grpc_success_status`. Refused requests do not count.
    """

    sampling_window: float = 30.0
    aggression: float = 1.0
    sr_threshold: float = 95.0
    rps_threshold: int = 0
    max_rejection_probability: float = 80.0
    http_success_status: tuple[tuple[int, int], ...] = ((0, 500),)
    grpc_success_status: tuple[int, ...] = GRPC_SUCCESS
    enabled: bool = True
    status: int = 503
    retry_after: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "sampling_window", "sr_threshold")


@dataclass(frozen=True, slots=True)
class Bulkhead(FilterConfig):
    """At most `max_concurrent` requests at a time, of those whose path begins with `path` on a segment's border.

    `by`: "app", one count for all of them; "caller", one for each verified caller (all without one count as one); or
    "header:<name>", one for each value of a header. Counts exist while requests are in flight: names that are made up
    cost no memory.

    Where `max_waiting` is not 0, so many wait their turn, each for `max_wait` seconds at most. By CoDel they wait less:
    once even the luckiest of an `interval` waited longer than `target` seconds, whoever has waited for twice the
    `target` is refused when its turn comes. `max_waiting` goes with `by="app"` only.
    """

    max_concurrent: int
    path: str = "/"
    by: str = "app"
    max_waiting: int = 0
    max_wait: float = 1.0
    target: float = 0.005
    interval: float = 0.1
    name: str = "bulkhead"
    status: int = 503
    retry_after: float | None = None
    priorities: Priorities | None = None

    def __post_init__(self) -> None:
        _positive(self, "max_concurrent", "max_wait", "target", "interval")
        if self.by not in ("app", "caller") and not self.by.startswith("header:"):
            raise ValueError(f"by must be 'app', 'caller' or 'header:<name>', is {self.by!r}")
        if self.max_waiting and self.by != "app":
            raise ValueError("max_waiting goes with by='app' only")


@dataclass(frozen=True, slots=True)
class QueueDeadline(FilterConfig):
    """Refuses requests that waited too long in queues before this process: in a proxy's, a listener's, a server's.

    When a request arrived at whoever is in front is in `header`: Unix time in seconds, milliseconds or microseconds,
    `t=` before it or not (as nginx and the usual platforms write it). Without that header, and with one that is in the
    future, nothing is known and the request passes. The clocks must agree to within a part of `target`.

    `max_wait`: seconds after which a request is refused in any case. CoDel, as in `Bulkhead`: once even the luckiest of
    an `interval` waited for longer than `target` seconds, every request that waited for twice as long is refused.
    """

    target: float = 0.02
    interval: float = 0.1
    max_wait: float = 1.0
    header: str = "x-request-start"
    status: int = 503
    retry_after: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "target", "interval", "max_wait")


Shedding = AdaptiveConcurrency | AdmissionControl | Bulkhead | QueueDeadline

_WORDS: dict[str, type[AdaptiveConcurrency | AdmissionControl | QueueDeadline]] = {
    "adaptive": AdaptiveConcurrency,
    "admission": AdmissionControl,
    "queue": QueueDeadline,
}
NOTATION = "'adaptive', 'admission', 'queue', 'bulkhead 100' or 'bulkhead 100 /reports'"


def shedding(text: str) -> Shedding:
    """A policy with its defaults, as settings write it: `adaptive`, `admission`, `queue`, `bulkhead 100` (requests at a
    time), `bulkhead 100 /reports` (those below a path). Raises ValueError that shows the notation.
    """
    match text.split():
        case [word] if word in _WORDS:
            return _WORDS[word]()
        case ["bulkhead", count] if count.isdecimal():
            return Bulkhead(int(count))
        case ["bulkhead", count, path] if count.isdecimal() and path.startswith("/"):
            return Bulkhead(int(count), path)
    raise ValueError(f"{text!r} is no load shedding (write {NOTATION})")


def _positive(policy: object, *names: str) -> None:
    for name in names:
        value = getattr(policy, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be more than 0, is {value!r}")
