"""What is known of one health query's instances, and what of it to believe after Consul has lost its state.

A server that comes back empty answers with a lower index and an empty list; services then register again one by one.
Believed at once, that answer would take every endpoint away from callers whose instances are well. So after a reset the
instances that are missing stay for a grace period, unless they are told of again, in whatever health.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.model.endpoint import ClusterLoadAssignment, Locality, LocalityLbEndpoints
from meshlib.sources.consul.health import Instance

_TO_THE_LAST = 100_000  # percent; as in Consul's configuration of Envoy: fail over when nothing is left, not before


class KnownInstances:
    """The instances of one query; `current` is what to use."""

    __slots__ = ("_kept", "_latest", "current", "until")

    def __init__(self) -> None:
        self._latest: tuple[Instance, ...] = ()
        self._kept: tuple[Instance, ...] = ()
        self.current: tuple[Instance, ...] = ()
        self.until: float | None = None  # monotonic; when what is kept without proof is let go

    def tell(self, latest: tuple[Instance, ...], *, keep_until: float | None) -> bool:
        """A new answer; `keep_until` after a reset. Whether `current` changed."""
        if keep_until is not None:
            self._kept, self.until = self.current, keep_until
        self._latest = latest
        return self._settle()

    def expire(self, now: float) -> bool:
        """Let go of what was kept long enough. Whether `current` changed."""
        if self.until is None or now < self.until:
            return False
        self._kept, self.until = (), None
        return self._settle()

    def _settle(self) -> bool:
        told = {instance.key for instance in self._latest}
        self._kept = tuple(instance for instance in self._kept if instance.key not in told)
        if not self._kept:
            self.until = None
        current = (*self._latest, *self._kept)
        changed, self.current = current != self.current, current
        return changed


def assignment(name: str, groups: Sequence[Sequence[Instance]], nearest: int | None = None) -> ClusterLoadAssignment:
    """Endpoints by priority: each group that has any comes after the one before it; with `nearest` so many of the first
    group come before the rest of it.
    """
    ranked = [group for group in groups if group]
    if ranked and nearest:
        ranked[:1] = [part for part in (ranked[0][:nearest], ranked[0][nearest:]) if part]
    localities = [part for priority, group in enumerate(ranked) for part in _by_locality(group, priority)]
    if len(ranked) > 1:
        return ClusterLoadAssignment(name, tuple(localities), overprovisioning_factor=_TO_THE_LAST)
    return ClusterLoadAssignment(name, tuple(localities))


def _by_locality(group: Sequence[Instance], priority: int) -> list[LocalityLbEndpoints]:
    parts: dict[Locality, list[Instance]] = {}
    # By key, because Consul's order changes with every round trip it measures, and that is no change of the service.
    for instance in sorted(group, key=lambda instance: instance.key):
        parts.setdefault(instance.locality, []).append(instance)
    return [
        LocalityLbEndpoints(tuple(instance.endpoint for instance in members), locality, priority)
        for locality, members in parts.items()
    ]
