"""Admission control: the window, the probability, what counts as a success, and that chance obeys."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.shedding import AdmissionControl
from meshlib.policy.admission import AdmissionController
from parts.flow import Dice


def controller(successes: int, failures: int, now: float = 0.0, **config: Any) -> AdmissionController:
    made = AdmissionController(AdmissionControl(**config))
    for number in range(successes + failures):
        made.record(200 if number < successes else 500, None, now)
    return made


def expected(n: int, s: int, threshold: float = 0.95, aggression: float = 1.0, most: float = 0.8) -> float:
    """The formula of Envoy's documentation."""
    base = (n - s / threshold) / (n + 1)
    return 0.0 if base <= 0 else min(most, base ** (1.0 / aggression))


@given(st.integers(0, 200), st.integers(0, 200), st.floats(1.0, 5.0))
def test_the_probability_is_that_of_the_formula(successes: int, failures: int, aggression: float) -> None:
    made = controller(successes, failures, aggression=aggression)
    found = made.probability(0.0)
    assert found == pytest.approx(expected(successes + failures, successes, aggression=aggression))


@pytest.mark.parametrize(("successes", "failures"), [(0, 0), (95, 5), (100, 0)])
def test_nothing_is_refused_while_enough_succeeds(successes: int, failures: int) -> None:
    made = controller(successes, failures)
    assert not any(made.rejects(1.0, Dice(0.0)) for _ in range(100))


def test_at_most_the_maximum_is_refused_so_that_recovery_is_seen() -> None:
    made = controller(0, 1000)
    rng = random.Random(7)
    refused = sum(made.rejects(1.0, rng) for _ in range(10_000))
    assert 7800 <= refused <= 8200
    assert made.rejected.value == refused


def test_what_is_older_than_the_window_is_forgotten() -> None:
    made = controller(0, 100, now=0.0, sampling_window=30.0)
    made.record(200, None, 29.0)
    assert made.requests == 101
    assert made.probability(29.9) > 0.7
    assert made.probability(30.0) == 0.0
    assert (made.requests, made.successes) == (1, 1)


def test_below_the_threshold_of_requests_a_second_nothing_is_refused() -> None:
    made = controller(0, 299, rps_threshold=10)
    assert made.probability(1.0) == 0.0  # the window counts as whole from its beginning: 299 in 30 seconds
    made.record(500, None, 1.0)
    assert made.probability(1.0) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("status", "grpc_status", "successes", "requests"),
    [
        (200, None, 1, 1),
        (404, None, 1, 1),
        (500, None, 0, 1),
        (503, None, 0, 1),
        (200, 0, 1, 1),
        (200, 14, 0, 1),
        (None, 5, 1, 1),
        (None, 4, 0, 1),
        (None, None, 0, 0),
    ],
)
def test_what_counts_as_a_success(status: Any, grpc_status: Any, successes: int, requests: int) -> None:
    made = AdmissionController(AdmissionControl())
    made.record(status, grpc_status, 0.0)
    assert (made.successes, made.requests) == (successes, requests)
    assert (made.succeeded.value, made.failed.value) == (successes, requests - successes)


def test_success_can_be_said() -> None:
    config = AdmissionControl(http_success_status=((200, 300), (404, 405)), grpc_success_status=(0,))
    made = AdmissionController(config)
    for status in (200, 299, 300, 404, 405):
        made.record(status, None, 0.0)
    made.record(200, 5, 0.0)
    assert (made.successes, made.requests) == (3, 6)


def test_a_server_that_recovers_is_let_alone_again() -> None:
    """Model time: everything fails for 10 s, then everything succeeds; refusals end within the window."""
    made, rng = AdmissionController(AdmissionControl(sampling_window=10.0)), random.Random(3)
    refused: dict[int, int] = {}
    for tick in range(3000):
        now = tick / 100
        if made.rejects(now, rng):
            refused[int(now)] = refused.get(int(now), 0) + 1
        else:
            made.record(500 if now < 10 else 200, None, now)
    assert refused[9] > 60
    assert refused[10] > 0
    assert not any(second >= 25 for second in refused), refused
