"""The intervals of Envoy's documentation, and that the whole of them is used."""

import random

import pytest

from meshlib.policy.backoff import backoff, upper_bound


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("attempt,bound", [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.250), (10**6, 0.250)])
def test_the_bounds_of_a_running_envoy(attempt: int, bound: float) -> None:
    assert upper_bound(attempt, 0.025, 0.25) == pytest.approx(bound)


def test_the_delay_is_drawn_from_all_of_the_interval() -> None:
    assert backoff(3, 0.1, 10.0, Fixed(0.0)) == 0.0
    assert backoff(3, 0.1, 10.0, Fixed(0.5)) == pytest.approx(0.2)
    rng = random.Random(1)
    delays = [backoff(2, 0.1, 10.0, rng) for _ in range(4000)]
    assert 0.0 <= min(delays) < 0.003
    assert 0.197 < max(delays) < 0.2
    assert sum(delays) / len(delays) == pytest.approx(0.1, abs=0.004)


def test_a_base_below_a_millisecond_is_one_and_a_maximum_below_the_base_is_the_base() -> None:
    assert upper_bound(1, 0.0, 1.0) == 0.001
    assert upper_bound(5, 0.2, 0.1) == 0.2


def test_retries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        upper_bound(0, 0.025, 0.25)
