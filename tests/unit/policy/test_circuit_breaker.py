"""The breaker: closed, open, half-open."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.cluster import CircuitBreaker
from meshlib.policy.breaker import Breaker, Permit, Transition


def make(**policy: float) -> tuple[Breaker, list[Transition]]:
    seen: list[Transition] = []
    values = {"fail_max": 3, "reset_timeout": 10.0, **policy}
    return Breaker(CircuitBreaker(**values), "payments", [seen.append]), seen  # type: ignore[arg-type]


def permit(breaker: Breaker, now: float = 0.0) -> Permit:
    given = breaker.permit(now)
    assert given is not None
    return given


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.record(permit(breaker, now), False, now)


def test_consecutive_failures_open_it_and_a_success_starts_the_count_anew() -> None:
    breaker, seen = make()
    fail(breaker, 0.0, 2)
    breaker.record(permit(breaker), True, 0.0)
    fail(breaker, 1.0, 2)
    assert (breaker.current_state, breaker.fail_counter, seen) == ("closed", 2, [])
    fail(breaker, 2.0)
    assert breaker.current_state == "open"
    assert breaker.permit(2.0) is None
    figures = {"consecutive_failures": 3, "fail_max": 3}
    assert seen == [Transition("payments", "closed", "open", 2.0, "consecutive failures", figures, 1)]


def test_after_the_reset_timeout_one_probe_decides() -> None:
    breaker, seen = make()
    fail(breaker, 0.0, 3)
    assert breaker.permit(9.999) is None
    assert breaker.retry_after(4.0) == 6.0
    probe = permit(breaker, 10.0)
    assert probe.probe
    assert breaker.current_state == "half-open"
    assert breaker.permit(10.0) is None
    breaker.record(probe, True, 11.0)
    assert breaker.current_state == "closed"
    assert [change.new for change in seen] == ["open", "half-open", "closed"]
    assert seen[1].figures == {"open_for": 10.0}


def test_a_failed_probe_opens_it_for_another_reset_timeout() -> None:
    breaker, _ = make()
    fail(breaker, 0.0, 3)
    breaker.record(permit(breaker, 10.0), False, 12.0)
    assert breaker.permit(21.9) is None
    assert permit(breaker, 22.0).probe


def test_as_many_probes_as_permitted_are_in_flight_and_each_end_frees_a_place() -> None:
    breaker, _ = make(half_open_permits=2, success_threshold=3)
    fail(breaker, 0.0, 3)
    first, second = permit(breaker, 10.0), permit(breaker, 10.0)
    assert breaker.permit(10.0) is None
    breaker.record(first, True, 10.0)
    breaker.record(first, True, 10.0)  # a second word about the same probe counts for nothing
    third = permit(breaker, 10.0)
    assert breaker.permit(10.0) is None
    breaker.record(second, True, 10.0)
    assert breaker.success_counter == 2
    breaker.record(third, True, 10.0)
    assert breaker.current_state == "closed"


def test_a_cancelled_probe_says_nothing_and_frees_its_place() -> None:
    breaker, _ = make()
    fail(breaker, 0.0, 3)
    breaker.release(permit(breaker, 10.0))
    assert (breaker.current_state, breaker.success_counter) == ("half-open", 0)
    assert permit(breaker, 10.0).probe
    assert breaker.permit(10.0) is None


def test_releasing_a_closed_breakers_permit_changes_nothing() -> None:
    breaker, _ = make()
    fail(breaker, 0.0, 2)
    breaker.release(permit(breaker))
    assert breaker.fail_counter == 2


def test_what_was_started_before_a_transition_has_no_say_after_it() -> None:
    breaker, _ = make()
    slow = permit(breaker)
    fail(breaker, 0.0, 3)
    breaker.record(slow, True, 1.0)
    assert breaker.current_state == "open"
    probe = permit(breaker, 10.0)
    breaker.record(slow, False, 10.0)
    assert breaker.current_state == "half-open"
    breaker.record(probe, True, 10.0)
    fail(breaker, 11.0, 2)
    breaker.record(probe, False, 11.0)
    assert breaker.current_state == "closed"


def test_by_hand_it_opens_closes_and_half_opens() -> None:
    breaker, seen = make()
    breaker.open(5.0)
    assert breaker.permit(14.9) is None
    breaker.open(10.0)
    assert breaker.permit(19.9) is None
    breaker.half_open(19.9)
    assert permit(breaker, 19.9).probe
    breaker.close(20.0)
    breaker.close(21.0)
    assert not permit(breaker, 20.0).probe
    assert [change.new for change in seen] == ["open", "open", "half-open", "closed"]
    assert [change.number for change in seen] == [1, 2, 3, 4]


def test_a_new_policy_counts_from_the_next_decision() -> None:
    breaker, _ = make()
    fail(breaker, 0.0, 2)
    breaker.policy = CircuitBreaker(fail_max=5, reset_timeout=1.0)
    fail(breaker, 0.0, 2)
    assert breaker.current_state == "closed"
    fail(breaker, 0.0)
    assert permit(breaker, 1.0).probe


def test_a_listener_that_raises_is_logged_and_the_others_are_still_called(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Transition] = []

    def broken(_: Transition) -> None:
        raise RuntimeError("no pager today")

    breaker = Breaker(CircuitBreaker(fail_max=1), "payments", [broken, seen.append])
    fail(breaker, 0.0)
    assert breaker.current_state == "open"
    assert len(seen) == 1
    assert "no pager today" in caplog.text


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_open_it_once_and_get_exactly_the_permitted_probes() -> None:
    breaker, seen = make(fail_max=50, half_open_permits=3)
    start = threading.Barrier(8)

    def storm(_: int) -> None:
        start.wait()
        for _ in range(500):
            given = breaker.permit(0.0)
            if given is not None:
                breaker.record(given, False, 0.0)

    def ask(_: int) -> int:
        start.wait()
        return sum(breaker.permit(10.0) is not None for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storm, range(8)))
        assert [change.new for change in seen] == ["open"]
        assert sum(pool.map(ask, range(8))) == 3
    assert [change.new for change in seen] == ["open", "half-open"]
