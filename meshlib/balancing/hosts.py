"""From an assignment to hosts: made once for each endpoint and kept as long as updates say the same about it."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balancing.base import Host
from meshlib.balancing.locality import LocalityHosts
from meshlib.balancing.parts import PrioritySet
from meshlib.model.endpoint import ClusterLoadAssignment, Locality
from meshlib.state.cells import ClusterState

Place = tuple[int, Locality]


def hosts_of(assignment: ClusterLoadAssignment, state: ClusterState, before: Sequence[Host]) -> tuple[Host, ...]:
    """A host for each address, first come first counted, with its cell of the cluster's state."""
    old = {host.address: host for host in before}
    found: dict[str, Host] = {}
    for group in assignment.localities:
        locality, priority = group.locality, group.priority
        for endpoint in group.endpoints:
            address = str(endpoint.address)
            if address in found:
                continue
            cell = state.endpoint(address)
            host = old.get(address)
            if (
                host is None
                or host.cell is not cell
                or host.priority != priority
                or host.endpoint != endpoint
                or host.locality != locality
            ):
                host = Host(endpoint, cell, address, locality, priority)
            found[address] = host
    return tuple(found.values())


def by_priority(assignment: ClusterLoadAssignment, hosts: Sequence[Host], locality_weighted: bool) -> PrioritySet:
    """The hosts by priority and locality; priorities that nobody mentions are empty.

    Localities are in Envoy's order, because a hash ring depends on it: by region, zone and sub-zone where they are
    weighted, else as they come.
    """
    members: dict[Place, list[Host]] = {}
    for host in hosts:
        members.setdefault((host.priority, host.locality), []).append(host)
    weights = {(group.priority, group.locality): group.weight or 0 for group in assignment.localities}
    count = max((group.priority for group in assignment.localities), default=-1) + 1
    priorities: list[list[LocalityHosts]] = [[] for _ in range(count)]
    for place in sorted(members, key=_order) if locality_weighted else members:
        priority, locality = place
        priorities[priority].append(LocalityHosts(locality, weights[place], tuple(members[place])))
    return tuple(map(tuple, priorities))


def _order(place: Place) -> tuple[int, str, str, str]:
    priority, locality = place
    return priority, locality.region, locality.zone, locality.sub_zone
