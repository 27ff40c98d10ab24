"""The breaker's rates over windows, slow calls, the ramp after closing, and the end of a half-open that never ends."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshlib.model.cluster import CircuitBreaker
from meshlib.policy.breaker import Breaker, Permit, Transition
from meshlib.policy.windows import CountWindow, Figures, TimeWindow


def make(**policy: Any) -> tuple[Breaker, list[Transition]]:
    seen: list[Transition] = []
    values = {"fail_max": 0, "reset_timeout": 10.0, "minimum_calls": 4, **policy}
    return Breaker(CircuitBreaker(**values), "payments", [seen.append]), seen


def permit(breaker: Breaker, now: float = 0.0) -> Permit:
    given = breaker.permit(now)
    assert given is not None
    return given


def calls(breaker: Breaker, now: float, outcomes: str, took: float = 0.0) -> None:
    """`.` is a success, `x` a failure; what comes after the breaker has opened is not made."""
    for outcome in outcomes:
        given = breaker.permit(now)
        if given is not None:
            breaker.record(given, outcome == ".", now + took)


def test_a_failure_rate_over_the_last_calls_opens_it_with_the_figures() -> None:
    breaker, seen = make(failure_rate=50, window_size=6)
    calls(breaker, 0.0, "x.....")
    calls(breaker, 1.0, "xx.")
    assert (breaker.current_state, breaker.fail_counter) == ("closed", 0)
    calls(breaker, 2.0, "x")
    figures = {"calls": 6, "failures": 3, "slow_calls": 0, "failure_rate": 50.0, "threshold": 50}
    assert seen == [Transition("payments", "closed", "open", 2.0, "failure rate", figures, 1)]


def test_the_calls_that_have_left_the_window_do_not_count() -> None:
    breaker, _ = make(failure_rate=50, window_size=4, minimum_calls=4)
    calls(breaker, 0.0, "x...x...x...x...")
    assert breaker.current_state == "closed"
    calls(breaker, 0.0, "x")
    assert breaker.current_state == "closed", "one of four"
    calls(breaker, 0.0, "x")
    assert breaker.current_state == "open", "two of four"


@pytest.mark.parametrize("window", [{"window_size": 100}, {"window_type": "time", "window_size": 10.0}])
def test_nothing_is_judged_before_the_minimum_of_calls_and_a_success_may_complete_it(window: dict[str, Any]) -> None:
    breaker, seen = make(failure_rate=50, minimum_calls=10, **window)
    calls(breaker, 0.0, "xxxxxxxxx")
    assert breaker.current_state == "closed"
    calls(breaker, 0.0, ".")
    assert breaker.current_state == "open"
    assert seen[0].figures["failure_rate"] == 90.0


def test_a_window_over_calls_does_not_wait_for_more_than_it_holds() -> None:
    breaker, _ = make(failure_rate=100, window_size=3, minimum_calls=100)
    calls(breaker, 0.0, "xxx")
    assert breaker.current_state == "open"


def test_a_window_over_time_forgets() -> None:
    breaker, seen = make(failure_rate=50, window_type="time", window_size=10.0)
    calls(breaker, 0.5, "xx.")
    calls(breaker, 10.5, "....")
    calls(breaker, 10.6, "xx")
    assert breaker.current_state == "closed", "two of six, for those of the first second are gone"
    calls(breaker, 11.0, "xx")
    assert breaker.current_state == "open"
    assert seen[0].figures["calls"] == 8


def test_a_rate_may_be_reached_because_good_calls_have_left_the_window() -> None:
    breaker, seen = make(failure_rate=50, window_type="time", window_size=10.0)
    calls(breaker, 0.5, "." * 20)
    calls(breaker, 5.5, "x" * 6)
    assert breaker.current_state == "closed"
    calls(breaker, 11.0, ".")
    assert breaker.current_state == "open"
    assert (seen[0].figures["calls"], seen[0].figures["failures"]) == (7, 6)


def test_slow_calls_are_counted_apart_from_failures() -> None:
    breaker, seen = make(slow_call_rate=50, slow_call_duration=2.0, window_size=10)
    calls(breaker, 0.0, "..", took=2.0)  # not longer than
    calls(breaker, 0.0, "xxx")
    assert breaker.current_state == "closed", "failures are not looked at here"
    calls(breaker, 0.0, ".....", took=2.5)
    assert breaker.current_state == "open"
    assert (seen[0].reason, seen[0].figures) == (
        "slow call rate",
        {"calls": 10, "failures": 3, "slow_calls": 5, "slow_call_rate": 50.0, "threshold": 50},
    )


def test_a_slow_probe_opens_it_again() -> None:
    breaker, seen = make(slow_call_rate=50, slow_call_duration=2.0)
    breaker.open(0.0)
    breaker.record(permit(breaker, 10.0), True, 12.5)
    assert breaker.current_state == "open"
    assert (seen[-1].reason, seen[-1].figures["duration"]) == ("a probe was slow", 2.5)
    breaker.record(permit(breaker, 22.5), True, 24.5)
    assert breaker.current_state == "closed"


def test_consecutive_failures_and_rates_watch_at_once() -> None:
    breaker, seen = make(fail_max=3, failure_rate=90, window_size=100)
    calls(breaker, 0.0, "......xxx")
    assert seen[0].reason == "consecutive failures"


def test_closed_again_it_begins_with_an_empty_window() -> None:
    breaker, _ = make(failure_rate=50, window_size=4)
    calls(breaker, 0.0, "xxxx")
    breaker.record(permit(breaker, 10.0), True, 10.0)
    calls(breaker, 10.0, "xxx")
    assert breaker.current_state == "closed"
    calls(breaker, 10.0, "x")
    assert breaker.current_state == "open"


def test_a_half_open_without_a_decision_ends() -> None:
    breaker, seen = make(fail_max=1, half_open_max_wait=5.0)
    breaker.open(0.0)
    lost = permit(breaker, 10.0)
    assert breaker.permit(14.9) is None
    assert breaker.permit(15.0) is None
    assert (seen[-1].new, seen[-1].reason) == ("open", "half-open for too long")
    assert seen[-1].figures == {"half_open_for": 5.0, "successes": 0}
    breaker.record(lost, True, 16.0)
    assert breaker.current_state == "open"
    assert permit(breaker, 25.0).probe


def test_after_half_open_a_growing_share_passes() -> None:
    breaker, _ = make(fail_max=1, ramp_up=100.0, ramp_up_from=20.0)
    breaker.open(0.0)
    breaker.record(permit(breaker, 10.0), True, 10.0)
    assert breaker.current_state == "closed"

    def share(now: float) -> float:
        return sum(breaker.permit(now) is not None for _ in range(1000)) / 1000

    assert [round(share(10.0 + at), 2) for at in (0.0, 50.0, 75.0, 99.99)] == [0.2, 0.6, 0.8, 1.0]
    assert share(110.0) == 1.0
    assert permit(breaker, 110.0) is permit(breaker, 110.0), "and no more is reckoned"


def test_closing_by_hand_an_open_one_has_no_ramp() -> None:
    breaker, _ = make(fail_max=1, ramp_up=100.0)
    breaker.open(0.0)
    breaker.close(1.0)
    assert all(breaker.permit(1.0) for _ in range(10))


def test_excluded_exceptions_are_successes() -> None:
    breaker, _ = make(fail_max=2, exclude=(KeyError, lambda error: "fine" in str(error)))
    for error in (KeyError("a"), ValueError("fine"), KeyError("b"), ValueError("bad"), KeyError("c"), OSError("worse")):
        breaker.record(permit(breaker), False, 0.0, error)
    assert breaker.current_state == "closed"
    breaker.record(permit(breaker), False, 0.0)  # a failure without an exception
    assert breaker.current_state == "open"


def test_the_policys_own_listeners_and_name() -> None:
    told: list[Transition] = []
    breaker, seen = make(fail_max=1, name="tills", listeners=(told.append,))
    calls(breaker, 0.0, "x")
    assert told == seen
    assert told[0].name == "tills"


def test_a_new_policy_keeps_the_window_unless_it_is_another_one() -> None:
    breaker, _ = make(failure_rate=80, window_size=10)
    calls(breaker, 0.0, "xxx..")
    breaker.policy = CircuitBreaker(fail_max=0, failure_rate=50, window_size=10, minimum_calls=4)
    calls(breaker, 0.0, ".")
    assert breaker.current_state == "open"
    breaker.close(1.0)
    calls(breaker, 1.0, "xxx")
    breaker.policy = CircuitBreaker(fail_max=0, failure_rate=50, window_size=20, minimum_calls=4)
    calls(breaker, 1.0, "x")
    assert breaker.current_state == "closed"


def test_until_when_it_refuses() -> None:
    breaker, _ = make(fail_max=1, half_open_max_wait=5.0)
    assert breaker.refuses_until(0.0) is None
    breaker.open(0.0)
    assert breaker.refuses_until(1.0) == 10.0
    assert breaker.refuses_until(10.0) is None
    permit(breaker, 10.0)
    assert breaker.refuses_until(10.0) == 15.0


# ---------------------------------------------------------------------- threads and tasks


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("kind", ["count", "time"])
def test_eight_threads_lose_no_count(kind: str) -> None:
    policy = CircuitBreaker(failure_rate=1, window_size=1000.0 if kind == "count" else 100.0, minimum_calls=10**9)
    window = CountWindow(policy) if kind == "count" else TimeWindow(policy)
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for index in range(1000):
            window.add(index % 2 == 0, index % 4 == 0, number * 0.01)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    if isinstance(window, TimeWindow):
        assert window.figures(0) == Figures(8000, 4000, 2000)
        return
    for _ in range(500):
        window.add(True, True, 0.0)
    for _ in range(500):
        window.add(False, False, 0.0)
    assert window.figures() == Figures(1000, 500, 500), "nothing of what left has stayed behind"


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("permits", [1, 3])
def test_never_more_probes_than_permitted_by_eight_threads(permits: int) -> None:
    breaker, seen = make(fail_max=1, reset_timeout=0.0, half_open_permits=permits, success_threshold=10**9)
    breaker.open(0.0)
    inside: dict[object, None] = {}
    made: Counter[int] = Counter()
    most = 0

    def work(number: int) -> None:
        nonlocal most
        for index in range(2000):
            given = breaker.permit(1.0)
            if given is None:
                continue
            inside[given] = None
            most = max(most, len(inside))
            made[number] += 1
            del inside[given]
            if index % 3:
                breaker.record(given, True, 1.0)
            else:
                breaker.release(given)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert 1 <= most <= permits
    assert sum(made.values()) > 100
    assert [change.new for change in seen] == ["open", "half-open"]
    assert len(breaker._current().slots) == permits, "each place was given back once"


async def test_never_more_probes_than_permitted_by_a_thousand_tasks() -> None:
    breaker, _ = make(fail_max=1, reset_timeout=0.0, half_open_permits=4, success_threshold=10**9)
    breaker.open(0.0)
    inside = most = made = 0

    async def work() -> None:
        nonlocal inside, most, made
        for _ in range(20):
            given = breaker.permit(1.0)
            if given is not None:
                inside += 1
                made += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
                breaker.record(given, True, 1.0)
            await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(1000)))
    assert most == 4
    assert made >= 20
