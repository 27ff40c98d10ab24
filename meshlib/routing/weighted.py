"""Weighted clusters: one of several by weight, by chance or by a number of the request's own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy, WeightedClusters
from meshlib.routing.hashing import compile_hash

MAX_TOTAL = 2**32 - 1
_MAX_NUMBER = 2**64 - 1
Key = Callable[[RequestHead], int | None]
"""A number that stands in for chance; None where the request has none."""


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


def compile_key(clusters: WeightedClusters, policies: Sequence[HashPolicy]) -> Key | None:
    """What finds the number that decides instead of chance: in a header, or by the route's hash policies. No cookie is
    made for it, as in Envoy. None where chance decides.
    """
    if not clusters.use_hash_policy:
        return _number_in(clusters.header_name) if clusters.header_name else None
    hasher = compile_hash([replace(policy, ttl=None) for policy in policies])
    return None if hasher is None else lambda head: None if (made := hasher(head)) is None else made.hash


def _number_in(name: str) -> Key:
    """A header with a single value that is a whole number below 2**64."""

    def number(head: RequestHead) -> int | None:
        values = head.get_all(name)
        text = values[0].strip() if len(values) == 1 else ""
        digits = text.removeprefix("+")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 40:
            return None
        return found if (found := int(digits)) <= _MAX_NUMBER else None

    return number
