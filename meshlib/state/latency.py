"""The peak EWMA of one endpoint's latencies: rises to a peak at once, falls over time (Finagle's `PeakEwma`)."""

from __future__ import annotations

from collections import deque
from math import exp
from typing import NamedTuple


class Estimate(NamedTuple):
    """`seconds` of latency, as of `at` (monotonic)."""

    seconds: float
    at: float


class Latency:
    """Samples go in from any thread; none is lost and none is counted twice, without a lock.

    A sample is put into a queue, and whoever finds the one token free works the queue off. A thread that does not get
    the token leaves its sample to the one that has it, or to the next that comes.
    """

    __slots__ = ("_queue", "_token", "estimate")

    def __init__(self) -> None:
        self._queue: deque[tuple[float, float]] = deque()
        self._token: list[None] = [None]
        self.estimate: Estimate | None = None

    def observe(self, seconds: float, now: float, decay_time: float) -> None:
        """An answer took `seconds`. A sample's weight falls to 1/e in `decay_time` seconds."""
        self._queue.append((seconds, now))
        try:
            self._token.pop()
        except IndexError:
            return
        try:
            self._work_off(decay_time)
        finally:
            self._token.append(None)

    def _work_off(self, decay_time: float) -> None:
        queue = self._queue
        while queue:
            seconds, at = queue.popleft()
            known = self.estimate
            if known is None or seconds > known.seconds:  # a peak counts in full
                self.estimate = Estimate(seconds, at)
                continue
            kept = exp(-max(0.0, at - known.at) / decay_time)
            # The difference is weighed, so that no rounding lifts the estimate over what was ever seen.
            self.estimate = Estimate(known.seconds - (known.seconds - seconds) * (1.0 - kept), max(at, known.at))
