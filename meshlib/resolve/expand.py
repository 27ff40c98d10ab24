"""A DNS cluster's endpoints with addresses in place of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.resolve.names import Question

Known = Callable[[str], "tuple[str, ...] | None"]


def names_of(cluster: Cluster) -> Iterator[Question]:
    """What has to be resolved for it."""
    if cluster.by_dns and cluster.load_assignment is not None:
        for group in cluster.load_assignment.localities:
            for endpoint in group.endpoints:
                if not endpoint.address.is_literal:
                    yield Question(endpoint.address.host, cluster.dns)


def expand(cluster: Cluster, known: Known) -> ClusterLoadAssignment:
    """STRICT_DNS: every address is an endpoint, with the weight, health, metadata, locality and priority of the name's.
    LOGICAL_DNS: the one endpoint keeps its name, and connections are opened to the first address, or with the family
    ALL to the first of them that answers. Names without addresses are left out.
    """
    assignment = cluster.load_assignment or ClusterLoadAssignment(cluster.name)
    each = _logical if cluster.type == "LOGICAL_DNS" else _strict
    groups = tuple(_group(group, cluster, known, each) for group in assignment.localities)
    return replace(assignment, localities=groups)


_Each = Callable[[LbEndpoint, Cluster, "tuple[str, ...]"], Iterator[LbEndpoint]]


def _group(group: LocalityLbEndpoints, cluster: Cluster, known: Known, each: _Each) -> LocalityLbEndpoints:
    found: list[LbEndpoint] = []
    for endpoint in group.endpoints:
        if endpoint.address.is_literal:
            found.append(endpoint)
        else:
            found.extend(each(endpoint, cluster, known(endpoint.address.host) or ()))
    return replace(group, endpoints=tuple(found))


def _strict(endpoint: LbEndpoint, cluster: Cluster, addresses: tuple[str, ...]) -> Iterator[LbEndpoint]:
    name, port = endpoint.address.host, endpoint.address.port
    for address in sorted(addresses):  # servers turn their answers round: that changes nothing
        yield replace(endpoint, address=Address(address, port), hostname=endpoint.hostname or name)


def _logical(endpoint: LbEndpoint, cluster: Cluster, addresses: tuple[str, ...]) -> Iterator[LbEndpoint]:
    used = addresses if cluster.dns.lookup_family == "ALL" else addresses[:1]
    if used:
        dial = tuple(Address(address, endpoint.address.port) for address in used)
        yield replace(endpoint, dial=dial, hostname=endpoint.hostname or endpoint.address.host)
