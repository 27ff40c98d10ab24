"""The load tables of Envoy's documentation: priority levels, degraded endpoints, panic threshold."""

import pytest

from meshlib.balancing.priority import HostCounts, PriorityLoad, loads_without, priority_loads


def loads(*healthy: int, panic: float = 50.0) -> list[int]:
    counts = [HostCounts(100, percent, 0) for percent in healthy]
    return [load.healthy for load in priority_loads(counts, 140, panic)]


def panics(*healthy: int, panic: float = 50.0) -> list[bool]:
    return [load.panic for load in priority_loads([HostCounts(100, percent, 0) for percent in healthy], 140, panic)]


@pytest.mark.parametrize(
    "healthy,expected",
    [
        ((100, 100), [100, 0]),
        ((72, 100), [100, 0]),
        ((71, 100), [99, 1]),
        ((50, 100), [70, 30]),
        ((25, 100), [35, 65]),
        ((0, 100), [0, 100]),
        ((72, 72), [100, 0]),
        ((71, 71), [99, 1]),
        ((50, 50), [70, 30]),
        ((25, 25), [50, 50]),
        ((100, 100, 100), [100, 0, 0]),
        ((72, 72, 100), [100, 0, 0]),
        ((71, 71, 100), [99, 1, 0]),
        ((50, 50, 100), [70, 30, 0]),
        ((25, 100, 100), [35, 65, 0]),
        ((25, 25, 100), [35, 35, 30]),
    ],
)
def test_load_spills_over_to_the_next_priority(healthy: tuple[int, ...], expected: list[int]) -> None:
    assert loads(*healthy) == expected


def test_load_is_scaled_up_when_all_health_together_is_below_100_and_rounding_goes_to_the_first() -> None:
    # 35, 35 and 28 of 98: 35.7, 35.7 and 28.6 percent, rounded down, and the missing 2 to P0.
    assert loads(25, 25, 20, panic=0) == [37, 35, 28]


@pytest.mark.parametrize(
    "healthy,expected,panic",
    [
        ((0, 100), [0, 100], [False, False]),
        ((25, 100), [35, 65], [False, False]),
        ((72, 72), [100, 0], [False, False]),
        ((25, 25), [50, 50], [True, True]),
        ((5, 65), [8, 92], [True, False]),
    ],
)
def test_panic_counts_only_when_all_health_together_is_below_100(
    healthy: tuple[int, ...], expected: list[int], panic: list[bool]
) -> None:
    assert (loads(*healthy), panics(*healthy)) == (expected, panic)


def test_when_every_priority_is_in_panic_the_load_goes_by_the_number_of_hosts() -> None:
    counts = [HostCounts(30, 0, 0), HostCounts(0, 0, 0), HostCounts(70, 1, 0)]
    assert priority_loads(counts, 140, 50.0) == (
        PriorityLoad(30, 0, True),
        PriorityLoad(0, 0, True),
        PriorityLoad(70, 0, True),
    )


@pytest.mark.parametrize(
    "healthy,degraded,expected",
    [
        (100, 0, (100, 0)),
        (71, 0, (100, 0)),
        (71, 29, (99, 1)),
        (25, 65, (35, 65)),
        (5, 0, (100, 0)),
        (0, 100, (0, 100)),
    ],
)
def test_degraded_hosts_take_what_healthy_ones_leave(healthy: int, degraded: int, expected: tuple[int, int]) -> None:
    (load,) = priority_loads([HostCounts(100, healthy, degraded)], 140, 0.0)
    assert (load.healthy, load.degraded) == expected


def test_degraded_hosts_of_the_first_priority_come_after_healthy_ones_of_the_next() -> None:
    counts = [HostCounts(100, 25, 75), HostCounts(100, 50, 0)]
    # 35 healthy in P0, then all 65 wanted of P1's 70: nothing is left for degraded ones.
    assert priority_loads(counts, 140, 50.0) == (PriorityLoad(35, 0, False), PriorityLoad(65, 0, False))


