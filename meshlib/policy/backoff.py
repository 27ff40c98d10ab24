"""Back-off between attempts: Envoy's fully jittered exponential one as 1.40 draws it, or what a response asks for.

Its documentation says `[0, (2**n - 1) * base)`; the running Envoy was measured at `[0, 2**(n-1) * base)`: the same
first retry, then a shorter interval. Where the two differ the running Envoy is what people have, so it is what we do.
"""

from __future__ import annotations

from meshlib.model.outcome import Outcome
from meshlib.model.retry import RateLimitedBackOff, ResetHeader
from meshlib.policy.rng import Rng

MINIMUM_BASE = 0.001
_AT_ONCE = 0.001
_MAX_DIGITS = 12
_MAX_EXPONENT = 62  # beyond this any base is over any maximum; keeps 2**(n-1) small for absurd retry counts


def upper_bound(attempt: int, base: float, maximum: float) -> float:
    """The end of the interval the n-th retry's delay is drawn from (`attempt` counts retries from 1), in seconds.

    `2**(n-1) * base`, at most `maximum`; a base under 1 ms counts as 1 ms, a maximum under the base as the base
    (Envoy: base 25 ms, maximum 10 x base).
    """
    if attempt < 1:
        raise ValueError(f"retries are counted from 1, got {attempt}")
    base = max(base, MINIMUM_BASE)
    return min(float(1 << min(attempt - 1, _MAX_EXPONENT)) * base, max(maximum, base))


def backoff(attempt: int, base: float, maximum: float, rng: Rng) -> float:
    """Seconds to wait before the n-th retry: uniform in `[0, upper_bound)`."""
    return rng.random() * upper_bound(attempt, base, maximum)


def asked_for(policy: RateLimitedBackOff, outcome: Outcome, wall: float) -> float | None:
    """Seconds the response asks to be left alone for; None when it does not say, or asks for too much, or for nothing.

    The first header counts that can be read and asks for no more than `max_interval`; a time that is over is no answer.
    `wall` is Unix time.
    """
    for header in policy.reset_headers:
        seconds = _interval(header, outcome.header(header.name), wall)
        if seconds is not None and seconds <= policy.max_interval:
            return seconds if seconds > _AT_ONCE else None
    return None


def lower_bounded(interval: float, rng: Rng) -> float:
    """Seconds to wait where a response asked for `interval`: uniform in `[interval, 1.5 * interval)`."""
    return interval * (1.0 + rng.random() / 2.0)


def _interval(header: ResetHeader, value: str | None, wall: float) -> float | None:
    value = (value or "").strip()
    if not (value.isascii() and value.isdigit()) or len(value) > _MAX_DIGITS:
        return None
    if header.format == "SECONDS":
        return float(value)
    left = float(value) - wall
    return left if left >= 0 else None
