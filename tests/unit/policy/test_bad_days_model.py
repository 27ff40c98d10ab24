"""What the pages' plots of bad days show holds (`benchmarks.bad_days`, in model time)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from benchmarks.bad_days import BEGINS, ENDS, outliers, storms


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "meshlib")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_a_pod_that_fails_is_soon_out_and_retries_hide_it() -> None:
    found = outliers()
    first, then = slice(BEGINS, BEGINS + 7), slice(BEGINS + 7, ENDS)
    assert mean(found["nothing"][then]) > 0.04
    for name in ("five failures in a row", "success rate"):
        assert mean(found[name][first]) > 0.005
        assert mean(found[name][then]) == 0.0
    assert max(found["success rate, and retries"]) == 0.0


def test_a_storm_is_not_made_worse() -> None:
    found, storm = storms(), slice(BEGINS + 1, ENDS - 1)
    assert mean(found["retries without a budget"][storm]) > 2.9
    assert 1.1 < mean(found["retries with a budget"][storm]) <= 1.25
    assert mean(found["a budget and a circuit breaker"][storm]) < 0.05
    assert all(
        values[ENDS + 5 :] == pytest.approx([1.0] * len(values[ENDS + 5 :]), abs=0.05) for values in found.values()
    )
