"""A token bucket for requests to the control plane (Envoy's ``rate_limit_settings``)."""

from __future__ import annotations


class RequestRate:
    """At most ``max_tokens`` requests at once and ``fill_rate`` a second; Envoy's defaults. Needs one thread only."""

    def __init__(self, max_tokens: float = 100.0, fill_rate: float = 10.0) -> None:
        if max_tokens < 1 or fill_rate <= 0:
            raise ValueError(f"max_tokens {max_tokens} must be at least 1, fill_rate {fill_rate} above 0")
        self._max = max_tokens
        self._fill_rate = fill_rate
        self._tokens = max_tokens
        self._filled_at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self._fill(now) >= 1

    def spend(self, now: float) -> None:
        """A request is sent. A batch may run into debt, which is paid before the next batch."""
        self._tokens = self._fill(now) - 1

    def wait(self, now: float) -> float:
        """Seconds until ``allows``."""
        return max((1 - self._fill(now)) / self._fill_rate, 0.0)

    def _fill(self, now: float) -> float:
        if self._filled_at is not None:
            self._tokens = min(self._tokens + (now - self._filled_at) * self._fill_rate, self._max)
        self._filled_at = now
        return self._tokens
