"""Aggregate clusters: the priorities of several clusters as one row (Envoy's documentation, "Aggregate cluster").

The load is shared among all the priorities that have any hosts, in the order of the clusters, each with its cluster's
own overprovisioning factor. Within the one chosen, its cluster balances by its own policy, localities and panic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshlib.balancing.base import Host, Rng
from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.priority import PriorityLoad, priority_loads
from meshlib.balancing.report import BalancerReport, PriorityReport
from meshlib.balancing.view import View
from meshlib.model.metadata import EMPTY_STRUCT, Struct


@dataclass(frozen=True, slots=True)
class Choice:
    """The cluster chosen, by its place among the children, one of its priorities, and which of the hosts there."""

    child: int
    priority: int
    degraded: bool


class _Row:
    """The priorities of all children for the availability of one moment. `of_percent` has a choice for each of the 100
    percents of the load; it is empty when there is no host anywhere.
    """

    __slots__ = ("loads", "of_percent", "slots", "views")

    def __init__(self, children: Sequence[ClusterBalancer], views: tuple[View, ...], panic_threshold: float) -> None:
        self.views = views
        self.slots: list[tuple[int, int]] = []
        counts = []
        for index, (child, view) in enumerate(zip(children, views, strict=True)):
            for priority, count in enumerate(view.counts):
                if count.total:
                    self.slots.append((index, priority))
                    counts.append(replace(count, factor=child.overprovisioning_factor))
        self.loads = priority_loads(counts, 0, panic_threshold) if counts else ()
        healthy = [(load.healthy, Choice(*slot, False)) for slot, load in zip(self.slots, self.loads, strict=True)]
        degraded = [(load.degraded, Choice(*slot, True)) for slot, load in zip(self.slots, self.loads, strict=True)]
        self.of_percent = tuple(choice for percent, choice in (*healthy, *degraded) for _ in range(percent))


class AggregateBalancer:
    """The balancers of the children as one; `panic_threshold` is the aggregate cluster's own, in percent."""

    __slots__ = ("_children", "_row", "_threshold", "hosts", "needs_refresh")

    def __init__(self, children: Sequence[ClusterBalancer], panic_threshold: float) -> None:
        self._children = tuple(children)
        self._threshold = panic_threshold
        self.hosts: tuple[Host, ...] = tuple(host for child in children for host in child.hosts)
        self.needs_refresh = False  # the children ask for themselves
        self._row = self._compile(tuple(child.whole() for child in self._children))

    @property
    def in_panic(self) -> bool:
        """Whether a child that gets load is in panic."""
        return any(child.in_panic for child in {self._children[choice.child] for choice in self._row.of_percent})

    def choose(self, rng: Rng) -> Choice | None:
        """The child and the priority for one attempt; None: no child has any host."""
        row = self._row
        for child, view in zip(self._children, row.views, strict=True):
            if child.whole() is not view:
                row = self._row = self._compile(tuple(child.whole() for child in self._children))
                break
        return row.of_percent[int(rng.random() * 100)] if row.of_percent else None

    def pick(self, request_hash: int | None, criteria: Struct, rng: Rng) -> Host | None:
        """A host for one attempt, or None."""
        choice = self.choose(rng)
        if choice is None:
            return None
        child = self._children[choice.child]
        return child.pick_in(choice.priority, choice.degraded, request_hash, criteria, rng)

    def refresh(self) -> None:
        """Compile the children's views and what is made of them for the availability of now."""
        for child in self._children:
            child.refresh()
        self._row = self._compile(tuple(child.whole() for child in self._children))

    def describe(self, criteria: Struct = EMPTY_STRUCT) -> BalancerReport:
        """The children's priorities in one row, with their share of the load."""
        self.choose(_FIRST)
        reports = [child.describe(criteria) for child in self._children]
        names = dict.fromkeys(report.policy for report in reports)
        slots = zip(self._row.slots, self._row.loads, strict=True)
        rows = [_described(number, reports[child].priorities[priority], load)
                for number, ((child, priority), load) in enumerate(slots)]  # fmt: skip
        return BalancerReport(" / ".join(names) or "Aggregate", tuple(rows))

    def _compile(self, views: tuple[View, ...]) -> _Row:
        return _Row(self._children, views, self._threshold)


class _First:
    """A draw whose result is not used."""

    def random(self) -> float:
        return 0.0


_FIRST = _First()


def _described(number: int, report: PriorityReport, load: PriorityLoad) -> PriorityReport:
    return replace(report, priority=number, healthy_load=load.healthy, degraded_load=load.degraded)
