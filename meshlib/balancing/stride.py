"""A weighted sequence: each of n items exactly in proportion to its weight over every period, well spread, no lock.

Draw number k is the point k·step modulo the total weight, and the item in whose share of the total that point falls.
`step` is prime to the total, so in one period every point comes exactly once and every item exactly `weight` times.
`step` is the integer next to total/φ, because multiples of the golden ratio leave the smallest gaps of any sequence:
the picks of an item are spread evenly, which is what Envoy's earliest-deadline-first schedule is for. Against that
schedule this one needs no shared heap: one atomic counter and a bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, count
from math import gcd

from meshlib.balancing.base import Rng

GOLDEN = (5**0.5 - 1) / 2


class WeightedSequence:
    """Indexes 0..n-1 in proportion to positive integer weights. The first draw starts it at a random point, so that
    clients that start together do not walk in step.
    """

    __slots__ = ("_bounds", "_draw", "_step", "_total")

    def __init__(self, weights: Sequence[int]) -> None:
        common = gcd(*weights)
        self._bounds = list(accumulate(weight // common for weight in weights))
        self._total = self._bounds[-1]
        self._step = _stride(self._total)
        self._draw: count[int] | None = None

    @property
    def period(self) -> int:
        """The number of draws over which the proportions are exact."""
        return self._total

    def next(self, rng: Rng) -> int:
        """The next index."""
        draw = self._draw
        if draw is None:  # two threads may both start it: one of the two counters is then forgotten, with one draw
            draw = self._draw = count(int(rng.random() * self._total))
        return bisect_right(self._bounds, next(draw) * self._step % self._total)


def _stride(total: int) -> int:
    """The integer nearest to total/φ that is prime to the total."""
    middle = round(total * GOLDEN)
    for distance in range(total + 1):
        for step in (middle + distance, middle - distance):
            if step > 0 and gcd(step, total) == 1:
                return step
    return 1
