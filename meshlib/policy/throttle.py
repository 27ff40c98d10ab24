"""A body that goes slowly: how much of it may go now.

As Envoy's `StreamRateLimiter`: a bucket that holds what a second gives and is filled all the time, a twentieth of that
in it at first, and looked into every 50 ms.
"""

from __future__ import annotations

INTERVAL = 0.05
"""Seconds to wait for more, where not all of a piece may go."""
_ROUNDING = 1e-6  # a byte that is short of one by a rounding error is one


class Throttle:
    """One body at `rate` bytes a second, begun with the first piece."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._tokens = rate * INTERVAL
        self._at: float | None = None

    def take(self, size: int, now: float) -> int:
        """How many of `size` bytes may go at `now`."""
        if self._at is not None:
            self._tokens = min(float(self.rate), self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        taken = min(size, int(self._tokens + _ROUNDING))
        self._tokens -= taken
        return taken
