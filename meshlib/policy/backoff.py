"""Back-off between attempts: Envoy's fully jittered exponential one, in the form its documentation gives it.

(The Envoy 1.40 binary draws from `[0, 2**(n-1) * base)`, measured: the same first retry, then a shorter interval.)
"""

from __future__ import annotations

from meshlib.policy.rng import Rng

MINIMUM_BASE = 0.001
_MAX_EXPONENT = 62  # beyond this any base is over any maximum; keeps 2**n small for absurd retry counts


def upper_bound(attempt: int, base: float, maximum: float) -> float:
    """The end of the interval the n-th retry's delay is drawn from (`attempt` counts retries from 1), in seconds.

    `(2**n - 1) * base`, at most `maximum`; a base under 1 ms counts as 1 ms, a maximum under the base as the base
    (Envoy: base 25 ms, maximum 10 x base).
    """
    if attempt < 1:
        raise ValueError(f"retries are counted from 1, got {attempt}")
    base = max(base, MINIMUM_BASE)
    return min(float((1 << min(attempt, _MAX_EXPONENT)) - 1) * base, max(maximum, base))


def backoff(attempt: int, base: float, maximum: float, rng: Rng) -> float:
    """Seconds to wait before the n-th retry: uniform in `[0, upper_bound)`."""
    return rng.random() * upper_bound(attempt, base, maximum)
