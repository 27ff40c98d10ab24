"""Zone aware routing by Envoy's numbers: shares in hundredths of a percent, and who gets what is left."""

import random
from collections import Counter
from typing import Any

import pytest

from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.zones import WHOLE, Callers, callers_of, zone_shares
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, Locality
from meshlib.model.lb import LeastRequest, Random, RingHash
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.zones import ZoneAware
from meshlib.state.cells import ClusterState
from parts.balancing import assignment, endpoint, group

HERE = Locality(zone="a")


def zones(counts: dict[str, int], **fields: Any) -> ClusterLoadAssignment:
    """So many endpoints in each zone."""
    groups, first = [], 0
    for zone, count in counts.items():
        groups.append(group((endpoint(number, **fields) for number in range(first, first + count)), zone))
        first += count
    return assignment(*groups)


def shares(callers: dict[str, int], upstream: dict[str, int], **config: Any) -> tuple[int, list[int]] | None:
    """(Kept, residual by zone of the upstream), as `zone_shares` has it."""
    balancer = ClusterBalancer(Cluster("c"), zones(upstream), ClusterState("c"))
    members = balancer.whole()._parts[0]
    stats = ClusterState("c").stats
    places = [part.locality for part in members.localities]
    found = zone_shares(ZoneAware(**config), callers_of(zones(callers), HERE), places, members.of("healthy"), stats)
    return None if found is None else (found.kept, list(found.residual))


# Envoy's documentation and the worked example in the comments of its load balancer.
@pytest.mark.parametrize(
    ("callers", "upstream", "wanted"),
    [
        ({"a": 2, "b": 2, "c": 1}, {"a": 2, "b": 4, "c": 2}, (6250, [0, 1000, 500])),  # 40 40 20 to 25 50 25
        ({"a": 1, "b": 1}, {"a": 3, "b": 3}, (WHOLE, [])),
        ({"a": 1, "b": 1}, {"a": 4, "b": 2}, (WHOLE, [])),  # more than its share: all requests stay
        ({"a": 1, "b": 1}, {"a": 2, "b": 4}, (6666, [0, 1666])),
        ({"a": 3, "b": 1}, {"a": 3, "b": 3}, (6666, [0, 2500])),
        ({"a": 1, "b": 1}, {"b": 3, "c": 3}, (0, [0, 5000])),  # none here: all by what is left elsewhere
        ({"a": 1, "b": 9}, {"a": 1, "b": 2, "c": 3}, (WHOLE, [])),
    ],
)
def test_the_share_that_stays_and_what_is_left(callers: Any, upstream: Any, wanted: Any) -> None:
    assert shares(callers, upstream) == wanted


@pytest.mark.parametrize(
    ("callers", "upstream", "config"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 3}, {}),  # fewer than 6
        ({"a": 1, "b": 1}, {"a": 6}, {}),  # one locality
        ({"a": 2}, {"a": 3, "b": 3}, {}),  # callers in one
        ({"b": 1, "c": 1}, {"a": 3, "b": 3}, {}),  # the callers do not know this one
        ({"a": 1, "b": 1}, {"a": 3, "b": 3}, {"min_cluster_size": 7}),
    ],
)
def test_the_upstream_is_balanced_as_a_whole(callers: Any, upstream: Any, config: Any) -> None:
    assert shares(callers, upstream, **config) is None


def test_forced_to_stay() -> None:
    spread = {"a": 1, "b": 5}
    assert shares({"a": 5, "b": 1}, spread) == (1999, [0, 6667])
    assert shares({"a": 5, "b": 1}, spread, force_local_zone=1) == (WHOLE, [])
    assert shares({"a": 5, "b": 1}, spread, force_local_zone=2) == (1999, [0, 6667])
    assert shares({"a": 5}, spread, force_local_zone=1) == (WHOLE, [])  # whoever else calls


def test_by_weight() -> None:
    upstream = assignment(group([endpoint(1, 6), endpoint(2, 2)], "a"), group((endpoint(n) for n in range(3, 11)), "b"))
    balancer = ClusterBalancer(Cluster("c"), upstream, ClusterState("c"))
    members, stats = balancer.whole()._parts[0], ClusterState("c").stats
    places = [part.locality for part in members.localities]
    callers = callers_of(zones({"a": 1, "b": 1}), HERE)
    by_number = zone_shares(ZoneAware(), callers, places, members.of("healthy"), stats)
    config = ZoneAware(locality_basis="HEALTHY_HOSTS_WEIGHT")
    by_weight = zone_shares(config, callers, places, members.of("healthy"), stats)
    assert by_number is not None
    assert by_number.kept == 4000
    assert by_weight is not None
    assert by_weight.kept == WHOLE


