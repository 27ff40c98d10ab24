"""Plan: a snapshot compiled for calls. Built off the hot path, read-only, put into force by one store.

A call loads the plan once and keeps it, so it never sees a route of one version with a cluster of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshlib.engine.circuits import BreakerLike, PerEndpoint
from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.clusters import compile_clusters
from meshlib.engine.filter_states import FilterStates
from meshlib.engine.filters import Filter
from meshlib.engine.health import TakeOut
from meshlib.engine.lanes import lane_rules
from meshlib.engine.outbound import Outbound, listener_names
from meshlib.engine.prepare import prepare_subsets
from meshlib.engine.reach import ReachLike
from meshlib.engine.table import VirtualHostPlan
from meshlib.model.snapshot import Snapshot
from meshlib.model.zones import NOWHERE, Local
from meshlib.policy.breaker import Listener
from meshlib.policy.shared_limit import SharedRateLimit
from meshlib.state.cells import MeshState

if TYPE_CHECKING:
    from meshlib.engine.decision import Decision
    from meshlib.model.request import RequestHead


@dataclass(slots=True)
class Attached:
    """Policies from code, by cluster name: they stay whatever the control plane says. Breakers may be a route's,
    too, by `virtual host/route`.

    `on_transition` hears of every breaker, whoever configured it. `local`: where this process is, before what the
    source says of it. `reach`: who keeps track of connections, where failover goes by them. `take_out`: who hears of
    endpoints that take themselves out, where health is checked. `filters` follow those of the routes that lead to a
    cluster.
    """

    limits: Mapping[str, Sequence[SharedRateLimit]] = field(default_factory=dict)
    breakers: Mapping[str, BreakerLike | PerEndpoint] = field(default_factory=dict)
    on_transition: Listener | None = None
    local: Local = NOWHERE
    reach: ReachLike | None = None
    take_out: TakeOut | None = None
    filters: Mapping[str, Sequence[Filter]] = field(default_factory=dict)


class Plan:
    """What to do, for every authority and cluster of one snapshot. `decided` remembers the decisions for shared heads
    (`decide_once`).
    """

    __slots__ = ("absent", "clusters", "decided", "lanes", "on_demand", "outbound", "snapshot", "version")

    outbound: Outbound
    clusters: dict[str, ClusterPlan]

    def __init__(
        self,
        snapshot: Snapshot,
        state: MeshState,
        filters: FilterStates,
        attached: Attached,
        previous: Plan | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.decided: dict[RequestHead, Decision] = {}
        self.version = snapshot.version
        self.on_demand = snapshot.on_demand
        self.absent = snapshot.absent
        filters.instances = _instances(snapshot, attached)
        filters.source_cluster = snapshot.local.service or attached.local.cluster or snapshot.local.cluster
        self.outbound = Outbound(snapshot, filters, previous.outbound if previous else None)
        self.lanes = lane_rules(snapshot.clusters.values())
        self.clusters = compile_clusters(snapshot, state, attached, previous.clusters if previous else {})
        prepare_subsets(snapshot, self.clusters)

    def find(self, scheme: str, authority: str) -> VirtualHostPlan | None:
        """The virtual host that speaks for an authority."""
        return self.outbound.find(scheme, authority)

    def may_come(self, scheme: str, authority: str) -> bool:
        """Whether an authority that is not there may still be fetched: the source is asked by name, and has neither
        given a listener of that name nor said that there is none. The same of virtual hosts that come on demand.
        """
        if self.outbound.awaited(scheme, authority):
            return True
        if not self.on_demand or self.named(scheme, authority):
            return False
        return not any(name in self.absent for name in listener_names(scheme, authority))

    def named(self, scheme: str, authority: str) -> bool:
        """Whether there is an API listener of the authority's name. It says all there is to say of the authority, even
        where none of its virtual hosts speaks for it.
        """
        return any(name in self.outbound.named for name in listener_names(scheme, authority))


def _instances(snapshot: Snapshot, attached: Attached) -> int:
    """How many endpoints the cluster has that this process is one of, 1 where it is not known."""
    own = snapshot.clusters.get(attached.local.cluster or snapshot.local.cluster)
    assignment = snapshot.assignment(own) if own is not None else None
    return max(1, sum(len(group.endpoints) for group in assignment.localities)) if assignment is not None else 1
