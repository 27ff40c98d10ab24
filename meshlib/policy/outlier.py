"""Outlier detection (`source/common/upstream/outlier_detection_impl.cc`, rule by rule).

Detected: the n-th failure in a row of one kind, at once; and who stands out by its share of failures (`outlier_rates`),
at the end of each `interval`. Ejected: if that keeps the ejected share of the hosts at or under `max_ejection_percent`
(or it is the first and `always_eject_one_host` is set), and the detector's `enforcing` draw says so. For
`base_ejection_time` times the multiplier, at most `max_ejection_time`, and a random part of `max_ejection_time_jitter`;
the multiplier grows by one per ejection and shrinks by one per `interval` in which the host was healthy. A host comes
back when its time is over, in Envoy at the next multiple of `interval` after that.
"""

from __future__ import annotations

import math
from itertools import count
from typing import NamedTuple

from meshlib.model.cluster import OutlierDetection
from meshlib.policy.classify import Classification
from meshlib.policy.outlier_rates import (
    FAILURE_PERCENTAGE,
    LOCAL_FAILURE_PERCENTAGE,
    LOCAL_SUCCESS_RATE,
    SUCCESS_RATE,
    enough_hosts,
    least_volume,
    outliers,
)
from meshlib.policy.rng import Rng, happens
from meshlib.state.cells import ClusterState, Ejection, EndpointState
from meshlib.state.outliers import Window, step

CONSECUTIVE_5XX = "consecutive_5xx"
CONSECUTIVE_GATEWAY_FAILURE = "consecutive_gateway_failure"
CONSECUTIVE_LOCAL_ORIGIN_FAILURE = "consecutive_local_origin_failure"
_SHORTEST = 0.001  # seconds; no interval is shorter
_ROUNDING = 1e-9  # of an interval: what the sum of a few times may be off by


class Change(NamedTuple):
    """An endpoint that was ejected at a time (monotonic seconds), or, without an ejection, came back."""

    at: float
    cell: EndpointState
    ejection: Ejection | None


class Swept(NamedTuple):
    """What a sweep changed, in order, and when the next one is due."""

    due: float
    changes: list[Change]


