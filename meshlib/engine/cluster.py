"""ClusterPlan: a cluster compiled for calls: its balancer, thresholds, outlier detector and breaker over its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshlib.balancing.aggregate import AggregateBalancer
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.zones import Callers
from meshlib.engine.by_request import by_request
from meshlib.engine.circuits import BreakerLike, PerEndpoint, adopt, compile_circuits
from meshlib.engine.error_matcher import compile_errors
from meshlib.engine.health import TakeOut, heeding
from meshlib.engine.lanes import by_labels
from meshlib.engine.observing import observer_of, report_taker_of
from meshlib.engine.reach import ReachLike, failing
from meshlib.model.cluster import Cluster, Thresholds
from meshlib.model.endpoint import ClusterLoadAssignment, Locality
from meshlib.model.route import RoutingPriority
from meshlib.policy.breaker import Listener
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.shared_limit import SharedRateLimit
from meshlib.state.cells import ClusterState, EndpointState, PriorityState
from meshlib.state.outliers import Window

_NOWHERE = Locality()


class ClusterPlan:
    """Read-only but for `next_sweep`, the time before which no ejected endpoint can return and no weight changes.

    `observe` hears how attempts end, `take_report` of load reports that come with gRPC trailers; None where the
    balancer learns nothing from them. `guarded`: calls have something to pass before they are balanced: limits from
    code, overload drops, (`awaited`) names that nobody has looked up yet; or the balancer asks something of them
    (`by_request`). `callers` are those whose zones count in zone aware routing. An aggregate cluster has `children`,
    and `aggregate` chooses among them. `reach` hears of connections that fail, where failover goes by those. `circuits`
    are the circuit breakers of the endpoints, None where those have none; `given` is what code gave of breakers.
    `errors` says which responses outlier detection takes for errors, where that does not go by the status. `lingering`
    are the addresses of endpoints that are there because health checks find them well, and for no other reason.
    """

    __slots__ = (
        "_default",
        "_high",
        "addresses",
        "aggregate",
        "assignment",
        "awaited",
        "balancer",
        "breaker",
        "by_request",
        "callers",
        "children",
        "circuits",
        "config",
        "connect_timeout",
        "detector",
        "drops",
        "errors",
        "given",
        "guarded",
        "lanes",
        "limits",
        "lingering",
        "locality",
        "longest_stream",
        "name",
        "next_sweep",
        "observe",
        "passthrough",
        "reach",
        "state",
        "stats",
        "take_report",
    )

    balancer: ClusterBalancer

    def __init__(
        self,
        config: Cluster,
        assignment: ClusterLoadAssignment | None,
        state: ClusterState,
        previous: ClusterPlan | None,
        limits: Sequence[SharedRateLimit] = (),
        breaker: BreakerLike | PerEndpoint | None = None,
        on_transition: Listener | None = None,
        *,
        callers: Callers | None = None,
        awaited: bool = False,
        locality: Locality = _NOWHERE,
        reach: ReachLike | None = None,
        take_out: TakeOut | None = None,
        lingering: frozenset[str] = frozenset(),
    ) -> None:
        self.name = config.name
        self.config = config
        self.assignment = assignment
        self.state = state
        self.stats = state.stats
        self.reach = reach
        self.connect_timeout = config.connect_timeout if reach is None else min(config.connect_timeout, reach.timeout)
        self.longest_stream = config.max_stream_duration
        self.passthrough = config.type == "ORIGINAL_DST"
        self.limits = tuple(limits)
        self.drops = assignment.drop_overloads if assignment else ()
        self.awaited = awaited
        self.lingering = lingering
        self.by_request = by_request(config)
        self.guarded = bool(self.limits or self.drops or awaited or self.by_request)
        self.children: tuple[ClusterPlan, ...] = ()
        self.aggregate: AggregateBalancer | None = None
        self.callers = callers
        self.locality = locality
        balanced, endpoints, self.lanes = by_labels(config, assignment, locality)
        before = previous.balancer if previous else None
        self.balancer = ClusterBalancer(balanced, endpoints, state, before, callers, locality)
        self.addresses = frozenset(host.address for host in self.balancer.hosts)
        detection = config.outlier_detection
        self.detector = OutlierDetector(detection, len(self.balancer.hosts)) if detection else None
        self.errors = compile_errors(detection.error_matcher) if detection and detection.error_matcher else None
        self.next_sweep = 0.0
        observe = observer_of(config.lb_policy, config.load_aware)
        self.observe = observe if reach is None else failing(reach, observe)
        if config.health_checks and take_out is not None:
            self.observe = heeding(take_out, self.observe)
        self.take_report = report_taker_of(config.lb_policy, config.load_aware)
        self._default = (state.default, config.circuit_breakers.default)
        self._high = (state.high, config.circuit_breakers.high)
        self.given = breaker
        self.breaker, self.circuits = compile_circuits(
            breaker, config.circuit_breaker, config.name, state, on_transition
        )

    def adopt(self, now: float | None = None) -> list[EndpointState]:
        """The plan is in force: only now does the state follow it, for a plan that is refused must change nothing.
        `now` is when endpoints that it brings have joined; without it that is the next pick. The endpoints that are let
        back by that.
        """
        state = self.state
        if now is not None:
            self.balancer.begin(now)
        _forget_gone(state, self.addresses)
        state.detector = self.detector
        returned = _let_back(state) if self.detector is None else []
        adopt(state, self.config.circuit_breaker, self.circuits, self.given is None)
        if self.given is None:
            state.breaker = self.breaker
            if state.breaker is not None:
                state.breaker.policy = self.config.circuit_breaker
        return returned

    def thresholds(self, priority: RoutingPriority) -> tuple[PriorityState, Thresholds]:
        """The load and the limits of one routing priority."""
        return self._high if priority == "HIGH" else self._default


def _forget_gone(state: ClusterState, addresses: frozenset[str]) -> None:
    """Drop the cells of endpoints that have left, or addresses that come and go would pile up for ever. Requests still
    in flight hold their own cell; an address that returns starts anew, as a new host does in Envoy.
    """
    for address, cell in list(state.endpoints.items()):
        if address not in addresses:
            state.endpoints.pop(address, None)
            state.ejected.pop(cell, None)
            state.returned_at.pop(cell, None)
            state.streaks.pop(cell, None)
            state.circuits.pop(cell, None)
            state.tripped.pop(cell, None)


def _let_back(state: ClusterState) -> list[EndpointState]:
    """Without outlier detection nothing would ever let an ejected endpoint return; should there be one again, it
    begins anew.
    """
    ejected, returned = list(state.ejected), list(state.returned_at)
    for cell in (*ejected, *returned):
        cell.ejection, cell.ejections = None, 0
        state.ejected.pop(cell, None)
        state.returned_at.pop(cell, None)
    state.window = Window()
    if ejected:
        state.availability_changed()
    return ejected


def reusable(
    previous: ClusterPlan | None,
    config: Cluster,
    assignment: ClusterLoadAssignment | None,
    limits: Mapping[str, Sequence[SharedRateLimit]],
    breakers: Mapping[str, BreakerLike | PerEndpoint],
    callers: Callers | None = None,
    awaited: bool = False,
    reach: ReachLike | None = None,
) -> bool:
    """Whether a plan of the last snapshot still says the same. Identity first: equality of 10 000 endpoints is slow."""
    if previous is None:
        return False
    return (
        (previous.config is config or previous.config == config)
        and (previous.assignment is assignment or previous.assignment == assignment)
        and (previous.callers is callers or previous.callers == callers)
        and previous.awaited is awaited
        and previous.reach is reach
        and previous.limits == tuple(limits.get(config.name, ()))
        and (config.name not in breakers or previous.given is breakers[config.name])
    )
