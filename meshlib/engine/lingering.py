"""Endpoints that service discovery no longer names, and that health checks find well: Envoy goes on with them until a
check fails, for discovery is often late or wrong (`BaseDynamicClusterImpl::updateDynamicHostList`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from meshlib.balancing.base import NOT_SERVING, Host
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, LocalityLbEndpoints

DYNAMIC = ("EDS", "STRICT_DNS")


def with_lingering(
    config: Cluster, assignment: ClusterLoadAssignment | None, hosts: Sequence[Host]
) -> tuple[ClusterLoadAssignment | None, frozenset[str]]:
    """The assignment with those of the `hosts` so far that stay all the same, and their addresses."""
    if assignment is None or not _keeps(config):
        return assignment, frozenset()
    named = {str(endpoint.address) for group in assignment.localities for endpoint in group.endpoints}
    stay = [host for host in hosts if host.address not in named and _well(host)]
    if not stay:
        return assignment, frozenset()
    return replace(assignment, localities=_joined(assignment, stay)), frozenset(host.address for host in stay)


def _keeps(config: Cluster) -> bool:
    always = config.health_checks and config.health_checks_when == "always"
    return bool(always) and config.type in DYNAMIC and not config.ignore_health_on_host_removal


def _well(host: Host) -> bool:
    probed = host.cell.probed
    return probed is not None and not probed.failed and host.health not in NOT_SERVING


def _joined(assignment: ClusterLoadAssignment, hosts: Sequence[Host]) -> tuple[LocalityLbEndpoints, ...]:
    groups = {(group.priority, group.locality): group for group in assignment.localities}
    for host in hosts:
        place = host.priority, host.locality
        group = groups.get(place) or LocalityLbEndpoints((), host.locality, host.priority)
        groups[place] = replace(group, endpoints=(*group.endpoints, host.endpoint))
    return tuple(groups.values())
