"""ClusterState and EndpointState: what is learnt while serving, kept when configuration changes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from meshlib.state.counter import Counter
from meshlib.state.latency import Latency
from meshlib.state.outliers import Window


class ReportedLoad(NamedTuple):
    """What an endpoint's load reports (ORCA) make of it: a weight, reported without a long gap since `since`, and last
    `at` (monotonic seconds). Replaced as a whole.
    """

    weight: float
    since: float
    at: float


class ActiveHealth(NamedTuple):
    """What active health checks make of an endpoint; the fields are Envoy's health flags. Replaced as a whole.

    `failed` and `degraded` are what balancing goes by. An endpoint that is `pending` (new, not checked yet) or
    `excluded` (it asked to be taken out at once) is not missed when the health of its priority is reckoned. `timeout`:
    it failed because nothing came.
    """

    failed: bool = False
    degraded: bool = False
    pending: bool = False
    excluded: bool = False
    timeout: bool = False

    def flags(self) -> tuple[str, ...]:
        """Those that are set, in Envoy's words (its admin page `/clusters`)."""
        return tuple(name for name, is_set in zip(_FLAGS, self, strict=True) if is_set)


_FLAGS = (
    "failed_active_hc",
    "degraded_active_hc",
    "pending_active_hc",
    "excluded_via_immediate_hc_fail",
    "active_hc_timeout",
)


@dataclass(slots=True, eq=False)
class Ejection:
    """An outlier ejection in force: `until` is monotonic seconds, `reason` the detector, `details` its figures."""

    since: float
    until: float
    reason: str
    details: str = ""


