"""Which hosts are picked: health from the control plane, ejections, panic, degraded, localities."""

import pytest

from meshlib.balancing.locality import effective_weights
from meshlib.model.lb import LeastRequest, Random, RingHash, RoundRobin
from parts.balancing import Bench, address, assignment, endpoint, flat, group

POLICIES = [RoundRobin(), LeastRequest(), Random(), RingHash()]


@pytest.mark.parametrize("health", ["UNHEALTHY", "DRAINING", "TIMEOUT"])
@pytest.mark.parametrize("policy", POLICIES)
def test_hosts_that_must_not_be_used_are_not(policy: object, health: str) -> None:
    bench = Bench(assignment(group([endpoint(0), endpoint(1, health=health)])), lb_policy=policy)
    assert set(bench.picks(100)) == {address(0)}


def test_unknown_health_is_healthy() -> None:
    assert set(Bench(assignment(group([endpoint(0, health="UNKNOWN")]))).picks(10)) == {address(0)}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_ejected_host_is_left_out_until_it_returns(policy: object) -> None:
    bench = Bench(flat(4), lb_policy=policy)
    bench.eject(address(1))
    assert address(1) not in bench.picks(300)
    bench.restore(address(1))
    assert address(1) in bench.picks(300)


@pytest.mark.parametrize("policy", POLICIES)
def test_below_the_panic_threshold_every_host_is_used(policy: object) -> None:
    bench = Bench(flat(4), lb_policy=policy)
    assert not bench.balancer.in_panic
    bench.eject(*map(address, range(3)))
    assert set(bench.picks(400)) == set(map(address, range(4)))
    assert bench.balancer.in_panic


@pytest.mark.parametrize("policy", POLICIES)
def test_with_panic_off_no_healthy_host_means_no_host(policy: object) -> None:
    bench = Bench(flat(2), lb_policy=policy, healthy_panic_threshold=0)
    bench.eject(address(0))
    assert set(bench.picks(20)) == {address(1)}
    bench.eject(address(1))
    assert set(bench.picks(20)) == {None}
    assert not bench.balancer.in_panic


def test_degraded_hosts_take_the_load_healthy_ones_leave() -> None:
    endpoints = [endpoint(0), *(endpoint(number, health="DEGRADED") for number in (1, 2, 3))]
    picks = Bench(assignment(group(endpoints)), lb_policy=Random()).picks(10_000)
    assert abs(picks[address(0)] - 3_500) < 200


def test_an_unhealthy_priority_spills_over() -> None:
    endpoints = assignment(
        group([endpoint(0), endpoint(1, health="UNHEALTHY")]), group([endpoint(2), endpoint(3)], priority=1)
    )
    picks = Bench(endpoints).picks(10_000)
    assert abs(picks[address(0)] - 7_000) < 250
    assert picks[address(1)] == 0


def test_priorities_nobody_mentions_are_empty() -> None:
    assert set(Bench(assignment(group([endpoint(0)], priority=3))).picks(10)) == {address(0)}


@pytest.mark.parametrize("healthy,percent", [(100, 33), (72, 33), (69, 32), (50, 26), (25, 15), (0, 0)])
def test_locality_load_as_in_envoys_documentation(healthy: int, percent: int) -> None:
    weight_x, weight_y = effective_weights([1, 2], [healthy, 100], [100, 100], 140)
    assert weight_x * 100 // (weight_x + weight_y) in (percent, percent - 1)


def test_fully_available_localities_keep_their_weights_exactly() -> None:
    first, second, third = effective_weights([1, 2, 0], [8, 3, 5], [10, 3, 5], 140)
    assert second == 2 * first
    assert third == 0


def test_localities_are_picked_by_weight_then_hosts_within() -> None:
    endpoints = assignment(
        group([endpoint(0)], "a", weight=1), group([endpoint(1), endpoint(2)], "b", weight=3), group([endpoint(3)], "c")
    )
    picks = Bench(endpoints, locality_weighted=True).picks(4_000)
    assert picks == {address(0): 1_000, address(1): 1_500, address(2): 1_500}


def test_locality_weights_without_locality_weighted_balancing_mean_nothing() -> None:
    endpoints = assignment(group([endpoint(0)], "a", weight=1), group([endpoint(1)], "b", weight=9))
    assert Bench(endpoints).picks(100) == {address(0): 50, address(1): 50}


def test_a_locality_that_loses_hosts_loses_load() -> None:
    bench = Bench(
        assignment(group([endpoint(0), endpoint(1)], "x", weight=1), group([endpoint(2), endpoint(3)], "y", weight=2)),
        locality_weighted=True,
    )
    bench.eject(address(0))
    picks = bench.picks(2_700)
    # 0.7 against 2
    assert abs(picks[address(1)] - 700) <= 1


def test_when_no_locality_has_a_weight_all_hosts_are_equal() -> None:
    endpoints = assignment(group([endpoint(0)], "a"), group([endpoint(1)], "b"))
    assert Bench(endpoints, locality_weighted=True).picks(10) == {address(0): 5, address(1): 5}


def test_panic_ignores_locality_weights() -> None:
    endpoints = assignment(
        group([endpoint(0, health="UNHEALTHY")], "a", weight=1), group([endpoint(1, health="UNHEALTHY")], "b", weight=9)
    )
    assert Bench(endpoints, locality_weighted=True).picks(10) == {address(0): 5, address(1): 5}
