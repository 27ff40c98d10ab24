"""The subsets that routes ask for, made when a plan is: no large table is left to the first request that needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.route import criteria_of
from meshlib.model.metadata import Struct
from meshlib.model.route import Route, RouteAction, RouteConfiguration, WeightedClusters
from meshlib.model.snapshot import Snapshot


def prepare_subsets(snapshot: Snapshot, clusters: Mapping[str, ClusterPlan]) -> None:
    """Compile the views of all subsets that a route names by its cluster. Those there already cost a look-up."""
    with_subsets = {name: plan for name, plan in clusters.items() if plan.config.subsets is not None}
    if not with_subsets:
        return
    for name, criteria in {pair for table in _tables(snapshot) for pair in _asked(table)}:
        if name in with_subsets:
            with_subsets[name].balancer.view(criteria)


def _tables(snapshot: Snapshot) -> Iterator[RouteConfiguration]:
    yield from snapshot.routes.values()
    for listener in snapshot.listeners.values():
        for manager in listener.managers:
            yield from snapshot.routes_inside(manager)


def _asked(table: RouteConfiguration) -> Iterator[tuple[str, Struct]]:
    for host in table.virtual_hosts:
        for route in host.routes:
            yield from _of(route)


def _of(route: Route) -> Iterator[tuple[str, Struct]]:
    action = route.action
    if not isinstance(action, RouteAction):
        return
    if isinstance(action.cluster, str):
        yield action.cluster, criteria_of(None, route)
    elif isinstance(action.cluster, WeightedClusters):
        for share in action.cluster.clusters:
            yield share.name, criteria_of(share, route)
