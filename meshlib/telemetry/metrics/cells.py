"""Cells: values measured by calls, by label values. No lock, and no more label values than are allowed.

Label values come from strangers in the end (an upstream's status, a caller's method), so their number is bounded: what
comes when a metric is full is counted under `_OTHER`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from threading import get_ident
from typing import Protocol

from meshlib.state.counter import Counter
from meshlib.telemetry.metrics.metric import Distribution, Metric, Sample

OTHER = "_OTHER"
MAX_SERIES = 1000
"""Label combinations of one metric."""
MAX_LENGTH = 128
"""Characters of one label value."""

Labels = tuple[str, ...]


class Measurements(Protocol):
    """Whoever measures: our own cells, or OpenTelemetry's instruments."""

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """One value: into a histogram, or onto a counter."""


class Sum:
    """A sum of floats, as `Counter` is one of integers: each thread adds to its own slot."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: dict[int, float] = {}

    def add(self, amount: float) -> None:
        """Add `amount`."""
        me = get_ident()
        self._slots[me] = self._slots.get(me, 0.0) + amount

    @property
    def value(self) -> float:
        """The sum so far."""
        return sum(list(self._slots.values()))


class _Cell:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = tuple(Counter() for _ in range(buckets))
        self.total = Sum()


class Bound:
    """What keeps the label combinations of a metric few: the first `most` are kept, what follows is `_OTHER`."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int = MAX_SERIES) -> None:
        self._known: dict[Labels, Labels] = {}
        self._most = most

    def bounded(self, labels: Labels) -> Labels:
        """The labels to record under. The same labels always become the same."""
        known = self._known.get(labels)
        if known is not None:
            return known
        if len(self._known) >= self._most:
            return (OTHER,) * len(labels)
        return self._known.setdefault(labels, tuple(label[:MAX_LENGTH] for label in labels))


class Cells:
    """Every measured value of one process."""

    def __init__(self, most: int = MAX_SERIES) -> None:
        self._most = most
        self._bounds: dict[Metric, Bound] = {}
        self._cells: dict[tuple[str, Labels], tuple[Metric, Labels, _Cell]] = {}

    def record(self, metric: Metric, labels: Labels, value: float) -> None:
        """One value: into a histogram, or onto a counter."""
        found = self._cells.get((metric.name, labels)) or self._new(metric, labels)
        cell = found[2]
        if metric.bounds:
            cell.counts[bisect_left(metric.bounds, value)].add()
        cell.total.add(value)

    def samples(self) -> Iterator[Sample]:
        """What has been measured so far."""
        for metric, labels, cell in list(self._cells.values()):
            total = cell.total.value
            yield Sample(
                metric, labels, Distribution([c.value for c in cell.counts], total) if metric.bounds else total
            )

    def clear(self) -> None:
        """Forget everything."""
        self._bounds = {}
        self._cells = {}

    def _new(self, metric: Metric, labels: Labels) -> tuple[Metric, Labels, _Cell]:
        """The cell of labels that are new, too long or too many."""
        bound = self._bounds.get(metric) or self._bounds.setdefault(metric, Bound(self._most))
        kept = bound.bounded(labels)
        known = self._cells.get((metric.name, kept))
        if known is not None:
            return known
        made = (metric, kept, _Cell(len(metric.bounds) + 1 if metric.bounds else 0))
        return self._cells.setdefault((metric.name, kept), made)
