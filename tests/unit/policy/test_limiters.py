"""Limiters beyond the bucket: the queue of uniform rate, the rate that warms up, the requests in flight, the keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.model.limiters import Bucket, ConcurrencyLimit, UniformRate, WarmUp
from meshlib.policy.keyed import Keyed
from meshlib.policy.limiters import Limits, Place, WarmUpLimits, make_limits


def waits(limits: Limits, count: int, now: float = 0.0) -> list[float | None]:
    places = [limits.take(now) for _ in range(count)]
    return [None if place is None else round(place.wait, 6) for place in places]


def admitted(limits: Limits, start: float, end: float, step: float = 0.001) -> int:
    """Of a request each millisecond."""
    count = round((end - start) / step)
    return sum(limits.take(start + number * step) is not None for number in range(count))


def test_a_bucket_holds_its_burst_or_a_second() -> None:
    assert waits(make_limits(Bucket(3.0)), 4) == [0, 0, 0, None]
    assert waits(make_limits(Bucket(3.0, burst=1)), 2) == [0, None]
    slow = make_limits(Bucket(0.1))
    assert waits(slow, 2) == [0, None]
    assert slow.reset(2.0) == pytest.approx(8.0)


def test_a_queue_spaces_requests_evenly_and_refuses_what_would_wait_too_long() -> None:
    limits = make_limits(UniformRate(10.0, max_wait=0.25))
    assert waits(limits, 4) == [0.0, 0.1, 0.2, None]
    assert limits.reset(0.0) == pytest.approx(0.05)
    assert waits(limits, 2, now=0.1) == [0.2, None]
    assert waits(limits, 2, now=10.0) == [0.0, 0.1], "nothing is saved up"


def test_without_a_wait_a_queue_refuses_whatever_comes_too_soon() -> None:
    limits = make_limits(UniformRate(10.0))
    assert [waits(limits, 1, now=tenth / 10)[0] for tenth in range(20)] == [0.0] * 20
    assert waits(limits, 1, now=1.95) == [None]


def test_the_last_place_in_a_queue_that_is_given_up_is_somebody_elses() -> None:
    limits = make_limits(UniformRate(10.0, max_wait=1.0))
    first, second, third = (limits.take(0.0) for _ in range(3))
    assert (first, second is not None, third is not None) == (Place(), True, True)
    assert third is not None and third.leave is not None  # noqa: PT018
    third.leave()
    assert waits(limits, 1) == [0.2]
    assert second is not None and second.leave is not None  # noqa: PT018
    second.leave()
    assert waits(limits, 1) == [0.3], "somebody stands behind it"


def test_a_rate_grows_while_it_is_used_and_is_cold_again_after_a_rest() -> None:
    limits = make_limits(WarmUp(300.0, period=10.0, cold_factor=3.0))
    taken = [admitted(limits, start, start + 1.0) for start in range(12)]
    assert taken[0] == pytest.approx(100 + 110, abs=3), "what is saved up, and the first second's"
    assert taken[5] == pytest.approx(100 + 200 * 0.55, abs=3)
    assert taken[11] == pytest.approx(300, abs=3)
    assert sorted(taken[1:]) == taken[1:]
    assert admitted(limits, 12.0 + 9.9, 12.0 + 10.9) > 500, "a short rest keeps it warm, and the bucket full"
    assert admitted(limits, 100.0, 101.0) == pytest.approx(210, abs=3), "a long one does not"


def test_the_rate_of_a_moment() -> None:
    limits = WarmUpLimits(WarmUp(30.0, period=10.0, cold_factor=3.0))
    limits.take(100.0)
    assert [round(limits.rate(now), 6) for now in (100.0, 105.0, 110.0, 200.0)] == [10.0, 20.0, 30.0, 30.0]


def test_requests_in_flight_are_counted_until_they_leave() -> None:
    limits = make_limits(ConcurrencyLimit(2))
    first, second, third = (limits.take(0.0) for _ in range(3))
    assert third is None
    assert first is not None
    assert first.leave is not None
    first.leave()
    first.leave()
    assert limits.remaining(0.0) == 1.0
    assert limits.take(0.0) is not None
    assert limits.take(0.0) is None
    assert second is not None


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize(
    "config,expected",
    [
        (Bucket(1000.0), 1000),
        (UniformRate(1.0, max_wait=999.0), 1000),
        (WarmUp(3000.0), 1000),
        (ConcurrencyLimit(1000), 1000),
    ],
)
def test_eight_threads_take_exactly_what_is_there(config: Bucket, expected: int) -> None:
    limits, start = make_limits(config), threading.Barrier(8)

    def work(_: int) -> int:
        start.wait()
        return sum(limits.take(5.0) is not None for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == expected


def test_a_million_keys_are_bounded_and_the_last_used_are_kept() -> None:
    keyed: Keyed[int, Limits] = Keyed(lambda key, now: make_limits(Bucket(1.0)), 10_000)
    favourite = keyed.get(-1, 0.0)
    for key in range(1_000_000):
        keyed.get(key, 0.0)
        if not key % 5_000:
            keyed.get(-1, 0.0)
    assert len(keyed) == 10_000
    assert keyed.get(-1, 0.0) is favourite
    assert waits(keyed.get(999_999, 0.0), 2) == [0.0, None]


@pytest.mark.usefixtures("hasty_threads")
def test_threads_share_the_value_of_a_key() -> None:
    keyed: Keyed[int, Limits] = Keyed(lambda key, now: make_limits(Bucket(100.0)), 50)
    start = threading.Barrier(8)

    def work(_: int) -> int:
        start.wait()
        return sum(keyed.get(number % 40, 0.0).take(0.0) is not None for number in range(4000))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 40 * 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bucket(0.0),
        lambda: Bucket(1.0, burst=-1.0),
        lambda: UniformRate(float("inf")),
        lambda: UniformRate(1.0, max_wait=float("nan")),
        lambda: WarmUp(1.0, period=0.0),
        lambda: WarmUp(1.0, cold_factor=0.5),
        lambda: ConcurrencyLimit(0),
    ],
)
def test_what_makes_no_sense_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="must"):
        make()  # type: ignore[operator]
