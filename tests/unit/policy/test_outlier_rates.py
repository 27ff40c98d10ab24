"""Outlier detection by success rate and failure percentage, interval by interval."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.state.cells import EndpointState
from meshlib.state.outliers import Tally
from parts.outliers import ERROR, OK, REFUSED, RESET, UNAVAILABLE, Draw, World

NO_STREAKS = {"consecutive_5xx": 0, "consecutive_gateway_failure": 0, "consecutive_local_origin_failure": 0}
SPLIT = {**NO_STREAKS, "split_external_local_origin_errors": True}


def world(hosts: int = 5, **config: object) -> World:
    return World(hosts, **{**NO_STREAKS, "max_ejection_percent": 100, **config})


def ejected(made: World) -> list[EndpointState]:
    return [cell for cell in made.cells if cell.ejected]


def one_bad(made: World, good: int = 50, bad: int = 50) -> None:
    for cell in made.cells[1:]:
        made.ends(cell, OK, good + bad)
    made.mixed(made.cells[0], good, bad)


def test_who_succeeds_far_less_often_than_the_others_is_ejected_at_the_end_of_the_interval() -> None:
    made = world()
    one_bad(made)  # the example in Envoy's source: 50 and four times 100 have an average of 90 and a threshold of 52
    assert made.sweep(9.9) == []
    changes = made.sweep(10.0)
    figures = "50.0 % of 100 < threshold 52.0 % (average 90.0, stdev 20.0, 5 hosts)"
    assert [(change.at, change.cell) for change in changes] == [(10.0, made.cells[0])]
    found = made.cells[0].ejection
    assert found is not None
    assert found is changes[0].ejection
    assert (found.since, found.until, found.reason, found.details) == (10.0, 40.0, "success_rate", figures)
    assert made.moved() == {"detected_success_rate": 1, "enforced_success_rate": 1, "enforced_total": 1}


@pytest.mark.parametrize("factor,out", [(1900, True), (1999, True), (2000, False), (2100, False)])
def test_the_factor_of_the_standard_deviation(factor: int, out: bool) -> None:
    made = world(success_rate_stdev_factor=factor)
    one_bad(made)
    made.sweep(10.0)
    assert made.cells[0].ejected is out


def test_an_average_that_all_share_ejects_nobody() -> None:
    made = world()
    for cell in made.cells:
        made.mixed(cell, 50, 50)
    assert made.sweep(10.0) == []
    assert made.moved() == {}


@pytest.mark.parametrize("volume,out", [(100, True), (101, False)])
def test_hosts_with_too_few_requests_are_left_out(volume: int, out: bool) -> None:
    made = world(success_rate_request_volume=volume)
    one_bad(made)
    made.sweep(10.0)
    assert made.cells[0].ejected is out


def test_too_few_hosts_with_enough_requests_eject_nobody() -> None:
    made = world(hosts=6, success_rate_minimum_hosts=6)
    one_bad(made)
    made.ends(made.cells[5], OK, 1)
    assert len(made.sweep(10.0)) == 1
    few = world(hosts=6, success_rate_minimum_hosts=6)
    for cell in few.cells[1:5]:
        few.ends(cell, OK, 100)
    few.mixed(few.cells[0], 50, 50)
    few.ends(few.cells[5], OK, 99)
    assert few.sweep(10.0) == []


def test_every_interval_stands_for_itself() -> None:
    made = world()
    one_bad(made, 25, 25)
    made.sweep(10.0)
    one_bad(made, 25, 25)
    made.sweep(20.0)
    assert made.moved() == {}, "100 requests in two intervals are 50 in each"


def test_who_is_ejected_is_not_looked_at() -> None:
    made = world()
    one_bad(made)
    made.sweep(10.0)
    one_bad(made)  # in panic it still gets traffic
    made.sweep(20.0)
    assert made.stat("ejections_detected_success_rate") == 1


def test_enforcing_is_drawn_and_the_ejected_share_is_bounded() -> None:
    made = world(enforcing_success_rate=30)
    one_bad(made)
    made.sweep(10.0, Draw(0.3))
    assert made.moved() == {"detected_success_rate": 1}
    none = world(enforcing_success_rate=0)
    one_bad(none)
    none.sweep(10.0)
    assert none.moved() == {"detected_success_rate": 1}
    full = world(max_ejection_percent=10)
    one_bad(full)
    full.sweep(10.0)
    assert full.moved() == {"detected_success_rate": 1, "overflow": 1}


# ---------------------------------------------------------------------- failure percentage

BY_PERCENTAGE = {"enforcing_success_rate": 0, "success_rate_minimum_hosts": 99, "enforcing_failure_percentage": 100}


@pytest.mark.parametrize("bad,out", [(84, False), (85, True), (100, True)])
def test_failure_percentage_has_a_threshold(bad: int, out: bool) -> None:
    made = world(**BY_PERCENTAGE)
    for cell in made.cells:
        made.mixed(cell, 100 - bad, bad)
    made.sweep(10.0)
    assert len(ejected(made)) == (5 if out else 0)
    if out:
        found = made.cells[0].ejection
        assert found is not None
        assert found.details == f"{bad}.0 % of 100 >= 85 %"


def test_failure_percentage_ejects_nobody_by_default() -> None:
    made = world(success_rate_minimum_hosts=99)
    made.ends(made.cells[0], ERROR, 50)
    for cell in made.cells[1:]:
        made.ends(cell, OK, 50)
    made.sweep(10.0)
    assert made.moved() == {"detected_failure_percentage": 1}


@pytest.mark.parametrize("volume,hosts,out", [(50, 5, True), (51, 5, False), (50, 6, False)])
def test_failure_percentage_has_a_volume_and_a_minimum_of_hosts(volume: int, hosts: int, out: bool) -> None:
    made = world(**BY_PERCENTAGE, failure_percentage_request_volume=volume, failure_percentage_minimum_hosts=hosts)
    made.ends(made.cells[0], ERROR, 50)
    for cell in made.cells[1:]:
        made.ends(cell, OK, 60)
    made.sweep(10.0)
    assert made.cells[0].ejected is out


def test_one_host_found_by_both_is_counted_by_both_and_ejected_once() -> None:
    made = world(enforcing_failure_percentage=100)
    one_bad(made, 0, 100)
    assert len(made.sweep(10.0)) == 1
    assert made.moved() == {
        "detected_success_rate": 1,
        "detected_failure_percentage": 1,
        "enforced_success_rate": 1,
        "enforced_total": 1,
    }
    assert made.cells[0].ejections == 1


# ---------------------------------------------------------------------- local origin


def test_local_failures_count_as_any_other_unless_they_are_split() -> None:
    made = world()
    for cell in made.cells[1:]:
        made.ends(cell, OK, 100)
    made.mixed(made.cells[0], 50, 50, REFUSED)
    made.sweep(10.0)
    assert made.moved() == {"detected_success_rate": 1, "enforced_success_rate": 1, "enforced_total": 1}


def test_split_local_failures_have_rates_of_their_own() -> None:
    made = world(**SPLIT, enforcing_failure_percentage_local_origin=100, failure_percentage_threshold=50)
    for cell in made.cells[2:]:
        made.ends(cell, OK, 100)
    made.mixed(made.cells[0], 50, 50, REFUSED)
    made.mixed(made.cells[1], 100, 0)
    made.sweep(10.0)
    assert made.moved() == {
        "detected_local_origin_success_rate": 1,
        "enforced_local_origin_success_rate": 1,
        "detected_local_origin_failure_percentage": 1,
        "enforced_total": 1,
    }
    found = made.cells[0].ejection
    assert found is not None
    assert found.details.startswith("50.0 % of 100 < threshold 52.0 %")


def test_split_answers_of_5xx_were_reached() -> None:
    made = world(**SPLIT)
    for cell in made.cells[1:]:
        made.ends(cell, OK, 100)
    made.ends(made.cells[0], UNAVAILABLE, 100)
    made.sweep(10.0)
    assert made.moved() == {"detected_success_rate": 1, "enforced_success_rate": 1, "enforced_total": 1} | {
        "detected_failure_percentage": 1
    }


@pytest.mark.parametrize("volume,found", [(12, 1), (13, 0)])
def test_a_failure_over_a_connection_counts_as_reached_and_as_failed(volume: int, found: int) -> None:
    made = world(
        hosts=1,
        **SPLIT,
        success_rate_minimum_hosts=9,
        failure_percentage_threshold=50,
        failure_percentage_minimum_hosts=1,
        failure_percentage_request_volume=volume,
    )
    made.ends(made.cells[0], RESET, 6)
    made.sweep(10.0)
    assert made.stat("ejections_detected_local_origin_failure_percentage") == found
    assert made.stat("ejections_detected_failure_percentage") == 0


def test_each_kind_of_end_is_counted_once() -> None:
    made = world(hosts=1, **SPLIT, failure_percentage_minimum_hosts=1)
    cell = made.cells[0]
    for how, times in ((OK, 5), (ERROR, 4), (REFUSED, 3), (RESET, 2)):
        made.ends(cell, how, times)
    assert made.cluster.window.read() == {cell: Tally(5, 4, 5, 2)}
    few = world(hosts=2, **SPLIT, failure_percentage_minimum_hosts=1)
    few.ends(few.cells[0], OK, 3)
    few.ends(few.cells[1], ERROR, 4)
    assert few.cluster.window.read(4) == {few.cells[1]: Tally(0, 4, 0, 0)}


# ---------------------------------------------------------------------- late sweeps, changes of the cluster


def test_a_late_sweep_judges_the_interval_as_if_it_had_come_in_time() -> None:
    made = world()
    one_bad(made)
    changes = made.sweep(25.0)
    assert [(change.at, change.cell) for change in changes] == [(10.0, made.cells[0])]
    assert made.cells[0].ejection is not None
    assert made.cells[0].ejection.until == 40.0
    assert made.due == 30.0, "the intervals go on where they were"


def test_an_ejection_can_be_over_when_the_first_call_after_a_long_silence_looks() -> None:
    made = world()
    one_bad(made)
    ejection, back = made.sweep(44.0)
    assert (ejection.at, ejection.cell) == (10.0, made.cells[0])
    assert back == (40.0, made.cells[0], None)
    assert made.cells[0].ejections == 1
    made.sweep(50.0)
    assert made.cells[0].ejections == 0
    other = world()
    one_bad(other)
    other.sweep(50.0)
    assert (other.cells[0].ejected, other.cells[0].ejections) == (False, 0)


def test_a_host_that_has_left_is_not_ejected_and_counts_for_no_average() -> None:
    made = world(hosts=6)
    one_bad(made)
    made.ends(made.cells[5], ERROR, 100)
    del made.cluster.endpoints[made.cells[5].address]
    made.sweep(10.0)
    assert ejected(made) == [made.cells[0]]


def test_a_cluster_with_too_few_hosts_counts_nothing() -> None:
    small = World(4, **NO_STREAKS)
    assert not small.detector.counts
    small.fail(small.cells[0], 100)
    small.ends(small.cells[1], OK, 100)
    assert small.cluster.window.read() == {}
    assert World(5).detector.counts
    assert World(4, failure_percentage_minimum_hosts=4).detector.counts
    assert not World(0, success_rate_minimum_hosts=0).detector.counts


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_lose_no_count_and_close_a_window_once() -> None:
    made = world(hosts=5, success_rate_request_volume=4000)
    start = threading.Barrier(8)

    def storm(number: int) -> int:
        start.wait()
        for _ in range(500):
            made.ends(made.cells[0], ERROR if number % 2 else OK)
            for cell in made.cells[1:]:
                made.ends(cell, OK)
        start.wait()
        return len(made.sweep(10.0))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(storm, range(8))) == 1
    found = made.cells[0].ejection
    assert found is not None
    assert "50.0 % of 4000 <" in found.details
    assert made.stat("ejections_enforced_total") == 1
