"""Aggregate clusters at run time: each attempt goes to one of the clusters below, which is then the attempt's cluster:
its limits, outlier detection, breaker, TLS and counters count (Envoy: "Aggregate cluster"; gRFC A37).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from meshlib.balancing.aggregate import AggregateBalancer
from meshlib.balancing.base import Host
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.engine.circuits import BreakerLike, PerEndpoint
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.judging import sweep
from meshlib.model.cluster import Cluster
from meshlib.model.report import ResourceError
from meshlib.policy.breaker import Listener
from meshlib.policy.shared_limit import SharedRateLimit
from meshlib.state.cells import ClusterState

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts
    from meshlib.engine.runtime import Runtime

MAX_DEPTH = 16
ALWAYS = float("-inf")


class AggregatePlan(ClusterPlan):
    """`children` are the clusters it leads to, those of nested aggregates in their place. Its own limits from code
    count; its thresholds, outlier detection and breaker do not, for its endpoints are not its own.
    """

    __slots__ = ()

    def __init__(
        self,
        config: Cluster,
        children: Sequence[ClusterPlan],
        state: ClusterState,
        previous: ClusterPlan | None,
        limits: Sequence[SharedRateLimit] = (),
        breaker: BreakerLike | PerEndpoint | None = None,
        on_transition: Listener | None = None,
    ) -> None:
        super().__init__(config, None, state, previous, limits, breaker, on_transition)
        self.children = tuple(children)
        self.aggregate = AggregateBalancer([child.balancer for child in children], config.healthy_panic_threshold)
        self.next_sweep = ALWAYS  # so that the attempt loop, which looks at this anyway, finds out
        # Those that come first are waited for, though there may be others: as gRPC waits before it fails over (A56).
        self.awaited = next((child.awaited for child in children if child.awaited or _serves(child)), False)
        self.guarded = self.guarded or self.awaited


def _serves(child: ClusterPlan) -> bool:
    return any(count.healthy or count.degraded for count in child.balancer.whole().counts)


def leaves(name: str, clusters: Mapping[str, Cluster]) -> tuple[str, ...]:
    """The clusters that an aggregate leads to, in order of priority, each where it comes first; those that do not exist
    are left out. Raises `ResourceError` when it leads to itself, or is nested more than 16 deep.
    """
    found: dict[str, None] = {}
    _descend(name, clusters, (), found)
    return tuple(found)


def _descend(name: str, clusters: Mapping[str, Cluster], above: tuple[str, ...], found: dict[str, None]) -> None:
    if name in above:
        raise ResourceError("cluster_type", f"the aggregate leads to itself: {' → '.join((*above, name))}")
    config = clusters.get(name)
    if config is None:
        return
    if config.type != "AGGREGATE":
        found.setdefault(name)
        return
    if len(above) >= MAX_DEPTH:
        raise ResourceError("cluster_type", f"aggregates are nested more than {MAX_DEPTH} deep")
    for child in config.clusters:
        _descend(child, clusters, (*above, name), found)


def pick_child(call: Attempts, now: float) -> Host | None:
    """The endpoint of an attempt of a call to an aggregate; the child it belongs to becomes the call's cluster."""
    aggregate, rng = call.decision.cluster, call.runtime.rng
    choice = aggregate.aggregate.choose(rng) if aggregate.aggregate is not None else None
    if choice is None:
        return call.stand_in
    child = aggregate.children[choice.child]
    _turn_to(call, child)
    if now >= child.next_sweep:
        sweep(call.runtime, child, now)
    avoid, again = call.avoided() if call.tried else ((), 0)
    host = child.balancer.pick_in(
        choice.priority, choice.degraded, call.request_hash, call.share.criteria, rng, avoid, again
    )
    if child.balancer.in_panic:
        child.stats["lb_healthy_panic"].add()
    if child.balancer.needs_refresh:
        refresh(child.balancer, call.runtime)
    return host


def refresh(balancer: ClusterBalancer, runtime: Runtime) -> None:
    """Have an outdated balancer compiled anew, off the thread of the call."""
    balancer.needs_refresh = False  # one call is enough to ask
    runtime.background(balancer.refresh)


def _turn_to(call: Attempts, child: ClusterPlan) -> None:
    retrying = call in call.load.retries
    if retrying:  # what a retry holds is given back where it was taken
        call.load.retries.pop(call, None)
    call.cluster = child
    call.info.cluster = child.name
    call.load, call.thresholds = child.thresholds(call.action.priority)
    if retrying:
        call.load.retries[call] = None
