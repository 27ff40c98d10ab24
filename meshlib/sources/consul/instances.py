"""What is known of one health query's instances, and what of it to believe after Consul was away.

A server that comes back empty answers with a lower index and an empty list, and services register again one by one. An
agent that comes back with its state calls every instance critical until its checks have run. Believed at once, either
would take endpoints away from callers whose instances are well. So for a grace period after Consul was away nobody is
lost on its word alone: an instance that was usable and is missing or critical stays as it was. (Eureka calls the same
self-preservation.) One that was told of as usable since, and then leaves, has left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshlib.model.endpoint import ClusterLoadAssignment, Locality, LocalityLbEndpoints
from meshlib.sources.consul.health import Instance

_TO_THE_LAST = 100_000  # percent; as in Consul's configuration of Envoy: fail over when nothing is left, not before


class KnownInstances:
    """The instances of one query; `current` is what to use, `until` when the grace is over (monotonic, None: none)."""

    __slots__ = ("_confirmed", "_latest", "current", "until")

    def __init__(self) -> None:
        self._latest: tuple[Instance, ...] = ()
        self._confirmed: frozenset[tuple[str, str]] = frozenset()
        self.current: tuple[Instance, ...] = ()
        self.until: float | None = None

    def tell(self, latest: tuple[Instance, ...], *, keep_until: float | None) -> bool:
        """A new answer; `keep_until` after Consul was away. Whether `current` changed."""
        if keep_until is not None:
            self.until, self._confirmed = keep_until, frozenset()
        self._latest = latest
        current = latest if self.until is None else (*self._told(), *self._missing())
        changed, self.current = current != self.current, current
        return changed

    def expire(self, now: float) -> bool:
        """Believe what was told last, once the grace is over. Whether `current` changed."""
        if self.until is None or now < self.until:
            return False
        self.until = None
        return self.tell(self._latest, keep_until=None)

    def _told(self) -> Iterator[Instance]:
        before = {instance.key: instance for instance in self.current if instance.is_usable}
        for instance in self._latest:
            yield instance if instance.is_usable else before.get(instance.key, instance)

    def _missing(self) -> Iterator[Instance]:
        usable = {instance.key for instance in self._latest if instance.is_usable}
        told = {instance.key for instance in self._latest}
        for instance in self.current:
            if instance.is_usable and instance.key not in told and instance.key not in self._confirmed:
                yield instance
        self._confirmed |= usable


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
