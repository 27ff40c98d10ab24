"""Pearson's chi-squared test: whether counts fit the shares they should have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_TERMS = 10_000  # of a series that converges long before
_ENOUGH = 1e-14


@dataclass(frozen=True, slots=True)
class Fit:
    """`statistic` with its degrees of freedom; `p_value` is how often chance alone gives as large a one. A count where
    none may be makes it impossible: infinity, and 0.
    """

    statistic: float
    degrees: int
    p_value: float


def fit(counts: Mapping[str, int], shares: Mapping[str, float]) -> Fit:
    """How well counts fit shares, which need not add up to 1. Without any counts they fit."""
    total, weight = sum(counts.values()), math.fsum(shares.values())
    if any(count and not shares.get(name) for name, count in counts.items()):
        return Fit(math.inf, max(len(shares) - 1, 0), 0.0)
    expected = {name: total * share / weight for name, share in shares.items() if share}
    if not total or len(expected) < 2:
        return Fit(0.0, 0, 1.0)
    statistic = math.fsum((counts.get(name, 0) - mean) ** 2 / mean for name, mean in expected.items())
    degrees = len(expected) - 1
    return Fit(statistic, degrees, survival(statistic, degrees))


def survival(statistic: float, degrees: int) -> float:
    """The probability of a larger chi-squared value: the regularised upper gamma function (Numerical Recipes, 6.2: its
    series below a + 1, its continued fraction above).
    """
    a, x = degrees / 2.0, statistic / 2.0
    if x <= 0.0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1.0 - front * _series(a, x) if x < a + 1.0 else front * _fraction(a, x)


def _series(a: float, x: float) -> float:
    term = total = 1.0 / a
    for step in range(1, _TERMS):
        term *= x / (a + step)
        total += term
        if term < total * _ENOUGH:
            break
    return total


def _fraction(a: float, x: float) -> float:
    """By Lentz's method."""
    tiny = 1e-300
    b = x + 1.0 - a
    c, d = 1.0 / tiny, 1.0 / b
    value = d
    for step in range(1, _TERMS):
        part = -step * (step - a)
        b += 2.0
        d = 1.0 / (part * d + b or tiny)
        c = b + part / c or tiny
        value *= d * c
        if abs(d * c - 1.0) < _ENOUGH:
            break
    return value
