"""How the load is shared among priorities, in Envoy's integer arithmetic (its documentation: "Priority levels").

health(P) = min(100, overprovisioning factor x healthy / total). P0 takes what its health allows, the rest spills over
to P1, and so on; when all health together is below 100 it is scaled up to it. Degraded hosts take what the healthy ones
of every priority leave. When the healths add up to less than 100, a priority below the panic threshold is balanced over
all its hosts; when every priority is, the load goes by the number of hosts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostCounts:
    """The hosts of one priority. `excluded` are draining: they are leaving, so they are not missed when health is
    computed, but panic uses them as every other host. `weights`: of those (staying, healthy, degraded), where health
    goes by weight (`weighted_priority_health`). `factor`: its own overprovisioning factor, in an aggregate cluster.
    """

    total: int
    healthy: int
    degraded: int
    excluded: int = 0
    weights: tuple[int, int, int] | None = None
    factor: int | None = None

    def health(self, factor: int) -> tuple[int, int]:
        """Of the healthy and of the degraded hosts, 0 to 100: their share of those not excluded, times the
        overprovisioning factor in percent.
        """
        factor = factor if self.factor is None else self.factor
        staying, healthy, degraded = self.weights or (self.total - self.excluded, self.healthy, self.degraded)
        if not staying:
            return 0, 0
        return min(100, factor * healthy // staying), min(100, factor * degraded // staying)


@dataclass(frozen=True, slots=True)
class PriorityLoad:
    """Percent of the requests for the healthy and the degraded hosts of one priority; in panic both go to all hosts."""

    healthy: int
    degraded: int
    panic: bool


def priority_loads(
    counts: Sequence[HostCounts], overprovisioning_factor: int, panic_threshold: float
) -> tuple[PriorityLoad, ...]:
    """The load of every priority; healthy and degraded percentages add up to 100. `panic_threshold` in percent."""
    health = [count.health(overprovisioning_factor) for count in counts]
    healthy, degraded = [part for part, _ in health], [part for _, part in health]
    available = min(100, sum(healthy) + sum(degraded))
    threshold = min(100, int(panic_threshold + 0.5))
    if available == 0 and threshold == 0:
        # Nobody can serve and panic is off: whoever gets the load, nothing will be picked.
        return tuple(PriorityLoad(0 if index else 100, 0, False) for index in range(len(counts)))
    panic = [available < 100 and _available_percent(count) < threshold for count in counts]
    if all(panic):
        return _total_panic(counts)
    to_healthy, to_degraded = _distribute(healthy, degraded, available)
    return tuple(map(PriorityLoad, to_healthy, to_degraded, panic))


def loads_without(
    tried: Collection[int],
    loads: tuple[PriorityLoad, ...],
    counts: Sequence[HostCounts],
    overprovisioning_factor: int,
) -> tuple[PriorityLoad, ...]:
    """The load with the priorities `tried` left out, which the others take over by their health: Envoy's retry priority
    `previous_priorities`. `loads` as they are when none of the others has any health.
    """
    health = [
        (0, 0) if priority in tried else count.health(overprovisioning_factor) for priority, count in enumerate(counts)
    ]
    healthy, degraded = [part for part, _ in health], [part for _, part in health]
    available = min(100, sum(healthy) + sum(degraded))
    if available == 0:
        return loads
    to_healthy, to_degraded = _distribute(healthy, degraded, available)
    return tuple(map(PriorityLoad, to_healthy, to_degraded, (load.panic for load in loads)))


def _available_percent(count: HostCounts) -> float:
    staying = count.total - count.excluded
    return 100.0 * (count.healthy + count.degraded) / staying if staying else 0.0


def _distribute(healthy: Sequence[int], degraded: Sequence[int], available: int) -> tuple[list[int], list[int]]:
    """Percent by priority: healthy hosts of all priorities first, then degraded ones, then what rounding left."""
    left = 100
    loads: list[int] = []
    for health in (*healthy, *degraded):
        loads.append(min(left, health * 100 // available))
        left -= loads[-1]
    if left:
        first = next(index for index, health in enumerate((*healthy, *degraded)) if health)
        loads[first] += left
    return loads[: len(healthy)], loads[len(healthy) :]


def _total_panic(counts: Sequence[HostCounts]) -> tuple[PriorityLoad, ...]:
    total = sum(count.total for count in counts)
    if total == 0:
        return tuple(PriorityLoad(0 if index else 100, 0, True) for index in range(len(counts)))
    loads = [100 * count.total // total for count in counts]
    first = next(index for index, count in enumerate(counts) if count.total)
    loads[first] += 100 - sum(loads)
    return tuple(PriorityLoad(load, 0, True) for load in loads)
