"""Slow start: the numbers of Envoy's documentation, and when an endpoint's time begins."""

import math

import pytest

from meshlib.balancing.slow_start import STEPS, factor
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.lb import (
    ClientSideWeightedRoundRobin,
    LbPolicy,
    LbSubsetConfig,
    LeastRequest,
    RoundRobin,
    SlowStart,
    SubsetSelector,
)
from meshlib.model.metadata import Struct
from parts.balancing import Bench, address, assignment, endpoint, flat, group

MINUTE = SlowStart(60.0)


@pytest.mark.parametrize(
    "config,age,expected",
    [
        # weight · max(10 %, t / window): a window of a minute, as in the documentation's example.
        (MINUTE, 0.0, 0.1),
        (MINUTE, 1.0, 0.1),
        (MINUTE, 6.0, 0.1),
        (MINUTE, 9.0, 0.15),
        (MINUTE, 30.0, 0.5),
        (MINUTE, 54.0, 0.9),
        (MINUTE, 60.0, 1.0),
        (MINUTE, 3600.0, 1.0),
        # aggression above 1 brings load sooner, below later.
        (SlowStart(60.0, 2.0), 15.0, 0.5),
        (SlowStart(60.0, 2.0), 0.6, 0.1),
        (SlowStart(60.0, 0.5), 30.0, 0.25),
        (SlowStart(60.0, 1.0, 0.0), 0.6, 0.01),
        (SlowStart(60.0, 1.0, 0.0), 0.0, 0.001 / 60),
        (SlowStart(60.0, 1.0, 50.0), 12.0, 0.5),
    ],
)
def test_the_factor(config: SlowStart, age: float, expected: float) -> None:
    assert math.isclose(factor(config, age), expected, rel_tol=1e-9)


def started(policy: LbPolicy) -> Bench:
    """Three endpoints that joined long ago, and a fourth at 1000 s."""
    bench = Bench(flat(3), lb_policy=policy)
    bench.balancer.begin(0.0)
    bench.update(flat(4))
    bench.balancer.begin(1_000.0)
    return bench


def share(bench: Bench, now: float, number: int = 3, picks: int = 6_000) -> float:
    bench.balancer.tick(now)
    return bench.picks(picks)[address(number)] / picks


SHARES = [(1_000.0, 0.1 / 3.1), (1_015.0, 0.25 / 3.25), (1_030.0, 0.5 / 3.5), (1_060.0, 0.25), (5_000.0, 0.25)]


@pytest.mark.parametrize(
    "policy", [RoundRobin(MINUTE), LeastRequest(slow_start=MINUTE), ClientSideWeightedRoundRobin(slow_start=MINUTE)]
)
def test_a_new_endpoint_takes_more_and_more(policy: LbPolicy) -> None:
    bench = started(policy)
    for now, expected in SHARES:
        assert abs(share(bench, now) - expected) < 0.025, now


def test_round_robin_is_exact_at_each_step() -> None:
    bench = started(RoundRobin(MINUTE))
    for now, expected in SHARES:
        assert abs(share(bench, now) - expected) < 0.001, now


@pytest.mark.parametrize("aggression", [1.0, 0.01, 0.0001])
def test_least_request_has_a_turn_for_an_endpoint_that_begins_with_nothing(aggression: float) -> None:
    config = SlowStart(60.0, aggression, 0.0)
    bench = Bench(assignment(group([endpoint(0, 1), endpoint(1, 2)])), lb_policy=LeastRequest(slow_start=config))
    bench.balancer.begin(0.0)
    bench.update(assignment(group([endpoint(0, 1), endpoint(1, 2), endpoint(2, 2)])))
    bench.balancer.begin(1_000.0)
    assert share(bench, 1_000.0, 2, 200) == 0.0
    assert abs(share(bench, 1_060.0, 2, 500) - 2 / 5) < 0.02, "its next turn is as far away as it was"


def test_weights_count_beside_slow_start() -> None:
    bench = Bench(assignment(group([endpoint(0, 2)])), lb_policy=RoundRobin(MINUTE))
    bench.balancer.begin(0.0)
    bench.update(assignment(group([endpoint(0, 2), endpoint(1, 8)])))
    bench.balancer.begin(1_000.0)
    assert abs(share(bench, 1_030.0, 1) - 4 / 6) < 0.002


