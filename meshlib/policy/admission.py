"""Admission control: refusing at random by the success rate (`envoy.extensions.filters.http.admission_control.v3`)."""

from __future__ import annotations

import threading
from collections import deque

from meshlib.model.shedding import AdmissionControl
from meshlib.policy.rng import Rng
from meshlib.state.counter import Counter

_GRANULARITY = 1.0  # seconds that are counted together, as in Envoy
_ACCURACY = 10_000


class AdmissionController:
    """The counts of one filter and what follows from them. Thread-safe; `now` is monotonic seconds.

    Envoy counts per worker thread; this counts per process, as an Envoy of one worker does.

    `rejected`, `succeeded` and `failed` count as Envoy's `rq_rejected`, `rq_success` and `rq_failure`.
    """

    __slots__ = (
        "_config",
        "_grpc",
        "_http",
        "_lock",
        "_seconds",
        "_threshold",
        "failed",
        "rejected",
        "requests",
        "succeeded",
        "successes",
    )

    def __init__(self, config: AdmissionControl) -> None:
        self._config = config
        self._http = frozenset(status for low, high in config.http_success_status for status in range(low, high))
        self._grpc = frozenset(config.grpc_success_status)
        self._threshold = min(config.sr_threshold, 100.0) / 100.0
        self._lock = threading.Lock()
        self._seconds: deque[list[float]] = deque()  # [when it began, requests, successes]
        self.requests = 0
        self.successes = 0
        self.rejected, self.succeeded, self.failed = Counter(), Counter(), Counter()

    def rejects(self, now: float, rng: Rng) -> bool:
        """Whether a request is refused. One that is not is to be told of by `record`."""
        if self.successes >= self.requests * self._threshold:  # as nearly always: no lock for that
            return False
        with self._lock:
            self._forget(now)
            chance = self._probability(now)
        if int(rng.random() * _ACCURACY) >= chance * _ACCURACY:
            return False
        self.rejected.add()
        return True

    def record(self, status: int | None, grpc_status: int | None, now: float) -> None:
        """A request ended with these; one without either got no response, and says nothing."""
        if grpc_status is not None:
            success = grpc_status in self._grpc
        elif status is not None:
            success = status in self._http
        else:
            return
        (self.succeeded if success else self.failed).add()
        with self._lock:
            seconds = self._seconds
            if not seconds or now - seconds[0][0] >= self._config.sampling_window:
                self._forget(now)
            if not seconds or now - seconds[-1][0] >= _GRANULARITY:
                seconds.append([now, 0, 0])
            last = seconds[-1]
            last[1] += 1
            self.requests += 1
            if success:
                last[2] += 1
                self.successes += 1

    def probability(self, now: float) -> float:
        """How likely a refusal is."""
        with self._lock:
            self._forget(now)
            return self._probability(now)

    def _probability(self, now: float) -> float:
        config, requests = self._config, self.requests
        if config.rps_threshold and self._rps(now) < config.rps_threshold:
            return 0.0
        chance = (requests - self.successes / self._threshold) / (requests + 1)
        if chance <= 0.0:
            return 0.0
        if config.aggression > 1.0:
            chance = chance ** (1.0 / config.aggression)
        return min(chance, config.max_rejection_probability / 100.0)

    def _rps(self, now: float) -> int:
        """Whole requests a second over the window, which counts as whole from the beginning."""
        seconds = self._seconds
        age = now - seconds[0][0] if seconds else 0.0
        return int(self.requests / max(1.0, int(self._config.sampling_window), int(age)))

    def _forget(self, now: float) -> None:
        seconds = self._seconds
        while seconds and now - seconds[0][0] >= self._config.sampling_window:
            _, requests, successes = seconds.popleft()
            self.requests -= int(requests)
            self.successes -= int(successes)
