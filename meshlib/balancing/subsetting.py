"""Random subsetting (gRFC A68): a process uses some of the endpoints, which ones follows from its own seed.

Rendezvous hashing: the endpoints are ordered by the hash of their address with the seed, and the first ones count. So
one endpoint that comes or goes changes one place of the subset at most, and over many processes every endpoint is used
by about as many of them.
"""

from __future__ import annotations

from dataclasses import replace

from meshlib.balancing.base import NOT_SERVING
from meshlib.balancing.hashing import Hash64, seeded_xxhash
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.lb import RandomSubsetting


def subset_of(assignment: ClusterLoadAssignment, policy: RandomSubsetting, seed: int) -> ClusterLoadAssignment:
    """The assignment with only the endpoints of the subset, of each priority or of each of its localities.

    Endpoints that the control plane says cannot serve take no place in it; one that is ejected keeps its place. Where
    no more endpoints can serve than the subset has places, nothing is left out. `ResourceError` without xxhash.
    """
    digest = seeded_xxhash(seed)
    places = [
        (group.priority, index if policy.per_locality else 0) for index, group in enumerate(assignment.localities)
    ]
    whole: dict[tuple[int, int], list[LbEndpoint]] = {}
    for place, group in zip(places, assignment.localities, strict=True):
        whole.setdefault(place, []).extend(group.endpoints)
    kept = {place: _kept(endpoints, policy.subset_size, digest) for place, endpoints in whole.items()}
    groups = zip(places, assignment.localities, strict=True)
    return replace(assignment, localities=tuple(_with(group, kept[place]) for place, group in groups))


def _kept(endpoints: list[LbEndpoint], size: int, digest: Hash64) -> frozenset[Address] | None:
    """The addresses of the subset, None for all."""
    # An address that comes twice is one endpoint.
    serving = dict.fromkeys(endpoint.address for endpoint in endpoints if endpoint.health_status not in NOT_SERVING)
    if len(serving) <= size:
        return None
    return frozenset(sorted(serving, key=lambda address: digest(str(address).encode()))[:size])


def _with(group: LocalityLbEndpoints, kept: frozenset[Address] | None) -> LocalityLbEndpoints:
    if kept is None:
        return group
    return replace(group, endpoints=tuple(endpoint for endpoint in group.endpoints if endpoint.address in kept))
