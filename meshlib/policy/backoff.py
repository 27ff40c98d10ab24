"""Back-off between attempts: Envoy's fully jittered exponential one, as Envoy 1.40 draws it.

Its documentation says `[0, (2**n - 1) * base)`; the running Envoy was measured at `[0, 2**(n-1) * base)`: the same
first retry, then a shorter interval. Where the two differ the running Envoy is what people have, so it is what we do.
"""

from __future__ import annotations

from meshlib.policy.rng import Rng

MINIMUM_BASE = 0.001
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
