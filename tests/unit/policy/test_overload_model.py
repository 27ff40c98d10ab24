"""Three times the load a server can bear, in model time: what each way of shedding leaves of its capacity.

The figures are exact and the same on any machine; tests/e2e/shedding does it with a real server.
"""

from __future__ import annotations

import pytest

from benchmarks.overload_model import CAPACITY, SHEDDING, WORKERS, simulate
from meshlib.model.shedding import AdaptiveConcurrency, Bulkhead, Priorities, QueueDeadline

HOLD = ["adaptive concurrency", "bulkhead", "bulkhead with a queue", "queue deadline"]


def test_without_shedding_nobody_is_answered_in_time() -> None:
    figures = simulate(None)
    assert figures.goodput < 0.01
    assert figures.quantile(0.5) > 5.0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", HOLD)
def test_with_shedding_the_capacity_is_used_and_the_admitted_are_quick(name: str, seed: int) -> None:
    figures = simulate(SHEDDING[name], seed=seed)
    assert figures.goodput >= 0.9
    assert figures.quantile(0.99) <= 0.25


@pytest.mark.parametrize("load", [1.0, 1.5, 10.0])
@pytest.mark.parametrize("name", HOLD)
def test_so_it_is_however_much_is_offered(name: str, load: float) -> None:
    figures = simulate(SHEDDING[name], load=lambda at: load)
    assert figures.goodput >= 0.9 * min(1.0, load)
    assert figures.quantile(0.99) <= 0.25


@pytest.mark.parametrize("name", [*HOLD, "admission control"])
def test_a_server_that_is_not_overloaded_sheds_next_to_nothing(name: str) -> None:
    figures = simulate(SHEDDING[name], load=lambda at: 0.5)
    refused = sum(request.refused for request in figures.requests)
    assert refused <= 0.01 * len(figures.requests)


@pytest.mark.parametrize("name", HOLD)
def test_after_a_storm_it_is_as_before_within_a_second(name: str) -> None:
    figures = simulate(SHEDDING[name], load=lambda at: 5.0 if 10 <= at < 20 else 0.6, seconds=30, warm_up=0)
    before, after = figures.by_second(30)[6:9], figures.by_second(30)[21:29]
    assert min(after) >= 0.8 * min(before)


def test_admission_control_alone_is_no_help_against_a_queue() -> None:
    """It sees what failed, when it is too late; its own field is a dependency that fails."""
    assert simulate(SHEDDING["admission control"]).goodput < 0.5


def test_the_critical_are_served_while_others_are_shed() -> None:
    shed = Bulkhead(2 * WORKERS, priorities=Priorities((("critical", 1.0), ("default", 0.7))))
    figures = simulate(shed, urgent=0.2)
    urgent = [request for request in figures.requests if request.urgent]
    others = [request for request in figures.requests if not request.urgent]
    assert sum(request.good for request in urgent) / len(urgent) > 0.95
    assert 0.1 < sum(request.good for request in others) / len(others) < 0.35
    assert figures.goodput >= 0.9


def test_the_limit_follows_a_service_that_gets_slower_and_quicker_again() -> None:
    """minRTT is told, so that only the gradient moves the limit."""
    figures = simulate(AdaptiveConcurrency(min_rtt=0.04))
    assert WORKERS <= figures.stats["concurrency_limit"] <= 2.5 * WORKERS


def test_a_measurement_of_min_rtt_costs_a_moment() -> None:
    """While three at a time are let in, the rest is refused: one and a half seconds here, in every so many."""
    figures = simulate(AdaptiveConcurrency(min_rtt_interval=10.0), seconds=40, warm_up=0)
    by_second = figures.by_second(40)
    assert min(by_second[5:35]) < 0.6
    assert sum(by_second[5:35]) / 30 > 0.85


def test_codel_keeps_the_queue_short_and_a_long_one_does_not() -> None:
    patient = Bulkhead(WORKERS, max_waiting=int(2 * CAPACITY), max_wait=5.0, target=5.0)
    with_codel = Bulkhead(WORKERS, max_waiting=int(2 * CAPACITY), max_wait=5.0)
    assert simulate(patient).quantile(0.5) > 1.0
    assert simulate(with_codel).quantile(0.99) < 0.25


def test_a_queue_that_only_ages_is_dropped() -> None:
    figures = simulate(QueueDeadline(target=10.0, max_wait=0.3))
    assert figures.goodput >= 0.9
    assert figures.quantile(0.99) <= 0.5