class Zoned:
    def __init__(self, callers: Callers | None, upstream: ClusterLoadAssignment, **cluster: Any) -> None:
        self.state = ClusterState("c")
        self.balancer = ClusterBalancer(Cluster("c", **cluster), upstream, self.state, None, callers)
        self.rng = random.Random(7)

    def picks(self, count: int = 20_000) -> Counter[str | None]:
        hosts = (self.balancer.pick(None, EMPTY_STRUCT, self.rng) for _ in range(count))
        return Counter(host.locality.zone if host is not None else None for host in hosts)

    def stats(self) -> dict[str, int]:
        return {name: count.value for name, count in self.state.stats.items() if "zone" in name or "local" in name}


@pytest.mark.parametrize("policy", [{}, {"lb_policy": Random()}, {"lb_policy": LeastRequest()}])
def test_requests_go_where_the_shares_say(policy: Any) -> None:
    callers = callers_of(zones({"a": 2, "b": 2, "c": 1}), HERE)
    zoned = Zoned(callers, zones({"a": 2, "b": 4, "c": 2}), **policy)
    picks = zoned.picks()
    assert picks["a"] / 20_000 == pytest.approx(0.625, abs=0.015)
    assert picks["b"] / 20_000 == pytest.approx(0.25, abs=0.015)
    assert picks["c"] / 20_000 == pytest.approx(0.125, abs=0.015)
    stats = zoned.stats()
    assert stats["lb_zone_routing_sampled"] == picks["a"]
    assert stats["lb_zone_routing_cross_zone"] == 20_000 - picks["a"]
    assert stats["lb_recalculate_zone_structures"] == 1


def test_a_part_of_the_requests_may_be_left_out() -> None:
    callers = callers_of(zones({"a": 1, "b": 1}), HERE)
    half = Zoned(callers, zones({"a": 3, "b": 3}), zone_aware=ZoneAware(routing_enabled=50.0))
    assert half.picks()["a"] / 20_000 == pytest.approx(0.75, abs=0.015)


def test_hash_policies_and_locality_weights_know_no_zones() -> None:
    callers = callers_of(zones({"a": 1, "b": 1}), HERE)
    for fields in ({"lb_policy": RingHash()}, {"locality_weighted": True}):
        zoned = Zoned(callers, zones({"a": 3, "b": 3}), **fields)
        assert 0.3 < zoned.picks()["b"] / 20_000 < 0.7
        assert set(zoned.stats().values()) == {0}


def test_callers_in_panic() -> None:
    down = assignment(group([endpoint(1)], "a"), group([endpoint(2, 1, "UNHEALTHY"), endpoint(3, 1, "TIMEOUT")], "b"))
    callers = callers_of(down, HERE)
    assert callers.available == pytest.approx(100 / 3)
    whole = Zoned(callers, zones({"a": 3, "b": 3}))
    assert 0.4 < whole.picks()["b"] / 20_000 < 0.6
    assert whole.stats()["lb_local_cluster_not_ok"] == 1
    none = Zoned(callers, zones({"a": 3, "b": 3}), zone_aware=ZoneAware(fail_traffic_on_panic=True))
    assert none.picks(100) == {None: 100}


def test_traffic_fails_in_panic_where_it_is_to() -> None:
    sick = assignment(group([endpoint(1), endpoint(2, 1, "UNHEALTHY"), endpoint(3, 1, "UNHEALTHY")]))
    assert Zoned(None, sick).picks(100) == {"": 100}
    failing = Zoned(None, sick, zone_aware=ZoneAware(fail_traffic_on_panic=True))
    assert failing.picks(100) == {None: 100}
    assert failing.balancer.in_panic


def test_draining_and_degraded_callers() -> None:
    mixed = assignment(
        group([endpoint(1, 1, "DRAINING"), endpoint(2, 4)], "a"), group([endpoint(3, 1, "DEGRADED")], "b")
    )
    assert callers_of(mixed, HERE) == Callers(HERE, ((HERE, 1, 4), (Locality(zone="b"), 0, 0)), 100.0)


def test_only_priority_0_knows_zones() -> None:
    callers = callers_of(zones({"a": 1, "b": 1}), HERE)
    second = [group((endpoint(n) for n in range(3)), "a", 1), group((endpoint(n) for n in range(3, 6)), "b", 1)]
    zoned = Zoned(callers, assignment(group([endpoint(9, 1, "UNHEALTHY")], "a"), *second))
    assert 0.4 < zoned.picks()["b"] / 20_000 < 0.6
