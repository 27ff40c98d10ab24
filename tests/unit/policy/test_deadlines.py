"""Deadlines in and out, hostile values included."""

import math

import pytest

from meshlib.model.durations import LONGEST
from meshlib.policy import deadline


@pytest.mark.parametrize(
    "value,expected",
    [
        ("0", 0.0),
        ("1", 0.001),
        ("15000", 15.0),
        ("000250", 0.25),
        (None, None),
        ("", None),
        ("-1", None),
        ("+5", None),
        (" 5", None),
        ("5 ", None),
        ("1_000", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("٣", None),
        ("nan", None),
        ("inf", None),
        ("9" * 13, None),
        ("9" * 10_000, None),
    ],
)
def test_expected_timeout(value: str | None, expected: float | None) -> None:
    assert deadline.parse_expected_timeout(value) == expected


@pytest.mark.parametrize(
    "value,expected",
    [
        ("2H", 7200.0),
        ("3M", 180.0),
        ("4S", 4.0),
        ("5m", 0.005),
        ("6u", 6e-6),
        ("7n", 7e-9),
        ("99999999H", LONGEST),
        ("0n", 0.0),
        ("100000000n", None),
        ("5", None),
        ("m", None),
        ("5s", None),
        ("-5m", None),
        ("5 m", None),
        ("1.5S", None),
        ("５S", None),
        ("", None),
        (None, None),
    ],
)
def test_grpc_timeout(value: str | None, expected: float | None) -> None:
    found = deadline.parse_grpc_timeout(value)
    assert found == (pytest.approx(expected) if expected is not None else None)


def test_of_two_headers_the_shorter_counts() -> None:
    assert deadline.inherited("2000", "1S") == 1.0
    assert deadline.inherited("500", "1S") == 0.5
    assert deadline.inherited("garbage", "1S") == 1.0
    assert deadline.inherited(None, None) is None


def test_the_effective_deadline_is_the_earliest() -> None:
    assert deadline.effective(100.0, 15.0, None, 0.5) == 100.5
    assert deadline.effective(100.0, None, None) is None
    assert deadline.effective(100.0, math.inf) is None
    assert deadline.effective(100.0, math.nan, 3.0) == 103.0
    assert deadline.effective(100.0, -5.0, 3.0) == 100.0


def test_nothing_left_is_already_dead() -> None:
    assert deadline.expired(100.0, 100.0)
    assert not deadline.expired(100.0, 99.9)
    assert not deadline.expired(None, 1e12)
    assert deadline.remaining(100.0, 160.0) == 0.0
    assert deadline.remaining(100.0, 40.0) == 60.0
    assert deadline.remaining(None, 40.0) is None


@pytest.mark.parametrize(
    "seconds,text", [(15.0, "15000"), (0.0019, "1"), (0.0001, "1"), (0.0, "0"), (-3.0, "0"), (1e300, "1000000000000")]
)
def test_expected_timeout_out(seconds: float, text: str) -> None:
    assert deadline.format_expected_timeout(seconds) == text


@pytest.mark.parametrize(
    "seconds,text",
    [
        (0.0, "0n"),
        (-1.0, "0n"),
        (1e-12, "1n"),
        (0.01, "10000000n"),
        (1.0, "1000000u"),
        (150.0, "150000m"),
        (200_000.0, "200000S"),
        (1e9, "16666666M"),
        (1e300, "99999999H"),
    ],
)
def test_grpc_timeout_out(seconds: float, text: str) -> None:
    assert deadline.format_grpc_timeout(seconds) == text
