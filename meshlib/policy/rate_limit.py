"""The token bucket (`envoy.filters.http.local_ratelimit`).

Envoy 1.40 fills its bucket continuously (`AtomicTokenBucketImpl`), at `tokens_per_fill / fill_interval` tokens a
second, not in steps; so does this one.
"""

from __future__ import annotations

import math
import threading

from meshlib.model.filters import TokenBucket

MINIMUM_FILL_RATE = 1.0 / (365 * 24 * 3600)
"""Tokens per second below which Envoy does not go: one a year."""
_ROUNDING = 1e-9  # a token that is short of one by a rounding error is one


class LocalTokenBucket:
    """A token bucket that starts full. Thread-safe: a lock is held for a few float operations, never over a call.

    All that changes is one number, the moment at which the bucket was (or would have been) empty; the tokens in it are
    the time since then times the rate, at most `max_tokens`. A clock that stands still or goes back gives no tokens.
    """

    __slots__ = ("_empty_at", "_lock", "max_tokens", "rate")

    def __init__(self, config: TokenBucket) -> None:
        self.max_tokens = float(config.max_tokens)
        self.rate = max(config.tokens_per_fill / config.fill_interval, MINIMUM_FILL_RATE)
        self._empty_at = -math.inf
        self._lock = threading.Lock()

    def take(self, now: float, n: float = 1) -> bool:
        """Take `n` tokens, or none and give False. A negative number gives tokens back."""
        with self._lock:
            tokens = (now - self._empty_at) * self.rate
            if tokens > self.max_tokens:  # noqa: PLR1730  min() doubles the cost of the whole call
                tokens = self.max_tokens
            if tokens < n:
                if tokens < n - _ROUNDING:
                    return False
                tokens = n
            self._empty_at = now - (tokens - n) / self.rate
        return True

    def remaining(self, now: float) -> float:
        """The tokens in the bucket."""
        return max(0.0, min(self.max_tokens, (now - self._empty_at) * self.rate))

    def next_available(self, now: float, n: float = 1) -> float:
        """Seconds until `n` tokens are there if nobody else takes any; infinity where `n` is over `max_tokens`."""
        if n > self.max_tokens:
            return math.inf
        return max(0.0, (n - self.remaining(now)) / self.rate)
