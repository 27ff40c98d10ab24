"""Faults as people write them, and bodies that go slowly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib import Fault
from meshlib.model.fault import FaultAbort, FaultDelay, FaultRateLimit, HttpFault
from meshlib.model.matchers import FractionalPercent, HeaderMatcher, StringMatcher
from meshlib.policy.throttle import INTERVAL, Throttle

ALL = FractionalPercent(1_000_000, 1_000_000)


@pytest.mark.parametrize(
    "fault, config",
    [
        (Fault(abort=503), HttpFault(abort=FaultAbort(503, percentage=ALL))),
        (Fault(grpc_abort=14), HttpFault(abort=FaultAbort(None, 14, ALL))),
        (Fault(delay=0.25), HttpFault(delay=FaultDelay(0.25, ALL))),
        (Fault(delay=timedelta(milliseconds=250)), HttpFault(delay=FaultDelay(0.25, ALL))),
        (Fault(limit_kbps=8), HttpFault(response_rate_limit=FaultRateLimit(8, ALL))),
        (
            Fault(abort=503, percentage=0.1, max_active=2),
            HttpFault(abort=FaultAbort(503, percentage=FractionalPercent(1000, 1_000_000)), max_active_faults=2),
        ),
        (
            Fault(by_header=True, percentage=50, delay=1),
            HttpFault(
                FaultDelay(1, FractionalPercent(500_000, 1_000_000)),
                FaultAbort(percentage=FractionalPercent(500_000, 1_000_000)),
                FaultRateLimit(None, FractionalPercent(500_000, 1_000_000)),
            ),
        ),
        (
            Fault(abort=503, path="/charge", headers={"X-User": "me"}),
            HttpFault(
                abort=FaultAbort(503, percentage=ALL),
                headers=(
                    HeaderMatcher(":path", StringMatcher("prefix", "/charge")),
                    HeaderMatcher("x-user", StringMatcher("exact", "me")),
                ),
            ),
        ),
    ],
)
def test_a_fault_is_a_filter_of_envoys(fault: Fault, config: HttpFault) -> None:
    assert fault.config() == config


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({}, "give a delay, an abort or a limit"),
        ({"abort": 503, "grpc_abort": 14}, "the same thing twice"),
        ({"abort": 199}, "no HTTP status"),
        ({"abort": 600}, "no HTTP status"),
        ({"grpc_abort": 0}, "1 to 16"),
        ({"grpc_abort": 17}, "1 to 16"),
        ({"delay": 0}, "more than 0"),
        ({"delay": -1.0}, "more than 0"),
        ({"limit_kbps": 0}, "1 or more"),
        ({"abort": 503, "percentage": 101}, "between 0 and 100"),
        ({"abort": 503, "percentage": -1}, "between 0 and 100"),
    ],
)
def test_what_no_fault_can_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Fault(**wrong)


def test_a_body_begins_with_a_twentieth_of_a_second() -> None:
    throttle = Throttle(1000)
    assert throttle.take(200, 5.0) == 50
    assert throttle.take(150, 5.0) == 0
    assert throttle.take(150, 5.05) == 50
    assert throttle.take(100, 60.0) == 100


def test_a_clock_that_goes_back_gives_nothing() -> None:
    throttle = Throttle(1000)
    throttle.take(50, 5.0)
    assert throttle.take(50, 4.0) == 0
    assert throttle.take(50, 4.05) == 50


@given(
    rate=st.integers(1024, 10_000_000),
    pieces=st.lists(st.integers(0, 100_000), max_size=20),
    pauses=st.lists(st.floats(0, 3), min_size=20, max_size=20),
)
def test_no_second_has_more_than_its_share(rate: int, pieces: list[int], pauses: list[float]) -> None:
    throttle, now, sent = Throttle(rate), 0.0, []
    for size, pause in zip(pieces, pauses, strict=False):
        now += pause
        left = size
        for _ in range(40):
            taken = throttle.take(left, now)
            sent.append((now, taken))
            left -= taken
            if not left:
                break
            now += INTERVAL
    for begin, _ in sent:
        window = sum(taken for at, taken in sent if begin <= at <= begin + 1.0)
        assert window <= 2 * rate + 1  # what a bucket holds, and what comes into it meanwhile
    assert sum(taken for _, taken in sent) <= rate * (now + INTERVAL) + 1