def test_degraded_hosts_keep_a_priority_out_of_panic() -> None:
    (load,) = priority_loads([HostCounts(100, 20, 40)], 140, 50.0)
    assert load == PriorityLoad(34, 66, False)


@pytest.mark.parametrize("threshold,panic", [(0.0, False), (20.0, False), (20.4, False), (20.5, True), (500.0, True)])
def test_the_panic_threshold_is_rounded_to_whole_percents(threshold: float, panic: bool) -> None:
    assert panics(20, panic=threshold) == [panic]


def test_without_panic_and_without_health_everything_goes_to_the_first_priority_where_nothing_is() -> None:
    assert loads(0, 0, panic=0) == [100, 0]
    assert panics(0, 0, panic=0) == [False, False]


def test_an_empty_priority_has_no_health() -> None:
    counts = [HostCounts(0, 0, 0), HostCounts(10, 10, 0)]
    assert [load.healthy for load in priority_loads(counts, 140, 50.0)] == [0, 100]


def test_nothing_at_all_is_panic_over_nothing() -> None:
    assert priority_loads([HostCounts(0, 0, 0)], 140, 50.0) == (PriorityLoad(100, 0, True),)


def test_draining_hosts_are_not_missed_but_count_in_total_panic() -> None:
    assert priority_loads([HostCounts(10, 5, 0, excluded=5), HostCounts(10, 10, 0)], 140, 50.0)[0].healthy == 100
    assert priority_loads([HostCounts(10, 1, 0, excluded=9)], 140, 50.0) == (PriorityLoad(100, 0, False),)
    loads = priority_loads([HostCounts(30, 0, 0, excluded=30), HostCounts(10, 0, 0)], 140, 50.0)
    assert [load.healthy for load in loads] == [75, 25]


def test_the_overprovisioning_factor_decides_when_to_spill() -> None:
    counts = [HostCounts(100, 90, 0), HostCounts(100, 100, 0)]
    assert [load.healthy for load in priority_loads(counts, 100, 50.0)] == [90, 10]


def test_health_goes_by_weight_where_it_is_to() -> None:
    light = HostCounts(2, 1, 0, weights=(10, 9, 0))  # one of two hosts, with nine tenths of the weight
    assert light.health(100) == (90, 0)
    assert HostCounts(2, 1, 0).health(100) == (50, 0)
    heavy = HostCounts(4, 1, 1, excluded=1, weights=(10, 1, 4))
    assert heavy.health(140) == (14, 56)
    assert [load.healthy for load in priority_loads([light, HostCounts(2, 2, 0)], 100, 50.0)] == [90, 10]
    # Panic goes by the number of hosts all the same.
    assert [load.panic for load in priority_loads([HostCounts(4, 1, 0, weights=(10, 7, 0))], 100, 50.0)] == [True]


def test_a_priority_may_have_a_factor_of_its_own() -> None:
    counts = [HostCounts(10, 5, 0, factor=100), HostCounts(10, 5, 0, factor=200)]
    assert [load.healthy for load in priority_loads(counts, 140, 50.0)] == [50, 50]


def test_priorities_that_have_been_tried_are_left_out() -> None:
    counts = [HostCounts(10, 10, 0), HostCounts(10, 5, 0), HostCounts(10, 10, 0)]
    loads = priority_loads(counts, 140, 50.0)
    assert [load.healthy for load in loads] == [100, 0, 0]
    assert [load.healthy for load in loads_without({0}, loads, counts, 140)] == [0, 70, 30]
    assert [load.healthy for load in loads_without({0, 2}, loads, counts, 140)] == [0, 100, 0]
    assert loads_without({0, 1, 2}, loads, counts, 140) == loads  # nothing is left: as before
    degraded = [HostCounts(10, 10, 0), HostCounts(10, 0, 10)]
    first = priority_loads(degraded, 140, 50.0)
    assert [(load.healthy, load.degraded) for load in loads_without({0}, first, degraded, 140)] == [(0, 0), (0, 100)]
