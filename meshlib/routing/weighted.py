"""Weighted clusters: one of several by weight."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Protocol

from meshlib.model.report import ResourceError
from meshlib.model.route import WeightedClusters

MAX_TOTAL = 2**32 - 1


class _Rng(Protocol):
    def random(self) -> float: ...


class WeightedChoice:
    """Draws indexes in proportion to weights. Envoy's rule: a value in [0, total), the first running sum above it."""

    __slots__ = ("_sums", "total")

    def __init__(self, weights: tuple[int, ...]) -> None:
        self._sums = list(accumulate(weights))
        self.total = self._sums[-1] if self._sums else 0
        if not 1 <= self.total <= MAX_TOTAL:
            raise ResourceError("weighted_clusters", f"the weights sum to {self.total}; wanted is 1 to {MAX_TOTAL}")

    def pick(self, rng: _Rng) -> int:
        """An index; one of weight 0 is never drawn."""
        return bisect_right(self._sums, int(rng.random() * self.total))

    def at(self, value: int) -> int:
        """The index that a value in [0, total) falls on."""
        return bisect_right(self._sums, value)


def compile_weighted(clusters: WeightedClusters) -> WeightedChoice:
    """`ResourceError` unless the weights sum to 1 .. 2**32 - 1."""
    return WeightedChoice(tuple(cluster.weight for cluster in clusters.clusters))
