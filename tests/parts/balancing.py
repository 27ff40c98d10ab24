"""Clusters of made-up endpoints for the tests of balancing: a balancer in a line, and counts of what it picks."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from meshlib.balancing.base import Rng
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.metadata import EMPTY_METADATA, EMPTY_STRUCT, Metadata, Struct
from meshlib.state.cells import ClusterState, Ejection


class FirstRng:
    """Always 0.0: sequences start at their first item."""

    def random(self) -> float:
        return 0.0


def endpoint(
    number: int, weight: int = 1, health: Any = "HEALTHY", hostname: str = "", **lb_metadata: object
) -> LbEndpoint:
    """Endpoint `10.0.x.y:80`; keywords are its `envoy.lb` metadata."""
    metadata = Metadata.of({"envoy.lb": lb_metadata}) if lb_metadata else EMPTY_METADATA
    return LbEndpoint(Address(f"10.0.{number >> 8}.{number & 255}", 80), weight, health, hostname, metadata)


def group(endpoints: Iterable[LbEndpoint], zone: str = "", priority: int = 0, weight: int | None = None) -> Any:
    return LocalityLbEndpoints(tuple(endpoints), Locality(zone=zone), priority, weight)


def assignment(*groups: LocalityLbEndpoints, **fields: Any) -> ClusterLoadAssignment:
    return ClusterLoadAssignment("c", groups, **fields)


def flat(count: int) -> ClusterLoadAssignment:
    """`count` equal endpoints in one locality."""
    return assignment(group(endpoint(number) for number in range(count)))


class Bench:
    """A balancer with its state: pick, eject, update."""

    def __init__(self, endpoints: ClusterLoadAssignment | None, seed: int = 1, **cluster: Any) -> None:
        self.state = ClusterState("c")
        self.cluster = Cluster("c", **cluster)
        self.rng: Rng = random.Random(seed)
        self.balancer = ClusterBalancer(self.cluster, endpoints, self.state)

    def update(self, endpoints: ClusterLoadAssignment) -> ClusterBalancer:
        self.balancer = ClusterBalancer(self.cluster, endpoints, self.state, self.balancer)
        return self.balancer

    def pick(self, request_hash: int | None = None, criteria: Struct = EMPTY_STRUCT) -> str | None:
        host = self.balancer.pick(request_hash, criteria, self.rng)
        return None if host is None else host.address

    def picks(self, count: int, criteria: Struct = EMPTY_STRUCT) -> Counter[str | None]:
        return Counter(self.pick(None, criteria) for _ in range(count))

    def eject(self, *addresses: str) -> None:
        for address in addresses:
            cell = self.state.endpoint(address)
            cell.ejection = Ejection(0.0, 1.0, "test")
            self.state.ejected[cell] = None
        self.state.availability_changed()

    def restore(self, *addresses: str) -> None:
        for address in addresses:
            cell = self.state.endpoint(address)
            cell.ejection = None
            self.state.ejected.pop(cell, None)
        self.state.availability_changed()


def address(number: int) -> str:
    return str(endpoint(number).address)
