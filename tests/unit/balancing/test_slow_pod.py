"""The slow-pod test in model time: ten pods, one of them slower by 200 ms, and the whole call flow over each policy.

Only the balancer decides here, so the figures are exact and the same on any machine; `benchmarks.slow_pod` measures the
same over HTTP.
"""

from functools import cache

import pytest

from benchmarks.slow_pod_model import SLOWER_BY, Figures, simulate
from meshlib.model.lb import LbPolicy, LeastRequest, PeakEwma, Random, RoundRobin

REQUESTS = 12_000


@cache
def healthy() -> float:
    return simulate(RoundRobin(), 0.0, requests=REQUESTS).quantile(0.99)


def with_a_slow_pod(policy: LbPolicy, **load: float) -> Figures:
    return simulate(policy, SLOWER_BY, requests=REQUESTS, **load)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", [RoundRobin(), Random()])
def test_a_balancer_that_does_not_look_lets_one_pod_in_ten_set_the_p99(policy: LbPolicy) -> None:
    found = with_a_slow_pod(policy)
    assert found.quantile(0.99) > SLOWER_BY
    assert found.quantile(0.99) > 10 * healthy()
    assert 0.08 < found.shares[-1] < 0.13


@pytest.mark.parametrize(
    "policy", [LeastRequest(), LeastRequest(choice_count=3), LeastRequest(full_scan=True), PeakEwma()]
)
def test_a_balancer_that_looks_keeps_the_p99(policy: LbPolicy) -> None:
    found = with_a_slow_pod(policy)
    assert found.quantile(0.99) <= 1.3 * healthy()
    assert found.shares[-1] < 0.01
    assert max(found.shares[:-1]) < 0.13, "the others share what the slow pod does not take"


@pytest.mark.parametrize("rate", [200.0, 1_000.0, 8_000.0])
def test_peak_ewma_keeps_the_p99_at_any_load(rate: float) -> None:
    found = with_a_slow_pod(PeakEwma(), rate=rate)
    assert found.quantile(0.99) <= 1.3 * healthy()
