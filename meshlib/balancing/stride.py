"""A weighted sequence: each of n items exactly in proportion to its weight over every period, well spread, no lock.

A period that is short is written out: each item comes at equal intervals, as in Envoy's earliest-deadline-first
schedule, and begins at a point of its own so that light items do not come together. A draw is then one step of an
atomic counter and one look-up.

A long one is computed: draw number k is the point k·step modulo the total weight, and the item in whose share of the
total that point falls. `step` is prime to the total, so in one period every point comes exactly once, and every item
exactly `weight` times; step / total is near the golden ratio, because its multiples are spread more evenly than those
of any other number. Against a heap of deadlines this needs nothing shared but the counter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, count
from math import gcd

from meshlib.balancing.base import Rng

SHORT = 1024  # draws: a period written out costs 8 bytes a draw and about 0.5 µs to make
GOLDEN = (5**0.5 - 1) / 2
CANDIDATES = 64


class WeightedSequence:
    """Indexes 0..n-1 in proportion to positive integer weights. The first draw starts it at a random point, so that
    clients that start together do not walk in step.
    """

    __slots__ = ("_bounds", "_draw", "_step", "_written", "period")

    def __init__(self, weights: Sequence[int]) -> None:
        common = gcd(*weights)
        reduced = [weight // common for weight in weights]
        self.period = sum(reduced)
        """The number of draws over which the proportions are exact."""
        self._written = _written_out(reduced) if self.period <= SHORT else ()
        self._bounds = [] if self._written else list(accumulate(reduced))
        self._step = 0 if self._written else stride(self.period)
        self._draw: count[int] | None = None

    def next(self, rng: Rng) -> int:
        """The next index."""
        draw = self._draw
        if draw is None:  # two threads may both start it: one of the two counters is then forgotten, with one draw
            draw = self._draw = count(int(rng.random() * self.period))
        if self._written:
            return self._written[next(draw) % self.period]
        return bisect_right(self._bounds, next(draw) * self._step % self.period)


def _written_out(weights: Sequence[int]) -> tuple[int, ...]:
    begins = [index * GOLDEN % 1.0 for index in range(len(weights))]
    turns = [
        ((begin + turn) / weight, index)
        for index, (begin, weight) in enumerate(zip(begins, weights, strict=True))
        for turn in range(weight)
    ]
    return tuple(index for _, index in sorted(turns))


def stride(total: int) -> int:
    """An integer prime to the total, near total/φ, whose multiples are the most evenly spread of those near it.

    How evenly is read from the continued fraction of step / total: the smaller its terms, the more even.
    """
    middle = round(total * GOLDEN)
    near = (middle + sign * distance for distance in range(total) for sign in (1, -1))
    prime = (step for step in near if 0 < step < total and gcd(step, total) == 1)
    return min((step for _, step in zip(range(CANDIDATES), prime, strict=False)), key=lambda step: _terms(step, total))


def _terms(numerator: int, denominator: int) -> tuple[int, int]:
    """(The largest, the sum) of the terms of the continued fraction."""
    largest = total = 0
    while numerator:
        term, rest = divmod(denominator, numerator)
        largest, total = max(largest, term), total + term
        denominator, numerator = numerator, rest
    return largest, total
