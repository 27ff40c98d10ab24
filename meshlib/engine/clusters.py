"""The clusters of a plan: compiled one by one, taken over from the plan before where nothing about them has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from meshlib.balancing.zones import Callers, callers_of
from meshlib.engine.aggregate import AggregatePlan, leaves
from meshlib.engine.cluster import ClusterPlan, reusable
from meshlib.engine.lingering import with_lingering
from meshlib.engine.reach import ReachLike
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Locality
from meshlib.model.report import in_resource
from meshlib.model.snapshot import Snapshot
from meshlib.state.cells import MeshState

if TYPE_CHECKING:
    from meshlib.engine.plan import Attached

_NOWHERE = Locality()


def compile_clusters(
    snapshot: Snapshot, state: MeshState, attached: Attached, old: Mapping[str, ClusterPlan]
) -> dict[str, ClusterPlan]:
    """By name. Raises `ResourceError`."""
    locality = _locality(snapshot, attached)
    callers = _callers(snapshot, attached, locality)
    members = _members(snapshot) if attached.reach is not None else ()
    clusters: dict[str, ClusterPlan] = {}
    aggregates: list[Cluster] = []
    for name, config in snapshot.clusters.items():
        if config.type == "AGGREGATE":
            aggregates.append(config)
        else:
            reach = attached.reach if name in members or _has_priorities(config, snapshot) else None
            clusters[name] = _compiled(config, snapshot, state, attached, callers, locality, reach, old.get(name))
    for config in aggregates:  # last, because they are made of the others
        clusters[config.name] = _aggregate(config, snapshot, state, attached, clusters, old.get(config.name))
    return clusters


def _compiled(
    config: Cluster,
    snapshot: Snapshot,
    state: MeshState,
    attached: Attached,
    callers: Callers | None,
    locality: Locality,
    reach: ReachLike | None,
    last: ClusterPlan | None,
) -> ClusterPlan:
    name, assignment = config.name, snapshot.assignment(config)
    awaited = assignment is None and snapshot.resolved is not None and config.by_dns
    assignment, lingering = with_lingering(config, assignment, last.balancer.hosts if last is not None else ())
    here = locality if config.nearby is not None or config.load_aware is not None else _NOWHERE
    if (
        last is not None
        and last.locality == here
        and last.lingering == lingering
        and reusable(last, config, assignment, attached.limits, attached.breakers, callers, awaited, reach)
    ):
        return last
    with in_resource(f"Cluster {name}"):
        return ClusterPlan(
            config,
            assignment,
            state.cluster(name),
            last,
            attached.limits.get(name, ()),
            attached.breakers.get(name),
            attached.on_transition,
            callers=callers,
            awaited=awaited,
            locality=here,
            reach=reach,
            take_out=attached.take_out,
            lingering=lingering,
        )


def _members(snapshot: Snapshot) -> frozenset[str]:
    """The clusters below aggregate clusters: failover is from one to the next."""
    aggregates = [name for name, config in snapshot.clusters.items() if config.type == "AGGREGATE"]
    return frozenset(name for aggregate in aggregates for name in leaves(aggregate, snapshot.clusters))


def _has_priorities(config: Cluster, snapshot: Snapshot) -> bool:
    """Whether it has endpoints to fail over to."""
    assignment = snapshot.assignment(config)
    return assignment is not None and len({group.priority for group in assignment.localities}) > 1


def _aggregate(
    config: Cluster,
    snapshot: Snapshot,
    state: MeshState,
    attached: Attached,
    clusters: Mapping[str, ClusterPlan],
    last: ClusterPlan | None,
) -> ClusterPlan:
    name = config.name
    with in_resource(f"Cluster {name}"):
        children = tuple(clusters[child] for child in leaves(name, snapshot.clusters))
        same = isinstance(last, AggregatePlan) and last.children == children
        if (
            last is not None
            and same
            and reusable(last, config, None, attached.limits, attached.breakers, None, last.awaited)
        ):
            return last
        limits, breaker = attached.limits.get(name, ()), attached.breakers.get(name)
        return AggregatePlan(config, children, state.cluster(name), last, limits, breaker, attached.on_transition)


def _locality(snapshot: Snapshot, attached: Attached) -> Locality:
    """Where this process is: as it was told, else as the source knows."""
    told = attached.local.locality
    return told if told != _NOWHERE else snapshot.local.locality


def _callers(snapshot: Snapshot, attached: Attached, locality: Locality) -> Callers | None:
    """The cluster this process is an endpoint of, where it and the process's own locality are known."""
    told, known = attached.local, snapshot.local
    own = snapshot.clusters.get(told.cluster or known.cluster)
    assignment = snapshot.assignment(own) if own is not None else None
    if assignment is None or locality == _NOWHERE:
        return None
    return callers_of(assignment, locality)
