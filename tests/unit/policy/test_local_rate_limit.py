"""The token bucket, filled continuously, as Envoy 1.40 was seen to do."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.filters import TokenBucket
from meshlib.policy.rate_limit import LocalTokenBucket


def test_it_starts_full_whatever_the_clock_says() -> None:
    for start in (0.0, 5.0, 1e9):
        bucket = LocalTokenBucket(TokenBucket(3))
        assert [bucket.take(start) for _ in range(4)] == [True, True, True, False]


def test_it_fills_continuously_not_in_steps() -> None:
    bucket = LocalTokenBucket(TokenBucket(max_tokens=10, tokens_per_fill=10, fill_interval=2.0))
    assert bucket.take(100.0, 10)
    assert not bucket.take(100.19)
    assert bucket.take(100.2)
    assert bucket.next_available(100.3) == pytest.approx(0.1)
    assert bucket.take(100.4)


def test_it_never_holds_more_than_its_size() -> None:
    bucket = LocalTokenBucket(TokenBucket(2, 1, 1.0))
    assert bucket.take(0.0, 2)
    assert bucket.remaining(1000.0) == 2.0
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_all_the_tokens_or_none() -> None:
    bucket = LocalTokenBucket(TokenBucket(5, 1, 1.0))
    assert bucket.take(0.0, 3)
    assert not bucket.take(0.0, 3)
    assert bucket.remaining(0.0) == pytest.approx(2.0)
    assert bucket.next_available(0.0, 3) == pytest.approx(1.0)
    assert bucket.next_available(0.0, 6) == math.inf


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    bucket = LocalTokenBucket(TokenBucket(1, 1, 1.0))
    assert bucket.take(3600.0)
    assert not bucket.take(0.0)
    assert not bucket.take(3600.5)
    assert bucket.take(3601.0)


def test_tenths_of_seconds_add_up_to_tokens() -> None:
    bucket = LocalTokenBucket(TokenBucket(1, 10, 1.0))
    assert all(bucket.take(1e6 + tenth / 10) for tenth in range(100))


@pytest.mark.usefixtures("hasty_threads")
def test_eight_threads_take_exactly_what_is_there() -> None:
    bucket = LocalTokenBucket(TokenBucket(1000))
    start = threading.Barrier(8)

    def work(_: int) -> int:
        start.wait()
        return sum(bucket.take(5.0) for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1000


def test_tokens_that_are_given_back_fill_it_no_further_than_full() -> None:
    bucket = LocalTokenBucket(TokenBucket(3, 1, 60.0))
    assert bucket.take(0.0, 2)
    assert bucket.take(0.0, -1)
    assert bucket.remaining(0.0) == pytest.approx(2.0)
    assert bucket.take(0.0, -5)
    assert bucket.remaining(0.0) == 3.0
