"""Retry admission: max_retries, or Envoy's retry budget."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.cluster import RetryBudget, Thresholds
from meshlib.policy.budget import admit_retry, release, retry_limit
from meshlib.state.cells import PriorityState


def loaded(requests: int, pending: int = 0) -> PriorityState:
    state = PriorityState()
    state.requests.update(dict.fromkeys(range(requests)))
    state.pending.update(dict.fromkeys(range(pending)))
    return state


def test_without_a_budget_max_retries_counts() -> None:
    assert retry_limit(loaded(1000), Thresholds()) == 3
    assert retry_limit(loaded(0), Thresholds(max_retries=7)) == 7


@pytest.mark.parametrize(
    "requests,pending,expected",
    [(0, 0, 3), (15, 0, 3), (19, 0, 3), (20, 0, 4), (24, 0, 4), (20, 5, 5), (1000, 0, 200)],
)
def test_the_budget_is_a_share_of_active_and_pending_requests_with_a_floor(
    requests: int, pending: int, expected: int
) -> None:
    assert retry_limit(loaded(requests, pending), Thresholds(retry_budget=RetryBudget())) == expected


def test_the_budget_takes_the_place_of_max_retries() -> None:
    assert retry_limit(loaded(0), Thresholds(max_retries=100, retry_budget=RetryBudget(0.0, 1))) == 1


def test_a_retry_counts_until_it_is_released() -> None:
    state, limits = PriorityState(), Thresholds(max_retries=2)
    assert [admit_retry(state, limits, token) for token in "abc"] == [True, True, False]
    release(state, "a")
    assert admit_retry(state, limits, "c")


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_get_no_more_than_the_budget() -> None:
    state, limits = loaded(100), Thresholds(retry_budget=RetryBudget(10.0, 3))
    start = threading.Barrier(8)

    def work(_: int) -> int:
        start.wait()
        return sum(admit_retry(state, limits, object()) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        admitted = sum(pool.map(work, range(8)))
    assert admitted == len(state.retries) == 10