def test_endpoints_that_are_all_new_share_alike() -> None:
    bench = Bench(flat(4), lb_policy=LeastRequest(slow_start=MINUTE))
    assert abs(share(bench, 5.0) - 0.25) < 0.03


def test_the_time_begins_when_the_endpoint_is_first_healthy() -> None:
    bench = Bench(flat(2), lb_policy=RoundRobin(MINUTE), healthy_panic_threshold=0)
    bench.balancer.begin(0.0)
    both = [endpoint(0), endpoint(1), endpoint(2, health="UNHEALTHY")]
    bench.update(assignment(group(both)))
    bench.balancer.begin(500.0)
    bench.update(flat(3))
    bench.balancer.begin(1_000.0)
    assert abs(share(bench, 1_030.0, 2) - 0.5 / 2.5) < 0.002


def test_an_endpoint_that_comes_back_from_ejection_has_its_full_weight() -> None:
    bench = started(RoundRobin(MINUTE))
    bench.eject(address(0))
    bench.balancer.refresh()
    bench.restore(address(0))
    assert abs(share(bench, 2_000.0, 0) - 0.25) < 0.001


def test_one_that_leaves_and_joins_again_is_new() -> None:
    bench = started(RoundRobin(MINUTE))
    bench.update(flat(3))
    bench.state.endpoints.pop(address(3))  # as the plan does when it is adopted
    bench.update(flat(4))
    bench.balancer.begin(9_000.0)
    assert abs(share(bench, 9_030.0) - 0.5 / 3.5) < 0.001


def test_time_is_asked_for_only_while_an_endpoint_is_new() -> None:
    assert Bench(flat(4), lb_policy=RoundRobin()).balancer.tick(0.0) == math.inf
    bench = started(RoundRobin(MINUTE))
    assert bench.balancer.tick(1_030.0) == 1_030.0 + 60.0 / STEPS
    assert bench.balancer.tick(1_060.0) == math.inf


def test_many_endpoints_are_weighed_off_the_hot_path() -> None:
    bench = Bench(flat(600), lb_policy=RoundRobin(MINUTE))
    bench.balancer.begin(0.0)
    bench.update(flat(601))
    bench.balancer.begin(1_000.0)
    assert share(bench, 1_030.0, 600, 12_010) == pytest.approx(0.1 / 600.1, rel=0.3)
    assert bench.balancer.needs_refresh
    bench.balancer.refresh()
    assert share(bench, 1_030.0, 600, 12_010) == pytest.approx(0.5 / 600.5, rel=0.3)


def test_subsets_are_told_the_time_when_they_come_into_use() -> None:
    versions = [endpoint(0, version="v1"), endpoint(1, version="v1")]
    subsets = LbSubsetConfig((SubsetSelector(("version",)),))
    bench = Bench(assignment(group(versions)), lb_policy=RoundRobin(MINUTE), subsets=subsets)
    bench.balancer.begin(0.0)
    bench.update(assignment(group([*versions, endpoint(2, version="v1")])))
    bench.balancer.begin(1_000.0)
    wanted = Struct.of({"version": "v1"})
    assert bench.balancer.tick(1_000.0) == 1_001.0
    bench.pick(None, wanted)
    bench.balancer.tick(1_030.0)
    assert bench.picks(5_000, wanted)[address(2)] == pytest.approx(1_000, abs=2)


def test_the_time_of_a_priority_that_is_not_in_use_goes_on() -> None:
    def priorities(*second: int, healthy: bool) -> ClusterLoadAssignment:
        first = [endpoint(0, health="HEALTHY" if healthy else "UNHEALTHY")]
        return assignment(group(first), group([endpoint(number) for number in second], priority=1))

    bench = Bench(priorities(1, healthy=True), lb_policy=RoundRobin(MINUTE))
    bench.balancer.begin(0.0)
    bench.update(priorities(1, 2, healthy=True))
    bench.balancer.begin(1_000.0)
    assert bench.balancer.tick(1_001.0) == 1_002.0, "an endpoint is new, though nobody asks it"
    bench.eject(address(0))
    bench.balancer.refresh()
    assert abs(share(bench, 1_030.0, 2) - 0.5 / 1.5) < 0.002
