"""Outlier detection by consecutive 5xx (`source/common/upstream/outlier_detection_impl.cc`, rule by rule).

Detected: the n-th 5xx in a row. Ejected: if that keeps the ejected share of the hosts at or under
`max_ejection_percent` (or it is the first and `always_eject_one_host` is set), and the `enforcing` draw says so.
For `base_ejection_time` times the multiplier, at most `max_ejection_time`; the multiplier grows by one per ejection and
shrinks by one per `interval` in which the host was healthy. A host comes back at the first sweep after its time. Envoy
sweeps every `interval`, so do we if nobody asks for more; a caller may sweep earlier to let a host back on the dot.
"""

from __future__ import annotations

from typing import ClassVar

from meshlib.model.cluster import OutlierDetection
from meshlib.policy.classify import Classification
from meshlib.policy.rng import Rng, happens
from meshlib.state.cells import ClusterState, Ejection, EndpointState

CONSECUTIVE_5XX = "consecutive_5xx"


class OutlierDetector:
    """The rules of one cluster. Streaks, ejections, multipliers and when one is due to shrink live in the cluster's
    state and outlive it.

    Safe under threads without a lock: of the threads that see one streak complete exactly one gets the cell's place
    among the ejected, and that place is taken before the ejected share is looked at, so it is never exceeded.
    """

    __slots__ = ("_config", "_threshold")
    wants_successes: ClassVar[bool] = False
    """Whether `record` is to hear of successes too that end no streak; nearly all attempts are those."""

    def __init__(self, config: OutlierDetection) -> None:
        self._config = config
        self._threshold = max(1, config.consecutive_5xx)

    def record(
        self,
        cluster: ClusterState,
        cell: EndpointState,
        classification: Classification,
        now: float,
        host_count: int,
        rng: Rng,
    ) -> Ejection | None:
        """Count one attempt's end; the ejection it caused, if it did. `host_count` is the cluster's size."""
        streaks = cluster.streaks
        if not classification.counts_as_5xx:
            if not classification.neutral:
                streaks.pop(cell, None)
            return None
        if cell.ejection is not None:
            return None
        streak = streaks.setdefault(cell, [])  # atomic; one that is popped meanwhile ended after this failure
        streak.append(None)
        if len(streak) < self._threshold:
            return None
        ejection = self._eject(cluster, cell, now, host_count, rng)
        streaks.pop(cell, None)  # also when not ejected: the next detection needs a whole streak again
        return ejection

    def sweep(self, cluster: ClusterState, now: float) -> float:
        """Let hosts back whose time is over, and forgive hosts that have been healthy for an interval one ejection.

        To be called at least every `interval`; returns when next.
        """
        for cell in list(cluster.endpoints.values()):
            if cell.ejections and cell.ejection is None:
                self._forgive(cluster, cell, now)
        over = [cell for cell in list(cluster.ejected) if cell.ejection is not None and cell.ejection.until <= now]
        for cell in over:
            self._uneject(cluster, cell)
            cluster.forgive_at[cell] = now + self._config.interval
        if over:
            cluster.availability_changed()
        return now + self._config.interval

    def healthy(self, cluster: ClusterState, cell: EndpointState, now: float) -> bool:
        """An active health check of the host has succeeded. Whether that let it back, as it does unless
        `successful_active_health_check_uneject_host` is false.
        """
        wanted = self._config.successful_active_health_check_uneject_host
        if not wanted or cell.ejection is None:
            return False
        self._uneject(cluster, cell)
        cluster.forgive_at[cell] = now + self._config.interval
        cluster.availability_changed()
        return True

    def forget(self, cluster: ClusterState, cell: EndpointState) -> None:
        """The host has left the cluster: it no longer takes up a place among the ejected."""
        if cell.ejection is not None:
            self._uneject(cluster, cell)
            cluster.availability_changed()

    def _forgive(self, cluster: ClusterState, cell: EndpointState, now: float) -> None:
        due = cluster.forgive_at.pop(cell, None)  # atomic: of two sweeps at once only one forgives
        if due is None:
            due = now + self._config.interval
        elif now >= due:
            due = now + self._config.interval
            cell.ejections -= 1
        if cell.ejections:
            cluster.forgive_at[cell] = due

    def _eject(
        self, cluster: ClusterState, cell: EndpointState, now: float, host_count: int, rng: Rng
    ) -> Ejection | None:
        # setdefault is atomic: of several threads with one cell only the first finds its own token there.
        places = cluster.ejected
        token = object()
        if places.setdefault(cell, token) is not token:
            return None
        _count(cluster, "ejections_detected_consecutive_5xx")
        if not self._allowed(len(places), host_count):
            _count(cluster, "ejections_overflow")
        elif happens(self._config.enforcing_consecutive_5xx / 100.0, rng):
            return self._enforce(cluster, cell, now)
        places.pop(cell, None)
        return None

    def _enforce(self, cluster: ClusterState, cell: EndpointState, now: float) -> Ejection:
        config = self._config
        if cell.ejections * config.base_ejection_time < config.max_ejection_time + config.base_ejection_time:
            cell.ejections += 1
        ejection = Ejection(now, now + self._duration(cell.ejections), CONSECUTIVE_5XX)
        cell.ejection = ejection
        cluster.forgive_at.pop(cell, None)
        _count(cluster, "ejections_enforced_total")
        _count(cluster, "ejections_enforced_consecutive_5xx")
        cluster.availability_changed()
        return ejection

    def _allowed(self, ejected: int, host_count: int) -> bool:
        """Whether `ejected` hosts, the new one among them, may be out of `host_count`."""
        if ejected == 1 and self._config.always_eject_one_host:
            return True
        return 100.0 * ejected <= min(100, self._config.max_ejection_percent) * host_count

    def _duration(self, multiplier: int) -> float:
        config = self._config
        longest = max(config.max_ejection_time, config.base_ejection_time)
        return min(config.base_ejection_time * multiplier, longest)

    @staticmethod
    def _uneject(cluster: ClusterState, cell: EndpointState) -> None:
        cluster.streaks.pop(cell, None)  # so that a few new errors do not eject it again
        cell.ejection = None
        cluster.ejected.pop(cell, None)


def _count(cluster: ClusterState, name: str) -> None:
    cluster.stats[f"outlier_detection.{name}"].add()