class EndpointState:
    """One endpoint of one cluster.

    `live` holds a token per active request with the time it began, None once its answer has been timed: `active` is its
    size, and a token put in twice or taken out twice does no harm.
    `ejection` is set while the endpoint is ejected; `ejections` is Envoy's back-off multiplier.
    What balancers learn, None until one wants it: `seen_healthy` is when slow start first saw the endpoint healthy,
    `timing` is for peak EWMA, `reported` is what it last reported of its load, `used` how busy it then was, and when.
    For pick first: `unreached`, the last connection to it failed, and `place`, where it stands in the shuffled list.
    `out_of_reach`, where failover goes by connections: no connection can be made to it. `tripped`: its circuit breaker
    would refuse the next call.
    `probed`, what active health checks make of it; None where there are none, or none has had an answer.

    Of 10 000 cells the one picked is seldom in the processor's cache, so what every pick looks at should lie together
    at its beginning. Slots lie in the order of their names: what few look at has names after `live`.
    """

    __slots__ = (
        "address",
        "ejection",
        "ejections",
        "live",
        "out_of_reach",
        "place",
        "probed",
        "reported",
        "seen_healthy",
        "timing",
        "tripped",
        "unreached",
        "used",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.live: dict[object, float | None] = {}
        self.ejection: Ejection | None = None
        self.ejections = 0
        self.out_of_reach = False
        self.place: float | None = None
        self.probed: ActiveHealth | None = None
        self.reported: ReportedLoad | None = None
        self.seen_healthy: float | None = None
        self.timing: Latency | None = None
        self.tripped = False
        self.unreached = False
        self.used: tuple[float, float] | None = None

    @property
    def active(self) -> int:
        """Requests in flight to this endpoint, until their bodies have ended."""
        return len(self.live)

    @property
    def ejected(self) -> bool:
        """Whether outlier detection holds the endpoint out of balancing."""
        return self.ejection is not None

    @property
    def usable(self) -> bool:
        """Whether nothing that was learnt of the endpoint holds it out of balancing."""
        if self.ejection is not None or self.out_of_reach or self.tripped:
            return False
        return self.probed is None or not self.probed.failed

    @property
    def degraded(self) -> bool:
        """Whether its health checks say that it should be spared."""
        return self.probed is not None and self.probed.degraded

    @property
    def leaving(self) -> bool:
        """Whether what was learnt of it says that nobody should miss it."""
        return self.out_of_reach or (self.probed is not None and (self.probed.pending or self.probed.excluded))


class PriorityState:
    """Requests, pending requests, connections and retries in flight, for one routing priority of one cluster."""

    __slots__ = ("connections", "pending", "requests", "retries")

    def __init__(self) -> None:
        self.requests: dict[object, None] = {}
        self.pending: dict[object, None] = {}
        self.connections: dict[object, None] = {}
        self.retries: dict[object, None] = {}


STAT_NAMES = (
    "upstream_rq_total",
    "upstream_rq_completed",
    "upstream_rq_2xx",
    "upstream_rq_3xx",
    "upstream_rq_4xx",
    "upstream_rq_5xx",
    "upstream_rq_rx_reset",
    "upstream_rq_tx_reset",
    "upstream_rq_timeout",
    "upstream_rq_per_try_timeout",
    "upstream_rq_retry",
    "upstream_rq_retry_success",
    "upstream_rq_retry_backoff_exponential",
    "upstream_rq_retry_backoff_ratelimited",
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_overflow",
    "upstream_rq_active_overflow",
    "upstream_rq_pending_overflow",
    "upstream_internal_redirect_succeeded_total",
    "upstream_internal_redirect_failed_total",
    "upstream_cx_total",
    "upstream_cx_overflow",
    "upstream_cx_connect_fail",
    "retry_or_shadow_abandoned",
    "lb_healthy_panic",
    "lb_local_cluster_not_ok",
    "lb_recalculate_zone_structures",
    "lb_zone_cluster_too_small",
    "lb_zone_no_capacity_left",
    "lb_zone_routing_all_directly",
    "lb_zone_routing_cross_zone",
    "lb_zone_routing_sampled",
    *(
        f"outlier_detection.ejections_{what}_{detector}"
        for what in ("detected", "enforced")
        for detector in (
            "consecutive_5xx",
            "consecutive_gateway_failure",
            "consecutive_local_origin_failure",
            "success_rate",
            "failure_percentage",
            "local_origin_success_rate",
            "local_origin_failure_percentage",
        )
    ),
    "outlier_detection.ejections_enforced_total",
    "outlier_detection.ejections_overflow",
    "health_check.attempt",
    "health_check.success",
    "health_check.failure",
    "health_check.passive_failure",
    "health_check.network_failure",
    "health_check.verify_cluster",
)


class ClusterState:
    """One cluster: its endpoints by address, its load by routing priority, its counters by Envoy's stat names.

    `epoch` changes whenever availability does, so that a balancer's compiled view knows that it is out of date. `seed`
    is the mesh's. `circuits` are the endpoints' circuit breakers, and `tripped` says until when those that are out stay
    so.

    Of outlier detection: `ejected` holds the cells that are ejected now. `streaks` are the current streaks of failures,
    by detector, of the cells that have one, as counts whose steps are atomic. `returned_at` is when the cells came back
    whose multiplier is still to shrink. `window` is the interval under way. `detector` is that of the plan in force.
    """

    __slots__ = (
        "breaker",
        "circuits",
        "default",
        "detector",
        "ejected",
        "endpoints",
        "epoch",
        "high",
        "name",
        "returned_at",
        "seed",
        "stats",
        "streaks",
        "tripped",
        "window",
    )

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self.endpoints: dict[str, EndpointState] = {}
        self.ejected: dict[EndpointState, object] = {}
        self.returned_at: dict[EndpointState, float] = {}
        self.streaks: dict[EndpointState, dict[str, count[int]]] = {}
        self.window = Window()
        self.detector: Any = None
        self.default = PriorityState()
        self.high = PriorityState()
        self.breaker: Any = None
        self.circuits: dict[EndpointState, Any] = {}
        self.tripped: dict[EndpointState, float] = {}
        self.epoch: object = object()
        self.stats: dict[str, Counter] = {name: Counter() for name in STAT_NAMES}

    def endpoint(self, address: str) -> EndpointState:
        """The endpoint's cell, made on first use and the same ever after."""
        cell = self.endpoints.get(address)
        return cell if cell is not None else self.endpoints.setdefault(address, EndpointState(address))

    def availability_changed(self) -> None:
        """Mark compiled views as out of date: an endpoint was ejected or came back."""
        self.epoch = object()


class MeshState:
    """Every cluster's state, by name. `seed`, 64 bits, tells this mesh from others that decide the same otherwise."""

    __slots__ = ("clusters", "seed")

    def __init__(self) -> None:
        self.seed = 0
        self.clusters: dict[str, ClusterState] = {}

    def keep_only(self, names: Container[str]) -> None:
        """Forget the clusters that are not among `names`."""
        for name in list(self.clusters):
            if name not in names:
                self.clusters.pop(name, None)

    def cluster(self, name: str) -> ClusterState:
        """The cluster's state, made on first use and the same ever after."""
        state = self.clusters.get(name)
        return state if state is not None else self.clusters.setdefault(name, ClusterState(name, self.seed))
