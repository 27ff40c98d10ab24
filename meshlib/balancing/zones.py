"""Zone aware routing: requests stay in the caller's locality as far as its endpoints can carry them, and the rest goes
where capacity is left (Envoy's documentation, "Zone aware routing"; its integers, in hundredths of a percent).

How the callers are spread is read from the cluster they are endpoints of themselves. Where a locality has a smaller
share of the upstream than of the callers, it is sent what it can take of its own callers' requests; the others of them
are spread over the localities that have a larger share, in proportion to the difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from meshlib.balancing.base import NOT_SERVING, Balancer, Host, Rng
from meshlib.model.endpoint import ClusterLoadAssignment, Locality
from meshlib.model.zones import ZoneAware
from meshlib.state.counter import Counter

WHOLE = 10_000
Stats = Mapping[str, Counter]


@dataclass(frozen=True, slots=True)
class Callers:
    """The cluster that this process is an endpoint of, as its assignment tells of it: `healthy` has for each locality
    the number and the weight of its healthy endpoints, `available` is the percentage that can serve.
    """

    locality: Locality
    healthy: tuple[tuple[Locality, int, int], ...]
    available: float

    @property
    def knows_itself(self) -> bool:
        """Whether there is any endpoint in this process's own locality."""
        return any(place == self.locality for place, _, _ in self.healthy)


def callers_of(assignment: ClusterLoadAssignment, locality: Locality) -> Callers:
    """The callers of priority 0: Envoy knows no other in a local cluster."""
    healthy: dict[Locality, list[int]] = {}
    staying = available = 0
    for group in assignment.localities:
        if group.priority or not group.endpoints:
            continue
        counted = healthy.setdefault(group.locality, [0, 0])
        for endpoint in group.endpoints:
            staying += endpoint.health_status != "DRAINING"
            if endpoint.health_status in NOT_SERVING:
                continue
            available += 1
            if endpoint.health_status != "DEGRADED":
                counted[0] += 1
                counted[1] += endpoint.weight
    found = tuple((place, number, weight) for place, (number, weight) in healthy.items())
    return Callers(locality, found, 100.0 * available / staying if staying else 0.0)


@dataclass(frozen=True, slots=True)
class ZoneShares:
    """`local` is the index of the caller's locality (None: the upstream has none there) and `kept` the share of the
    requests that stay there, in hundredths of a percent. `residual` is what each locality can take of the others.
    """

    local: int | None
    kept: int
    residual: tuple[int, ...] = ()


def zone_shares(
    config: ZoneAware, callers: Callers, localities: Sequence[Locality], healthy: Sequence[Sequence[Host]], stats: Stats
) -> ZoneShares | None:
    """The shares for an upstream's localities with their healthy hosts; None: it is balanced as a whole."""
    if not _applies(config, callers, healthy, stats):
        return None
    ours, theirs = _percentages(config, callers, localities, healthy)
    local = localities.index(callers.locality) if callers.locality in localities else None
    if local is not None:
        forced = config.force_local_zone is not None and len(healthy[local]) >= config.force_local_zone
        if forced or 0 < theirs[local] >= ours[local]:
            return ZoneShares(local, WHOLE)
    kept = theirs[local] * WHOLE // ours[local] if local is not None and ours[local] else 0
    residual = tuple(
        0 if index == local else max(0, there - here)
        for index, (here, there) in enumerate(zip(ours, theirs, strict=True))
    )
    return ZoneShares(local, kept, residual)


def _applies(config: ZoneAware, callers: Callers, healthy: Sequence[Sequence[Host]], stats: Stats) -> bool:
    stats["lb_recalculate_zone_structures"].add()
    if len(healthy) < 2 or (len(callers.healthy) < 2 and config.force_local_zone is None):
        return False
    if not callers.knows_itself:
        stats["lb_local_cluster_not_ok"].add()
        return False
    if sum(map(len, healthy)) < config.min_cluster_size:
        stats["lb_zone_cluster_too_small"].add()
        return False
    return True


def _percentages(
    config: ZoneAware, callers: Callers, localities: Sequence[Locality], healthy: Sequence[Sequence[Host]]
) -> tuple[list[int], list[int]]:
    """The share of the callers and of the upstream in each of the upstream's localities; (0, 0) where it is empty."""
    by_weight = config.locality_basis == "HEALTHY_HOSTS_WEIGHT"
    near = {place: weight if by_weight else number for place, number, weight in callers.healthy}
    far = [sum(host.endpoint.weight for host in hosts) if by_weight else len(hosts) for hosts in healthy]
    all_near, all_far = sum(near.values()), sum(far)
    ours = [
        WHOLE * near.get(place, 0) // all_near if all_near and hosts else 0
        for place, hosts in zip(localities, healthy, strict=True)
    ]
    return ours, [WHOLE * part // all_far if all_far else 0 for part in far]


class ZoneBalancer:
    """Chooses a locality by its share of the requests of this zone, then a host in it; `whole` is for the share of the
    requests that is not routed by zones (`routing_enabled`).
    """

    __slots__ = ("_balancers", "_bounds", "_enabled", "_shares", "_stats", "_whole")

    def __init__(
        self, shares: ZoneShares, balancers: Sequence[Balancer], whole: Balancer, enabled: float, stats: Stats
    ) -> None:
        self._shares = shares
        self._balancers = tuple(balancers)
        self._bounds = list(accumulate(shares.residual))
        self._whole = whole
        self._enabled = enabled / 100.0
        self._stats = stats

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host of the chosen locality."""
        if self._enabled < 1.0 and rng.random() >= self._enabled:
            return self._whole.pick(request_hash, rng, attempt)
        return self._balancers[self._locality(rng)].pick(request_hash, rng, attempt)

    def _locality(self, rng: Rng) -> int:
        shares, stats = self._shares, self._stats
        if shares.local is not None:
            if shares.kept >= WHOLE:
                stats["lb_zone_routing_all_directly"].add()
                return shares.local
            if rng.random() * WHOLE < shares.kept:
                stats["lb_zone_routing_sampled"].add()
                return shares.local
        stats["lb_zone_routing_cross_zone"].add()
        if not self._bounds[-1]:  # rounding left nothing
            stats["lb_zone_no_capacity_left"].add()
            return int(rng.random() * len(self._balancers))
        return bisect_right(self._bounds, int(rng.random() * self._bounds[-1]))
