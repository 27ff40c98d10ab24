"""Locality-weighted balancing: localities of a priority take load by weight and availability (Envoy's documentation,
"Locality weighted load balancing"). Localities without a weight get none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.stride import WeightedSequence
from meshlib.model.endpoint import Locality

LARGEST_TOTAL = 2**48  # of a weighted sequence: larger ones are scaled down, beyond any visible precision


@dataclass(frozen=True, slots=True)
class LocalityHosts:
    """The hosts of one locality at one priority, in any health. `weight` 0: none given."""

    locality: Locality
    weight: int
    hosts: tuple[Host, ...]


class LocalityBalancer:
    """Chooses a locality by weight, then a host in it."""

    __slots__ = ("_balancers", "_sequence")

    def __init__(self, weights: Sequence[int], balancers: Sequence[Balancer]) -> None:
        self._sequence = WeightedSequence(weights)
        self._balancers = tuple(balancers)

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host of the locality whose turn it is."""
        return self._balancers[self._sequence.next(rng)].pick(request_hash, rng, attempt)


def effective_weights(
    weights: Sequence[int], eligible: Sequence[int], totals: Sequence[int], overprovisioning_factor: int
) -> list[int]:
    """The weight x min(1, factor x eligible / total) of each locality, as integers in that exact proportion.

    `eligible` and `totals` count hosts, draining ones in neither; the factor is in percent.
    """
    scale = lcm(*(100 * max(1, total) for total in totals))
    exact = [
        weight * min(scale, overprovisioning_factor * part * (scale // (100 * max(1, total))))
        for weight, part, total in zip(weights, eligible, totals, strict=True)
    ]
    too_large = max(1, sum(exact) // LARGEST_TOTAL)
    return [max(1, weight // too_large) if weight else 0 for weight in exact]


def shares(groups: Sequence[tuple[int, Sequence[Host]]]) -> tuple[list[Host], list[float]]:
    """The hosts of all localities with a weight, and each host's share of the load, adding up to 1.

    `groups` are (locality weight, hosts). The arithmetic is Envoy's, so that hash tables come out the same.
    """
    total = sum(weight for weight, _ in groups)
    hosts: list[Host] = []
    parts: list[float] = []
    for weight, members in groups:
        if weight and members:
            part = weight / total
            load = sum(host.endpoint.weight for host in members)
            hosts.extend(members)
            parts.extend([host.endpoint.weight * part / load for host in members])
    return hosts, parts
