"""Outlier detection by streaks: Envoy's rules (which were held against a running Envoy 1.40)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify
from parts.outliers import ERROR, OK, REFUSED, RESET, UNAVAILABLE, Draw, World


def test_the_fifth_5xx_in_a_row_ejects_for_thirty_seconds() -> None:
    world = World()
    cell = world.cells[0]
    assert world.fail(cell, 4) is None
    before = world.cluster.epoch
    ejection = world.fail(cell, 1, now=7.0)
    assert ejection is not None
    assert cell.ejection is ejection
    assert (ejection.since, ejection.until, ejection.reason) == (7.0, 37.0, "consecutive_5xx")
    assert ejection.details == "5 in a row"
    assert list(world.cluster.ejected) == [cell]
    assert world.cluster.epoch is not before
    assert world.stat("ejections_enforced_total") == 1
    assert world.stat("ejections_enforced_consecutive_5xx") == 1


def test_a_response_below_500_ends_the_streak_and_what_says_nothing_does_not() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, 4)
    world.detector.record(world.cluster, cell, OK, 0.0, 10, Draw())
    world.fail(cell, 4)
    for failure in (Failure.OVERFLOW, Failure.LOCAL, Failure.NESTED):
        assert world.detector.record(world.cluster, cell, classify(Outcome(failure=failure)), 0.0, 10, Draw()) is None
    assert not cell.ejected
    assert world.fail(cell, 1) is not None


def test_local_failures_count_like_5xx() -> None:
    world = World()
    failures = (Failure.CONNECT, Failure.RESET, Failure.PER_TRY_TIMEOUT, Failure.TIMEOUT, Failure.PROTOCOL)
    for failure in failures:
        world.detector.record(world.cluster, world.cells[0], classify(Outcome(failure=failure)), 0.0, 10, Draw())
    assert world.cells[0].ejected


@pytest.mark.parametrize(
    "hosts,percent,always_one,ejected",
    [(10, 10, False, 1), (5, 10, False, 0), (5, 10, True, 1), (4, 50, False, 2), (3, 33, False, 0), (3, 100, False, 3)],
)
def test_the_ejected_share_stays_at_or_under_the_maximum(
    hosts: int, percent: int, always_one: bool, ejected: int
) -> None:
    world = World(hosts, max_ejection_percent=percent, always_eject_one_host=always_one)
    for cell in world.cells:
        world.fail(cell)
    assert len(world.cluster.ejected) == ejected
    assert sum(cell.ejected for cell in world.cells) == ejected
    assert world.stat("ejections_overflow") == hosts - ejected


def test_a_host_that_could_not_be_ejected_needs_a_whole_streak_again() -> None:
    world = World(5)
    world.fail(world.cells[0], 9)
    assert world.stat("ejections_overflow") == 1
    world.fail(world.cells[0], 1)
    assert world.stat("ejections_overflow") == 2


def test_enforcing_is_drawn_and_an_unenforced_ejection_leaves_no_trace_but_the_detection() -> None:
    world = World(enforcing_consecutive_5xx=30)
    assert world.fail(world.cells[0], rng=Draw(0.30)) is None
    assert not world.cluster.ejected
    assert world.stat("ejections_detected_consecutive_5xx") == 1
    assert world.stat("ejections_enforced_total") == 0
    assert world.fail(world.cells[0], rng=Draw(0.29)) is not None


def test_it_comes_back_at_the_first_sweep_after_its_time_with_a_clean_streak() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, now=7.0)
    assert world.sweep(30.0) == []
    assert world.due == 37.0
    assert cell.ejected
    world.fail(cell, 3, now=35.0)  # in panic it still gets traffic; that counts for nothing
    before = world.cluster.epoch
    assert world.sweep(40.0) == [(37.0, cell, None)]
    assert not cell.ejected
    assert not world.cluster.ejected
    assert world.cluster.epoch is not before
    assert world.fail(cell, 4, now=41.0) is None


def test_each_ejection_is_longer_up_to_the_maximum() -> None:
    world = World(base_ejection_time=30.0, max_ejection_time=75.0)
    cell, now, lengths = world.cells[0], 0.0, []
    for _ in range(5):
        ejection = world.fail(cell, now=now)
        assert ejection is not None
        lengths.append(ejection.until - ejection.since)
        now = ejection.until
        world.sweep(now)
    assert lengths == [30.0, 60.0, 75.0, 75.0, 75.0]
    assert cell.ejections == 4  # Envoy stops counting once base * n reaches max + base


def test_the_multiplier_shrinks_by_one_per_healthy_interval() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, now=0.0)
    world.sweep(30.0)
    world.fail(cell, now=31.0)
    assert cell.ejections == 2
    for tick in (40.0, 50.0, 60.0, 70.0, 80.0, 90.0):
        world.sweep(tick)
        assert cell.ejected
    world.sweep(91.0)
    assert (cell.ejected, cell.ejections) == (False, 2)
    world.sweep(100.0)  # back for less than an interval
    world.sweep(104.0)  # an early sweep forgives nothing
    assert cell.ejections == 2
    world.sweep(110.0)
    assert cell.ejections == 1
    world.sweep(120.0)
    assert cell.ejections == 0
    world.sweep(130.0)
    assert cell.ejections == 0


@pytest.mark.parametrize("late,left", [(90.0, 2), (99.9, 2), (100.0, 1), (109.9, 1), (110.0, 0), (1000.0, 0)])
def test_a_sweep_that_comes_late_makes_up_for_the_intervals_that_it_missed(late: float, left: int) -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, now=0.0)
    world.sweep(30.0)
    world.fail(cell, now=30.0)
    assert world.sweep(late) == [(90.0, cell, None)], "back since 90, though nobody looked"
    assert (cell.ejected, cell.ejections) == (False, left)


def test_a_new_detector_goes_on_with_what_the_old_one_ejected() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell)
    world.configure(consecutive_5xx=2)
    world.sweep(30.0)
    assert (cell.ejected, cell.ejections) == (False, 1)
    world.configure(consecutive_5xx=2)
    world.sweep(31.0)
    world.sweep(40.0)
    assert cell.ejections == 0
    assert world.fail(cell, 2) is not None


def test_a_lowered_threshold_counts_the_streak_that_is_there() -> None:
    world = World()
    world.fail(world.cells[0], 4)
    world.configure(consecutive_5xx=2)
    assert world.fail(world.cells[0], 1) is not None


def test_a_host_that_has_left_is_not_ejected_any_more() -> None:
    world = World()
    gone = world.cluster.endpoints.pop(world.cells[0].address)
    assert world.fail(gone, 20) is None
    assert world.moved() == {}
    world.cluster.endpoint(gone.address)  # another host of that address has come
    assert world.fail(gone, 20) is None


# ---------------------------------------------------------------------- gateway failures and local origin


def test_gateway_failures_are_detected_and_by_default_eject_nobody() -> None:
    world = World(consecutive_5xx=100)
    assert world.ends(world.cells[0], UNAVAILABLE, 10) is None
    assert world.moved() == {"detected_consecutive_gateway_failure": 2}


def test_gateway_failures_in_a_row_eject_where_they_are_enforced() -> None:
    world = World(consecutive_gateway_failure=3, enforcing_consecutive_gateway_failure=100)
    ejection = world.ends(world.cells[0], UNAVAILABLE, 3, now=1.0)
    assert ejection is not None
    assert (ejection.until, ejection.reason) == (31.0, "consecutive_gateway_failure")
    assert world.moved() == {
        "detected_consecutive_gateway_failure": 1,
        "enforced_consecutive_gateway_failure": 1,
        "enforced_total": 1,
    }


@pytest.mark.parametrize("other", [ERROR, OK])
def test_an_answer_that_is_no_gateway_failure_ends_their_streak(other: object) -> None:
    world = World(consecutive_5xx=100, consecutive_gateway_failure=3)
    for how in (UNAVAILABLE, UNAVAILABLE, other, UNAVAILABLE, UNAVAILABLE):
        world.ends(world.cells[0], how)  # type: ignore[arg-type]
    assert world.moved() == {}
    world.ends(world.cells[0], UNAVAILABLE)
    assert world.moved() == {"detected_consecutive_gateway_failure": 1}


def test_both_streaks_complete_at_once_and_the_first_to_be_enforced_ejects() -> None:
    world = World()
    ejection = world.ends(world.cells[0], UNAVAILABLE, 5)
    assert ejection is not None
    assert ejection.reason == "consecutive_5xx"
    assert world.stat("ejections_detected_consecutive_gateway_failure") == 1
    both = World(enforcing_consecutive_gateway_failure=100)
    both.ends(both.cells[0], UNAVAILABLE, 5)
    assert both.stat("ejections_detected_consecutive_5xx") == 0, "it was out already"


def test_a_threshold_of_zero_detects_nothing() -> None:
    world = World(consecutive_5xx=0, consecutive_gateway_failure=0)
    assert world.ends(world.cells[0], UNAVAILABLE, 50) is None
    assert world.moved() == {}


def test_local_failures_are_gateway_failures_unless_they_are_split() -> None:
    world = World(consecutive_5xx=100, consecutive_gateway_failure=2, consecutive_local_origin_failure=1)
    world.ends(world.cells[0], REFUSED, 2)
    assert world.moved() == {"detected_consecutive_gateway_failure": 1}
    split = World(consecutive_5xx=2, consecutive_gateway_failure=2, split_external_local_origin_errors=True)
    split.ends(split.cells[0], REFUSED, 4)
    assert split.moved() == {}
    ejection = split.ends(split.cells[0], REFUSED)
    assert ejection is not None
    assert (ejection.reason, ejection.details) == ("consecutive_local_origin_failure", "5 in a row")


@pytest.mark.parametrize("other", [OK, ERROR, UNAVAILABLE])
def test_any_answer_ends_a_streak_of_local_failures(other: object) -> None:
    world = World(consecutive_local_origin_failure=2, split_external_local_origin_errors=True)
    for how in (REFUSED, other, REFUSED, other, REFUSED):
        world.ends(world.cells[0], how)  # type: ignore[arg-type]
    assert world.moved() == {}


def test_a_failure_over_a_connection_begins_a_streak_of_local_failures_and_continues_none() -> None:
    world = World(consecutive_local_origin_failure=2, split_external_local_origin_errors=True)
    world.ends(world.cells[0], RESET, 20)
    late = classify(Outcome(failure=Failure.PER_TRY_TIMEOUT))
    world.ends(world.cells[0], late, 20)
    assert world.moved() == {}
    unsent = classify(Outcome(failure=Failure.PER_TRY_TIMEOUT, request_sent=False))
    assert world.ends(world.cells[0], unsent) is not None, "it had no connection: the second in a row"


def test_split_local_failures_leave_the_streaks_of_answers_alone() -> None:
    world = World(consecutive_5xx=3, split_external_local_origin_errors=True)
    for how in (ERROR, ERROR, RESET, REFUSED):
        world.ends(world.cells[0], how)
    assert world.ends(world.cells[0], ERROR) is not None


# ---------------------------------------------------------------------- jitter, health checks


def test_jitter_is_drawn_up_to_its_maximum_in_milliseconds() -> None:
    world = World(max_ejection_percent=100, max_ejection_time_jitter=5.0)
    times = []
    for cell, drawn in zip(world.cells, (0.0, 0.5, 0.99999), strict=False):
        ejection = world.fail(cell, rng=Draw(drawn))
        assert ejection is not None
        times.append(ejection.until)
    assert times == [30.0, 32.5, 35.0]


def test_jitter_is_added_to_the_longest_time() -> None:
    world = World(base_ejection_time=30.0, max_ejection_time=30.0, max_ejection_time_jitter=4.0)
    ejection = world.fail(world.cells[0], rng=Draw(0.5))
    assert ejection is not None
    assert ejection.until == 32.0


def test_a_health_check_that_succeeds_lets_a_host_back() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, now=1.0)
    before = world.cluster.epoch
    assert world.detector.healthy(world.cluster, cell, 4.0)
    assert (cell.ejected, cell.ejections, list(world.cluster.ejected)) == (False, 1, [])
    assert world.cluster.epoch is not before
    assert not world.detector.healthy(world.cluster, cell, 5.0), "it was back"
    world.sweep(10.0)
    assert cell.ejections == 1
    world.sweep(20.0)  # healthy for an interval by now
    assert cell.ejections == 0


def test_a_health_check_lets_nobody_back_where_that_is_not_wanted() -> None:
    world = World(successful_active_health_check_uneject_host=False)
    world.fail(world.cells[0])
    assert not world.detector.healthy(world.cluster, world.cells[0], 4.0)
    assert world.cells[0].ejected


# ---------------------------------------------------------------------- threads


def test_a_thread_that_finds_another_ejecting_the_same_host_leaves_it_to_that_one() -> None:
    world = World()
    world.fail(world.cells[0], 4)
    world.cluster.ejected[world.cells[0]] = None  # where another thread stands between taking the place and ejecting
    assert world.fail(world.cells[0], 1) is None
    assert world.stat("ejections_detected_consecutive_5xx") == 0
    assert list(world.cluster.ejected) == [world.cells[0]]


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_eject_one_host_once() -> None:
    world = World()
    start = threading.Barrier(8)

    def storm(_: int) -> int:
        start.wait()
        return sum(
            world.detector.record(world.cluster, world.cells[0], ERROR, 0.0, 10, Draw()) is not None for _ in range(500)
        )

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(storm, range(8))) == 1
    assert world.cells[0].ejections == 1
    assert world.stat("ejections_enforced_total") == 1
