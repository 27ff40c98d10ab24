"""What must hold between resources: one of a name, and names that lead somewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from meshlib.model.report import Issue
from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.matched_routes import routes_of
from meshlib.sources.files.resources import LoadedResource
from meshlib.sources.files.schema import Problem
from meshlib.sources.files.type_registry import (
    ASSIGNMENT,
    CLUSTER,
    LISTENER,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    message_class,
)

_AGGREGATE = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def check_duplicates(resources: Iterable[LoadedResource]) -> Iterator[Issue]:
    """An error for each second resource of a type and name, naming both places."""
    first: dict[tuple[str, str], LoadedResource] = {}
    for resource in resources:
        other = first.setdefault((resource.type_name, resource.name), resource)
        if other is not resource:
            problem = Problem((), f"defined twice: {other.origin} has it already", "rename or remove one of the two")
            yield resource.origin.issue(problem, resource.label)


def check_references(resources: Iterable[LoadedResource], targets: Iterable[LoadedResource]) -> Iterator[Issue]:
    """Routes to clusters, listeners to route configurations, clusters to endpoints: whether `targets` has them."""
    known: dict[str, dict[str, LoadedResource]] = {}
    for resource in targets:
        known.setdefault(resource.type_name, {})[resource.name] = resource
    clusters = known.get(CLUSTER, {})
    for resource in resources:
        if resource.type_name == LISTENER:
            yield from _check_listener(resource, clusters, known.get(ROUTE_CONFIGURATION, {}))
        elif resource.type_name == ROUTE_CONFIGURATION and not resource.checked:
            yield from _check_routes(resource, resource.message, (), clusters, strict=False)
        elif resource.type_name == SCOPED_ROUTE_CONFIGURATION:
            yield from _check_scope(resource, clusters, known.get(ROUTE_CONFIGURATION, {}))
        elif resource.type_name == CLUSTER:
            yield from _check_cluster(resource, known.get(ASSIGNMENT, {}), clusters)


def _check_listener(
    resource: LoadedResource, clusters: dict[str, LoadedResource], tables: dict[str, LoadedResource]
) -> Iterator[Issue]:
    for manager, path in _connection_managers(resource.message):
        if manager.HasField("route_config"):
            # Envoy refuses an inline route to an unknown cluster (validate_clusters is true by default there).
            yield from _check_routes(resource, manager.route_config, (*path, "route_config"), clusters, strict=True)
        elif manager.HasField("scoped_routes"):
            scopes = ("scoped_routes", "scoped_route_configurations_list", "scoped_route_configurations")
            inline = manager.scoped_routes.scoped_route_configurations_list.scoped_route_configurations
            for index, scope in enumerate(inline):
                where = (*path, *scopes, index, "route_configuration")
                yield from _check_routes(resource, scope.route_configuration, where, clusters, strict=True)
        elif manager.HasField("rds") and manager.rds.route_config_name not in tables:
            name = manager.rds.route_config_name
            problem = Problem(
                (*path, "rds", "route_config_name"), f"no RouteConfiguration {name!r} is in the files",
                _known(tables, "define it or write route_config inline"), "degraded",
            )  # fmt: skip
            yield resource.origin.issue(problem, resource.label)


def _check_scope(
    resource: LoadedResource, clusters: dict[str, LoadedResource], tables: dict[str, LoadedResource]
) -> Iterator[Issue]:
    scope: Any = resource.message
    if scope.HasField("route_configuration"):
        yield from _check_routes(resource, scope.route_configuration, ("route_configuration",), clusters, strict=False)
    elif scope.route_configuration_name and scope.route_configuration_name not in tables:
        problem = Problem(
            ("route_configuration_name",), f"no RouteConfiguration {scope.route_configuration_name!r} is in the files",
            _known(tables, "define it or write route_configuration inline"), "degraded",
        )  # fmt: skip
        yield resource.origin.issue(problem, resource.label)


def _connection_managers(listener: Any) -> Iterator[tuple[Any, FieldPath]]:
    places: list[tuple[Any, FieldPath]] = [
        (entry.typed_config, ("filter_chains", i, "filters", j, "typed_config"))
        for i, chain in enumerate(listener.filter_chains)
        for j, entry in enumerate(chain.filters)
    ]
    places += [
        (entry.typed_config, ("default_filter_chain", "filters", j, "typed_config"))
        for j, entry in enumerate(listener.default_filter_chain.filters)
    ]
    places.append((listener.api_listener.api_listener, ("api_listener", "api_listener")))
    for packed, path in places:
        if packed.type_url.rpartition("/")[2] == _HCM:
            cls: Any = message_class(_HCM)
            yield cls.FromString(packed.value), path


def _check_routes(
    resource: LoadedResource, table: Any, path: FieldPath, clusters: dict[str, LoadedResource], *, strict: bool
) -> Iterator[Issue]:
    if table.HasField("validate_clusters"):
        strict = table.validate_clusters.value
    for i, host in enumerate(table.virtual_hosts):
        for route, where in routes_of(host):
            if not route.HasField("route"):
                continue
            for name, steps in _cluster_names(route.route):
                if name in clusters:
                    continue
                place = (*path, "virtual_hosts", i, *where, "route", *steps)
                fix = _known(clusters, "define the cluster")
                reason = f"no cluster {name!r} is in the files"
                severity: Literal["error", "degraded"] = "error" if strict else "degraded"
                yield resource.origin.issue(Problem(place, reason, fix, severity), resource.label)


def _cluster_names(action: Any) -> Iterator[tuple[str, FieldPath]]:
    if action.cluster:
        yield action.cluster, ("cluster",)
    for index, share in enumerate(action.weighted_clusters.clusters):
        if share.name:  # otherwise named by cluster_header, at request time
            yield share.name, ("weighted_clusters", "clusters", index, "name")
    for index, policy in enumerate(action.request_mirror_policies):
        if policy.cluster:
            yield policy.cluster, ("request_mirror_policies", index, "cluster")


def _check_aggregate(resource: LoadedResource, packed: Any, clusters: dict[str, LoadedResource]) -> Iterator[Issue]:
    cls: Any = message_class(_AGGREGATE)
    for index, name in enumerate(cls.FromString(packed.value).clusters):
        if name not in clusters:
            place = ("cluster_type", "typed_config", "clusters", index)
            fix = _known(clusters, "define the cluster")
            problem = Problem(place, f"no cluster {name!r} is in the files", fix, "degraded")
            yield resource.origin.issue(problem, resource.label)


def _check_cluster(
    resource: LoadedResource, assignments: dict[str, LoadedResource], clusters: dict[str, LoadedResource]
) -> Iterator[Issue]:
    cluster: Any = resource.message
    if cluster.WhichOneof("cluster_discovery_type") == "cluster_type":
        packed = cluster.cluster_type.typed_config
        if packed.type_url.rpartition("/")[2] == _AGGREGATE:
            yield from _check_aggregate(resource, packed, clusters)
        return
    kind = type(cluster).DiscoveryType.Name(cluster.type)
    if kind == "ORIGINAL_DST":
        return
    path: FieldPath = ("load_assignment",)
    found: Any = cluster.load_assignment
    missing = "the cluster has no endpoints"
    if kind == "EDS":
        name = cluster.eds_cluster_config.service_name or resource.name
        path, found = ("eds_cluster_config",), getattr(assignments.get(name), "message", None)
        missing = f"no ClusterLoadAssignment {name!r} is in the files"
    if found is None or not any(locality.lb_endpoints for locality in found.endpoints):
        reason = missing if found is None else "the cluster has no endpoints"
        problem = Problem(path, reason, "until it has some its calls fail with UH", "degraded")
        yield resource.origin.issue(problem, resource.label)


def _known(names: Iterable[str], otherwise: str) -> str:
    listed = sorted(names)
    return (
        f"{otherwise}; known: {', '.join(listed[:8])}" + (", ..." if len(listed) > 8 else "") if listed else otherwise
    )
