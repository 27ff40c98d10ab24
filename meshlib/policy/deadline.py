"""Deadlines in and out: `x-envoy-expected-rq-timeout-ms` and `grpc-timeout`.

Inbound values come from strangers: whatever is not a plain number of a sane size is ignored, never an error. A timeout
of zero is a deadline that has passed; without a header there is none.
"""

from __future__ import annotations

import math

from meshlib.model.durations import LONGEST

EXPECTED_TIMEOUT_HEADER = "x-envoy-expected-rq-timeout-ms"
GRPC_TIMEOUT_HEADER = "grpc-timeout"

_MAX_MS_DIGITS = 12  # 31 years; longer numbers are mistakes or attacks
_GRPC_MAX_DIGITS = 8  # the gRPC wire format allows no more
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC_LARGEST = 99_999_999


def parse_expected_timeout(value: str | None) -> float | None:
    """`x-envoy-expected-rq-timeout-ms` (milliseconds, decimal) in seconds; None when missing or not sane."""
    if value is None or not _is_number(value, _MAX_MS_DIGITS):
        return None
    return int(value) / 1000.0


def parse_grpc_timeout(value: str | None) -> float | None:
    """`grpc-timeout` (1 to 8 digits and one of `H M S m u n`) in seconds, a hundred years at most; None when missing or
    malformed.
    """
    if not value:
        return None
    unit = _GRPC_UNITS.get(value[-1])
    if unit is None or not _is_number(value[:-1], _GRPC_MAX_DIGITS):
        return None
    return min(int(value[:-1]) * unit, LONGEST)


def inherited(expected: str | None, grpc: str | None) -> float | None:
    """The timeout a request brought with it: the shorter of its two headers, None when it brought none."""
    return shortest(parse_expected_timeout(expected), parse_grpc_timeout(grpc))


def shortest(*timeouts: float | None) -> float | None:
    """The shortest of the timeouts that are set."""
    known = [timeout for timeout in timeouts if timeout is not None]
    return min(known) if known else None


def effective(now: float, *timeouts: float | None) -> float | None:
    """The moment by which all of the timeouts ask to be done; None when none of them is set.

    A timeout that is zero or negative makes a deadline of `now`: already over. NaN is no timeout.
    """
    timeout = shortest(*(value for value in timeouts if value is not None and not math.isnan(value)))
    if timeout is None or timeout == math.inf:
        return None
    return now + max(0.0, timeout)


def remaining(deadline: float | None, now: float) -> float | None:
    """Seconds left, never negative; None without a deadline."""
    return None if deadline is None else max(0.0, deadline - now)


def expired(deadline: float | None, now: float) -> bool:
    """Whether the deadline is reached: whatever is still to be done for this request is done for nobody."""
    return deadline is not None and deadline <= now


def format_expected_timeout(seconds: float) -> str:
    """The header for a request that has `seconds` left: whole milliseconds, rounded down, but at least 1 while there
    is time left, because 0 means that none is.
    """
    if seconds <= 0:
        return "0"
    return str(max(1, math.floor(min(seconds, 1e9) * 1000)))


def format_grpc_timeout(seconds: float) -> str:
    """The finest unit in which the value fits 8 digits, rounded down, never longer than what is left."""
    if seconds <= 0:
        return "0n"
    for unit in "numSMH":
        amount = math.floor(min(seconds, 1e12) / _GRPC_UNITS[unit])
        if amount <= _GRPC_LARGEST:
            return f"{max(1, amount)}{unit}"
    return f"{_GRPC_LARGEST}H"


def _is_number(text: str, max_digits: int) -> bool:
    # isdigit alone accepts digits of every script, and int() signs, spaces and underscores.
    return 0 < len(text) <= max_digits and text.isascii() and text.isdigit()