class OutlierDetector:
    """The rules of one cluster of `hosts` hosts (None: as many as are needed). Streaks, windows, ejections and
    multipliers live in the cluster's state and outlive it. `counts`: whether the shares of failures are looked at, and
    so every success has to be counted in `ClusterState.window`.

    Safe under threads without a lock: of the threads that see one streak complete exactly one gets the cell's place
    among the ejected, and that place is taken before the ejected share is looked at, so it is never exceeded.
    """

    __slots__ = ("_config", "_enforcing", "_interval", "_thresholds", "counts")

    def __init__(self, config: OutlierDetection, hosts: int | None = None) -> None:
        self._config = config
        self._interval = max(config.interval, _SHORTEST)
        self._thresholds = {
            CONSECUTIVE_GATEWAY_FAILURE: config.consecutive_gateway_failure,
            CONSECUTIVE_5XX: config.consecutive_5xx,
            CONSECUTIVE_LOCAL_ORIGIN_FAILURE: config.consecutive_local_origin_failure,
        }
        self._enforcing = {
            CONSECUTIVE_GATEWAY_FAILURE: config.enforcing_consecutive_gateway_failure,
            CONSECUTIVE_5XX: config.enforcing_consecutive_5xx,
            CONSECUTIVE_LOCAL_ORIGIN_FAILURE: config.enforcing_consecutive_local_origin_failure,
            SUCCESS_RATE: config.enforcing_success_rate,
            FAILURE_PERCENTAGE: config.enforcing_failure_percentage,
            LOCAL_SUCCESS_RATE: config.enforcing_local_origin_success_rate,
            LOCAL_FAILURE_PERCENTAGE: config.enforcing_failure_percentage_local_origin,
        }
        self.counts = hosts is None or enough_hosts(config, hosts)

    # What attempts come to ---------------------------------------------------------------------------------------

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
        if classification.neutral or cluster.endpoints.get(cell.address) is not cell:
            return None
        if not classification.counts_as_5xx:
            if self.counts:
                step(cluster.window.successes, cell)
            cluster.streaks.pop(cell, None)
            return None
        for detector in self._failed(cluster, cell, classification):
            streak = self._streak_complete(cluster, cell, detector)
            if streak:
                ejection = self._eject(cluster, cell, detector, f"{streak} in a row", now, host_count, rng)
                if ejection is not None:
                    return ejection
        return None

    def _failed(self, cluster: ClusterState, cell: EndpointState, failure: Classification) -> tuple[str, ...]:
        """Count a failure in the window and end the streaks that it ends; the detectors whose streak it is part of."""
        streaks, window = cluster.streaks.get(cell, {}), cluster.window
        if self._config.split_external_local_origin_errors:
            if failure.connected:
                streaks.pop(CONSECUTIVE_LOCAL_ORIGIN_FAILURE, None)
            if failure.local_origin:
                if self.counts:
                    step(window.local_failures, cell)
                    if failure.connected:
                        step(window.connected, cell)
                return (CONSECUTIVE_LOCAL_ORIGIN_FAILURE,)
        if self.counts:
            step(window.failures, cell)
        if failure.gateway_error:
            return CONSECUTIVE_GATEWAY_FAILURE, CONSECUTIVE_5XX
        streaks.pop(CONSECUTIVE_GATEWAY_FAILURE, None)
        return (CONSECUTIVE_5XX,)

    def _streak_complete(self, cluster: ClusterState, cell: EndpointState, detector: str) -> int:
        """One failure more. The length of the streak if that completes it: then it is over, ejected or not, and the
        next detection needs a whole one again. While the host is ejected nothing is counted.
        """
        threshold = self._thresholds[detector]
        if cell.ejection is not None or not threshold:
            return 0
        streaks = cluster.streaks.get(cell)
        if streaks is None:
            streaks = cluster.streaks.setdefault(cell, {})
        length = next(streaks.setdefault(detector, count(1)))  # one that is popped meanwhile ended after this failure
        return length if length >= threshold and streaks.pop(detector, None) is not None else 0

    # What time brings --------------------------------------------------------------------------------------------

    def sweep(self, cluster: ClusterState, now: float, host_count: int, rng: Rng) -> Swept:
        """Let hosts back whose time is over, and at the end of an interval eject those that stood out in it, and
        forgive hosts that have been healthy for one an ejection.

        A sweep that comes late, because nobody called, does what was due when it was due: an ejection may then lie in
        the past, and be over already.
        """
        window, changes, late = cluster.window, list[Change](), -1
        if math.isinf(window.ends):
            window.ends = now + self._interval
        elif now >= window.ends and window.close():
            late = math.floor((now - window.ends) / self._interval)  # whole intervals in which nobody called
            cluster.window = Window(window.ends + (late + 1) * self._interval)
            changes += self._return_over(cluster, window.ends)
            if self.counts and enough_hosts(self._config, host_count):
                changes += self._eject_outliers(cluster, window, host_count, rng)
        changes += self._return_over(cluster, now)
        if late >= 0:
            self._forgive(cluster, window.ends, late)
        due = [cell.ejection.until for cell in list(cluster.ejected) if cell.ejection is not None]
        return Swept(min(cluster.window.ends, *due) if due else cluster.window.ends, changes)

    def _eject_outliers(self, cluster: ClusterState, window: Window, host_count: int, rng: Rng) -> list[Change]:
        known, busy = cluster.endpoints, window.read(least_volume(self._config))
        tallies = {cell: tally for cell, tally in busy.items() if known.get(cell.address) is cell}
        changes = []
        for cell, detector, details in [*outliers(self._config, tallies)]:
            _count(cluster, f"detected_{detector}")
            ejection = self._eject(cluster, cell, detector, details, window.ends, host_count, rng)
            if ejection is not None:
                changes.append(Change(window.ends, cell, ejection))
        return changes

    def _return_over(self, cluster: ClusterState, now: float) -> list[Change]:
        """Let hosts back whose time is over."""
        ejected = [(cell, cell.ejection) for cell in list(cluster.ejected)]
        over = [(cell, ejection.until) for cell, ejection in ejected if ejection is not None and ejection.until <= now]
        return [
            Change(until, cell, None)
            for cell, until in sorted(over, key=lambda pair: pair[1])
            if _uneject(cluster, cell, until)
        ]

    def _forgive(self, cluster: ClusterState, first: float, late: int) -> None:
        """Take from the multipliers what the ends of intervals at `first` and `late` times after it take from them."""
        for cell in list(cluster.returned_at):
            since = cluster.returned_at.pop(cell, None)  # atomic
            if since is None:
                continue
            passed_over = max(0, math.ceil((since - first) / self._interval + 1 - _ROUNDING))
            cell.ejections = max(0, cell.ejections - max(0, late + 1 - passed_over))
            if cell.ejections and cell.ejection is None:
                cluster.returned_at.setdefault(cell, since)

    def healthy(self, cluster: ClusterState, cell: EndpointState, now: float) -> bool:
        """An active health check of the host has succeeded. Whether that let it back, as it does unless
        `successful_active_health_check_uneject_host` is false.
        """
        wanted = self._config.successful_active_health_check_uneject_host
        return wanted and cell.ejection is not None and _uneject(cluster, cell, now)

    # Ejection ----------------------------------------------------------------------------------------------------

    def _eject(
        self,
        cluster: ClusterState,
        cell: EndpointState,
        detector: str,
        details: str,
        now: float,
        host_count: int,
        rng: Rng,
    ) -> Ejection | None:
        # setdefault is atomic: of several threads with one cell only the first finds its own token there.
        places = cluster.ejected
        token = object()
        if places.setdefault(cell, token) is not token:
            return None
        if detector in self._thresholds:
            _count(cluster, f"detected_{detector}")
        if not self._allowed(len(places), host_count):
            _count(cluster, "overflow")
        elif happens(self._enforcing[detector] / 100.0, rng):
            return self._enforce(cluster, cell, Ejection(now, now, detector, details), rng)
        places.pop(cell, None)
        return None

    def _enforce(self, cluster: ClusterState, cell: EndpointState, ejection: Ejection, rng: Rng) -> Ejection:
        config = self._config
        if cell.ejections * config.base_ejection_time < config.max_ejection_time + config.base_ejection_time:
            cell.ejections += 1
        ejection.until += self._duration(cell.ejections) + self._jitter(rng)
        cell.ejection = ejection
        cluster.returned_at.pop(cell, None)
        _count(cluster, "enforced_total")
        _count(cluster, f"enforced_{ejection.reason}")
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

    def _jitter(self, rng: Rng) -> float:
        """Up to the configured seconds, in whole milliseconds; nothing is drawn without them."""
        most = int(self._config.max_ejection_time_jitter * 1000)
        return int(rng.random() * (most + 1)) / 1000.0 if most else 0.0


def _uneject(cluster: ClusterState, cell: EndpointState, now: float) -> bool:
    """Let the host back; False where another thread does."""
    if cell.ejection is None or cluster.ejected.pop(cell, None) is None:
        return False
    cluster.streaks.pop(cell, None)  # so that a few new errors do not eject it again
    cluster.returned_at[cell] = now
    cell.ejection = None
    cluster.availability_changed()
    return True


def _count(cluster: ClusterState, name: str) -> None:
    cluster.stats[f"outlier_detection.ejections_{name}"].add()
