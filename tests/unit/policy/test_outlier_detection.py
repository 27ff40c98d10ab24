"""Outlier detection by consecutive 5xx: Envoy's rules (the ejection limits were held against a running Envoy 1.40)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify
from meshlib.policy.outlier import OutlierDetector
from meshlib.state.cells import ClusterState, Ejection, EndpointState

OK = classify(Outcome(200))
ERROR = classify(Outcome(500))


class Draw:
    """The next draw; a test that must not draw gives none."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


class World:
    """One cluster of `hosts` hosts under one detector."""

    def __init__(self, hosts: int = 10, **config: object) -> None:
        self.cluster = ClusterState("payments")
        self.cells = [self.cluster.endpoint(f"10.0.0.{n}:80") for n in range(hosts)]
        self.detector = OutlierDetector(OutlierDetection(**config))  # type: ignore[arg-type]

    def fail(self, cell: EndpointState, times: int = 5, now: float = 0.0, rng: Draw | None = None) -> Ejection | None:
        found = None
        for _ in range(times):
            ended = self.detector.record(self.cluster, cell, ERROR, now, len(self.cells), rng or Draw())
            found = found or ended
        return found

    def stat(self, name: str) -> int:
        return self.cluster.stats[f"outlier_detection.{name}"].value

    def stat_or_zero(self, name: str) -> int:
        found = self.cluster.stats.get(f"outlier_detection.{name}")
        return found.value if found else 0


def test_the_fifth_5xx_in_a_row_ejects_for_thirty_seconds() -> None:
    world = World()
    cell = world.cells[0]
    assert world.fail(cell, 4) is None
    before = world.cluster.epoch
    ejection = world.fail(cell, 1, now=7.0)
    assert ejection is not None
    assert cell.ejection is ejection
    assert (ejection.since, ejection.until, ejection.reason) == (7.0, 37.0, "consecutive_5xx")
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
    assert world.detector.sweep(world.cluster, 30.0) == 40.0
    assert cell.ejected
    world.fail(cell, 3, now=35.0)  # in panic it still gets traffic; that counts for nothing
    before = world.cluster.epoch
    world.detector.sweep(world.cluster, 40.0)
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
        world.detector.sweep(world.cluster, now)
    assert lengths == [30.0, 60.0, 75.0, 75.0, 75.0]
    assert cell.ejections == 4  # Envoy stops counting once base * n reaches max + base


def test_the_multiplier_shrinks_by_one_per_healthy_interval() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell, now=0.0)
    world.detector.sweep(world.cluster, 30.0)
    world.fail(cell, now=31.0)
    assert cell.ejections == 2
    for tick in (40.0, 50.0, 60.0, 70.0, 80.0, 90.0):
        world.detector.sweep(world.cluster, tick)
        assert cell.ejected
    world.detector.sweep(world.cluster, 100.0)
    assert (cell.ejected, cell.ejections) == (False, 2)
    world.detector.sweep(world.cluster, 104.0)  # an early sweep forgives nothing
    assert cell.ejections == 2
    world.detector.sweep(world.cluster, 110.0)
    assert cell.ejections == 1
    world.detector.sweep(world.cluster, 120.0)
    world.detector.sweep(world.cluster, 130.0)
    assert cell.ejections == 0


def test_a_new_detector_goes_on_with_what_the_old_one_ejected() -> None:
    world = World()
    cell = world.cells[0]
    world.fail(cell)
    world.detector = OutlierDetector(OutlierDetection(consecutive_5xx=2))
    world.detector.sweep(world.cluster, 30.0)
    assert (cell.ejected, cell.ejections) == (False, 1)
    world.detector = OutlierDetector(OutlierDetection(consecutive_5xx=2))
    world.detector.sweep(world.cluster, 31.0)
    world.detector.sweep(world.cluster, 41.0)
    assert cell.ejections == 0
    assert world.fail(cell, 2) is not None


def test_a_lowered_threshold_counts_the_streak_that_is_there() -> None:
    world = World()
    world.fail(world.cells[0], 4)
    world.detector = OutlierDetector(OutlierDetection(consecutive_5xx=2))
    assert world.fail(world.cells[0], 1) is not None


def test_a_host_that_left_makes_room() -> None:
    world = World()
    world.fail(world.cells[0])
    world.detector.forget(world.cluster, world.cells[0])
    assert world.fail(world.cells[1]) is not None
    assert list(world.cluster.ejected) == [world.cells[1]]


def test_a_thread_that_finds_another_ejecting_the_same_host_leaves_it_to_that_one() -> None:
    world = World()
    world.fail(world.cells[0], 4)
    world.cluster.ejected[world.cells[0]] = None  # where another thread stands between taking the place and ejecting
    assert world.fail(world.cells[0], 1) is None
    assert world.stat_or_zero("ejections_detected_consecutive_5xx") == 0
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
