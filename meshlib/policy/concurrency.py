"""A concurrency limit that follows latency: the gradient controller of Envoy's adaptive concurrency."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from meshlib.model.shedding import AdaptiveConcurrency
from meshlib.policy.rng import Rng
from meshlib.state.counter import Counter

_MOST_SAMPLES = 5_000  # of one window; more would say the same
_AT_MINIMUM = 5  # windows in a row with the limit at its minimum, after which minRTT is measured again


class GradientController:
    """The limit of `AdaptiveConcurrency`, by Envoy's algorithm. Thread-safe; `now` is monotonic seconds.

    There are no timers: a window that is over is closed by the next request that begins. So a limit that nobody asks
    for stays as it was.

    `limit` is the present limit, `in_flight` how many requests are inside; `min_rtt` and `sample_rtt` are seconds, 0
    until they are known; `gradient` is the last one. `blocked` counts refusals (`rq_blocked`).
    """

    __slots__ = (
        "_at_minimum",
        "_config",
        "_deferred",
        "_due",
        "_epoch",
        "_jitter",
        "_lock",
        "_measure_at",
        "_samples",
        "_window_ends",
        "blocked",
        "gradient",
        "in_flight",
        "limit",
        "min_rtt",
        "sample_rtt",
    )

    def __init__(self, config: AdaptiveConcurrency) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._samples: list[float] = []
        self._jitter = self._epoch = self._due = self._window_ends = -math.inf
        self._measure_at = -math.inf if config.min_rtt is None else math.inf
        self._deferred = 0  # the limit to go back to when minRTT is known; not 0 while it is measured
        self._at_minimum = 0
        self.limit = config.min_concurrency
        self.in_flight = 0
        self.min_rtt = config.min_rtt or 0.0
        self.sample_rtt = 0.0
        self.gradient = 1.0
        self.blocked = Counter()

    @property
    def measuring(self) -> bool:
        """Whether minRTT is being measured (`min_rtt_calculation_active`)."""
        return self._deferred > 0

    def forwards(self, now: float, rng: Rng, share: float = 1.0) -> bool:
        """Whether a request may pass, which then is to be told of by `sample` or `cancel`. It may fill a `share` of the
        limit, one place at least.
        """
        with self._lock:
            if now >= self._due:
                self._tick(now, rng)
            limit = self.limit if share >= 1.0 else max(1, int(self.limit * share))
            if self.in_flight < limit:
                self.in_flight += 1
                return True
        self.blocked.add()
        return False

    def sample(self, began: float, now: float) -> None:
        """A request that passed at `began` has ended."""
        with self._lock:
            self.in_flight -= 1
            if began < self._epoch:  # of before the measurement: it may have seen more load
                return
            samples = self._samples
            if len(samples) < _MOST_SAMPLES:
                samples.append(now - began)
            if self._deferred and len(samples) >= self._config.request_count:
                self._measured(now)

    def cancel(self) -> None:
        """A request that passed was given up: what it took says nothing."""
        with self._lock:
            self.in_flight -= 1

    def _tick(self, now: float, rng: Rng) -> None:
        """Whatever is due."""
        self._jitter = rng.random()
        if not self._deferred:
            if now >= self._window_ends:
                self._window_ends = now + self._config.concurrency_update_interval
                self._update(now)
            if now >= self._measure_at:
                self._measure(now)
        self._due = math.inf if self._deferred else min(self._window_ends, self._measure_at)

    def _measure(self, now: float) -> None:
        """Let few in, so that what they take is what a request takes without load."""
        self._deferred = self.limit
        self._set(self._config.min_concurrency, now)
        self._samples = []
        self._epoch = now

    def _measured(self, now: float) -> None:
        config = self._config
        self.min_rtt = self._taken()
        self._set(self._deferred, now)
        self._deferred = 0
        self._measure_at = now + config.min_rtt_interval * (1.0 + self._jitter * config.jitter / 100.0)
        self._window_ends = now + config.concurrency_update_interval
        self._due = min(self._window_ends, self._measure_at)

    def _update(self, now: float) -> None:
        """A window is over: the limit by what requests took in it, if there were any."""
        if not self._samples:
            return
        self.sample_rtt = self._taken()
        expected = self.min_rtt * (1.0 + self._config.buffer / 100.0)
        raw = expected / self.sample_rtt if self.sample_rtt > 0.0 else 2.0
        self.gradient = max(0.5, min(2.0, raw))
        scaled = self.limit * self.gradient
        wanted = int(scaled + math.sqrt(scaled))  # the headroom for bursts is what lets the limit grow
        self._set(max(self._config.min_concurrency, min(self._config.max_concurrency_limit, wanted)), now)

    def _set(self, limit: int, now: float) -> None:
        """A limit that stays at its minimum says that minRTT is wrong by now: the service has become slower."""
        minimum = self._config.min_concurrency
        stays = not self._deferred and self.limit == limit == minimum
        self._at_minimum = self._at_minimum + 1 if stays else 0
        self.limit = limit
        if self._at_minimum >= _AT_MINIMUM and self._config.min_rtt is None:
            self._measure_at = now

    def _taken(self) -> float:
        samples, self._samples = self._samples, []
        return quantile(sorted(samples), self._config.sample_aggregate_percentile / 100.0)


def quantile(ordered: Sequence[float], part: float) -> float:
    """The quantile of values in ascending order, at least one; between two of them as far as it lies between them."""
    position = min(1.0, max(0.0, part)) * (len(ordered) - 1)
    index = int(position)
    left, right = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    return left + (right - left) * (position - index)
