"""What to publish in place of a snapshot that cannot be compiled: the rest of it, with the last good of one resource.

A resource may decode well and still make no plan (a regular expression that RE2 finds too large, a hash without its
package). It was acknowledged by then; what is left is to keep it from holding back everybody else's configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.listener import Listener
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.decode.references import references

T = TypeVar("T")


def with_last_good(snapshot: Snapshot, refused: str, good: Snapshot | None) -> Snapshot | None:
    """`snapshot` with what `good` has in place of the refused resource, or without it; None when it has no such one.

    `refused` is a `ResourceError.resource`: "RouteConfiguration NAME" or "Cluster NAME". A route configuration inside
    a listener stands and falls with its listener. Clusters that only the last good routes use come back with them.
    """
    good = good or Snapshot()
    kind, _, name = refused.partition(" ")
    if kind == "Cluster" and name in snapshot.clusters:
        clusters = _put_back(snapshot.clusters, good.clusters, name)
        return _with_endpoints(replace(snapshot, clusters=clusters), good)
    if kind != "RouteConfiguration":
        return None
    if name in snapshot.routes:
        routes = _put_back(snapshot.routes, good.routes, name)
        return _with_clusters(replace(snapshot, routes=routes), good, (routes[name],) if name in routes else ())
    inside = [key for key, listener in snapshot.listeners.items() if _has_inside(listener, name)]
    listeners = snapshot.listeners
    for key in inside:
        listeners = _put_back(listeners, good.listeners, key)
    back = [listeners[key] for key in inside if key in listeners]
    return _with_clusters(replace(snapshot, listeners=listeners), good, back) if inside else None


def _put_back(found: Mapping[str, T], good: Mapping[str, T], name: str) -> dict[str, T]:
    """Without the named one, or with the good one in its place; the same one is not good twice."""
    rest = {key: value for key, value in found.items() if key != name}
    last = good.get(name)
    return rest if last is None or last == found[name] else {**rest, name: last}


def _has_inside(listener: Listener, name: str) -> bool:
    return any(config.name == name for manager in listener.managers for config in Snapshot().routes_inside(manager))


def _with_clusters(snapshot: Snapshot, good: Snapshot, back: Iterable[Listener | RouteConfiguration]) -> Snapshot:
    wanted = frozenset[str]().union(*(references(resource).clusters for resource in back)) - set(snapshot.clusters)
    missing: dict[str, Cluster] = {name: good.clusters[name] for name in wanted if name in good.clusters}
    return _with_endpoints(replace(snapshot, clusters={**snapshot.clusters, **missing}), good) if missing else snapshot


def _with_endpoints(snapshot: Snapshot, good: Snapshot) -> Snapshot:
    missing: dict[str, ClusterLoadAssignment] = {
        name: good.endpoints[name]
        for cluster in snapshot.clusters.values()
        for name in references(cluster).endpoints
        if name not in snapshot.endpoints and name in good.endpoints
    }
    return replace(snapshot, endpoints={**snapshot.endpoints, **missing}) if missing else snapshot
