"""The token bucket never gives more than its size plus what it was filled with, whatever the clock does."""

import math

from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.filters import TokenBucket
from meshlib.policy.rate_limit import LocalTokenBucket

CONFIGS = st.builds(TokenBucket, st.integers(1, 50), st.integers(1, 50), st.sampled_from([0.05, 0.5, 1.0, 7.0, 60.0]))
STEPS = st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 5)), max_size=60)


@given(CONFIGS, STEPS, st.sampled_from([0.0, 1e3, 1e7]))
def test_never_more_than_size_plus_rate_times_time(
    config: TokenBucket, steps: list[tuple[float, int]], start: float
) -> None:
    bucket, now, taken = LocalTokenBucket(config), start, 0
    for pause, amount in steps:
        now += pause
        if bucket.take(now, amount):
            taken += amount
        rate = config.tokens_per_fill / config.fill_interval
        assert taken <= config.max_tokens + rate * (now - start) + 1e-3


@given(CONFIGS, STEPS)
def test_a_refusal_holds_until_the_moment_it_names(config: TokenBucket, steps: list[tuple[float, int]]) -> None:
    bucket, now = LocalTokenBucket(config), 0.0
    for pause, amount in steps:
        now += pause
        if bucket.take(now, amount):
            continue
        wait = bucket.next_available(now, amount)
        if wait is math.inf:
            assert amount > config.max_tokens
            continue
        assert not bucket.take(now + wait * 0.999 - 1e-6, amount)
        assert bucket.take(now + wait + 1e-6, amount)
        now += wait + 1e-6


@given(CONFIGS, st.lists(st.floats(-4000.0, 4000.0), max_size=60))
def test_steps_of_the_clock_give_nothing_away(config: TokenBucket, steps: list[float]) -> None:
    bucket, now, first, latest, taken = LocalTokenBucket(config), 1e4, 1e4, 1e4, 0
    for number, step in enumerate(steps):
        now += step
        first, latest = (now, now) if number == 0 else (first, max(latest, now))
        taken += bucket.take(now)
        rate = config.tokens_per_fill / config.fill_interval
        assert taken <= config.max_tokens + rate * (latest - first) + 1e-3
