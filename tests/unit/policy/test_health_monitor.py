"""The thresholds and the schedule of one health check of one endpoint."""

import pytest

from meshlib.model.health import HealthCheck, HttpHealthCheck
from meshlib.policy.health import PASSED, FailureKind, Finding, HealthMonitor, combined, contains
from meshlib.state.cells import ActiveHealth

BAD = Finding(FailureKind.ACTIVE, "status 503")
RETRIABLE = Finding(FailureKind.ACTIVE, "status 429", retriable=True)
SILENT = Finding(FailureKind.NETWORK_TIMEOUT)
REFUSED = Finding(FailureKind.NETWORK)
SPARED = Finding(degraded=True)


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def monitor(unhealthy: int = 3, healthy: int = 2, **more: float) -> HealthMonitor:
    check = HealthCheck(HttpHealthCheck(), 1.0, 10.0, unhealthy, healthy, **more)  # type: ignore[arg-type]
    return HealthMonitor(check)


def passed_once(**more: int) -> HealthMonitor:
    made = monitor(**more)
    assert made.take(PASSED) == "changed"
    return made


def test_the_first_pass_is_enough() -> None:
    assert monitor().flags.failed
    assert not passed_once(healthy=5).flags.failed


def test_after_a_failure_it_is_not() -> None:
    made = monitor(healthy=3)
    assert made.take(REFUSED) == "unchanged"
    assert [made.take(PASSED) for _ in range(4)] == ["pending", "pending", "changed", "unchanged"]


def test_passes_must_be_in_a_row() -> None:
    made = monitor(healthy=2)
    made.take(REFUSED)
    assert [made.take(each) for each in (PASSED, SILENT, PASSED, PASSED)] == [
        "pending",
        "unchanged",
        "pending",
        "changed",
    ]


@pytest.mark.parametrize("failure", [REFUSED, SILENT, RETRIABLE])
def test_what_may_pass_counts_towards_the_threshold(failure: Finding) -> None:
    made = passed_once()
    assert [made.take(failure) for _ in range(4)] == ["pending", "pending", "changed", "unchanged"]
    assert made.flags.failed
    again = passed_once()
    assert [again.take(each) for each in (failure, failure, PASSED, failure, failure)][-1] == "pending"


@pytest.mark.parametrize("failure", [BAD, Finding(FailureKind.PASSIVE)])
def test_a_plain_no_does_at_once(failure: Finding) -> None:
    made = passed_once(unhealthy=9)
    assert made.take(failure) == "changed"
    assert made.flags.failed


def test_the_timeout_flag_goes_by_the_last_failure_and_goes_with_health() -> None:
    made = passed_once(unhealthy=2, healthy=1)
    made.take(SILENT)
    assert not made.flags.timeout, "still healthy"
    made.take(SILENT)
    assert made.flags == ActiveHealth(failed=True, timeout=True)
    made.take(REFUSED)
    assert made.flags == ActiveHealth(failed=True)
    made.take(SILENT)
    made.take(PASSED)
    assert made.flags == ActiveHealth()


def test_degraded_follows_each_pass() -> None:
    made = passed_once()
    assert [made.take(each) for each in (SPARED, SPARED, PASSED)] == ["changed", "unchanged", "changed"]
    made.take(SPARED)
    made.take(REFUSED)
    assert made.flags.degraded, "what failed says nothing of it"


def test_who_asks_to_be_excluded_is_until_it_is_well() -> None:
    made = passed_once(healthy=2)
    made.take(Finding(FailureKind.ACTIVE, excluded=True))
    assert made.flags == ActiveHealth(failed=True, excluded=True)
    made.take(PASSED)
    assert made.flags.excluded
    made.take(PASSED)
    assert made.flags == ActiveHealth()


@pytest.mark.parametrize("finding", [PASSED, REFUSED])
def test_pending_ends_with_the_first_result(finding: Finding) -> None:
    made = HealthMonitor(monitor().config, ActiveHealth(failed=True, pending=True))
    assert made.take(finding) == "changed"
    assert not made.flags.pending


ALL = {
    "no_traffic_interval": 60.0,
    "no_traffic_healthy_interval": 50.0,
    "unhealthy_interval": 40.0,
    "unhealthy_edge_interval": 30.0,
    "healthy_edge_interval": 20.0,
}


@pytest.mark.parametrize(
    ("given", "passed", "transition", "traffic", "expected"),
    [
        (ALL, True, "unchanged", True, 10.0),
        (ALL, True, "changed", True, 10.0),
        (ALL, True, "pending", True, 20.0),
        (ALL, False, "unchanged", True, 40.0),
        (ALL, False, "changed", True, 40.0),
        (ALL, False, "pending", True, 30.0),
        (ALL, True, "unchanged", False, 50.0),
        (ALL, True, "pending", False, 60.0),
        (ALL, False, "unchanged", False, 60.0),
        ({}, True, "pending", True, 10.0),
        ({}, False, "pending", True, 10.0),
        ({}, True, "unchanged", False, 60.0),
        ({"unhealthy_interval": 4.0}, False, "pending", True, 4.0),
        ({"no_traffic_interval": 5.0}, True, "unchanged", False, 5.0),
    ],
)
def test_when_the_next_one_is_due(given, passed, transition, traffic, expected):
    assert monitor(**given).next_check(passed, transition, traffic, Fixed(0.0)) == expected


def test_jitter() -> None:
    made = monitor(interval_jitter_percent=50, interval_jitter=4.0, initial_jitter=7.0)
    assert made.jittered(10.0, Fixed(0.0)) == 10.0
    assert made.jittered(10.0, Fixed(0.5)) == 14.5
    assert made.first_check(Fixed(0.5)) == 3.5
    assert monitor().first_check(Fixed(0.5)) == 0.0
    assert monitor().jittered(0.0, Fixed(0.0)) > 0.0


def test_several_checks_must_all_pass() -> None:
    well, failed, spared = ActiveHealth(), ActiveHealth(failed=True, timeout=True), ActiveHealth(degraded=True)
    assert combined([well, well]) == well
    assert combined([well, failed, spared]) == ActiveHealth(failed=True, degraded=True, timeout=True)


@pytest.mark.parametrize(
    ("expected", "data", "found"),
    [
        ((), b"", True),
        ((b"a", b"b"), b"xaxbx", True),
        ((b"b", b"a"), b"xaxbx", False),
        ((b"aa", b"a"), b"aa", False),
        ((b"aa", b"a"), b"aaa", True),
    ],
)
def test_the_parts_of_an_answer_stand_one_behind_the_other(expected, data, found):
    assert contains(expected, data) is found
