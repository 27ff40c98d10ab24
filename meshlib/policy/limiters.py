"""Limiters beyond the token bucket: a queue of uniform rate, a rate that warms up, a number of requests in flight.

Each is asked to `take` a place for one request. Thread-safe: a lock is held for a few float operations.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from meshlib.model.filters import TokenBucket
from meshlib.model.limiters import Bucket, ConcurrencyLimit, Limiter, UniformRate, WarmUp
from meshlib.policy.rate_limit import LocalTokenBucket
from meshlib.policy.thresholds import admit

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """What a request gets: None in its stead is a refusal. It may go on after `wait` seconds; `leave` is to be called
    when it has ended, or is given up before it went on.
    """

    wait: float = 0.0
    leave: Callable[[], None] | None = None


AT_ONCE = Place()


class Limits(Protocol):
    """A limiter at run time."""

    limit: int
    """Requests in a `window`, for headers."""
    window: float

    def take(self, now: float) -> Place | None:
        """A place for one request, None where there is none."""

    def remaining(self, now: float) -> float:
        """Requests that would be let through at once."""

    def reset(self, now: float) -> float:
        """Seconds until one is let through; 0 where it is already, infinity where it is not known."""


class BucketLimits:
    """A token bucket."""

    __slots__ = ("_bucket", "limit", "window")

    def __init__(self, config: Bucket) -> None:
        size = max(1, round(config.burst or config.rate))
        self.limit, self.window = size, size / config.rate
        self._bucket = LocalTokenBucket(TokenBucket(size, size, self.window))

    def take(self, now: float) -> Place | None:
        """A place for one request, None where there is no token."""
        return AT_ONCE if self._bucket.take(now) else None

    def remaining(self, now: float) -> float:
        """Whole and broken tokens."""
        return self._bucket.remaining(now)

    def reset(self, now: float) -> float:
        """Seconds until there is a token."""
        return self._bucket.next_available(now)


class UniformLimits:
    """A queue. All that changes is the moment at which the next request may go on."""

    __slots__ = ("_config", "_lock", "_next", "_step", "limit", "window")

    def __init__(self, config: UniformRate) -> None:
        self._config = config
        self._step = 1.0 / config.rate
        self._next = -math.inf
        self._lock = threading.Lock()
        self.limit, self.window = max(1, round(config.rate)), max(1, round(config.rate)) / config.rate

    def take(self, now: float) -> Place | None:
        """A place in the queue, None where the wait would be too long. A clock that goes back lets nobody on sooner."""
        with self._lock:
            wait = self._next - now
            if wait <= _ROUNDING:
                self._next = now + self._step if wait < 0.0 else self._next + self._step
                return AT_ONCE
            if wait > self._config.max_wait + _ROUNDING:
                return None
            turn = self._next
            self._next = after = turn + self._step
        return Place(wait, lambda: self._leave(turn, after))

    def _leave(self, turn: float, after: float) -> None:
        """Give a place up: whoever comes next has it, if nobody stands behind it."""
        with self._lock:
            if self._next == after:
                self._next = turn

    def remaining(self, now: float) -> float:
        """One, or none."""
        return 1.0 if self._next - now <= _ROUNDING else 0.0

    def reset(self, now: float) -> float:
        """Seconds until a request would be taken into the queue."""
        return max(0.0, self._next - now - self._config.max_wait)


class WarmUpLimits:
    """A bucket that fills ever faster while it is in use."""

    __slots__ = ("_begun", "_cold", "_config", "_lock", "_seen", "_tokens", "limit", "window")

    def __init__(self, config: WarmUp) -> None:
        self._config = config
        self._cold = config.rate / config.cold_factor
        self._begun = self._seen = -math.inf
        self._tokens = 0.0
        self._lock = threading.Lock()
        self.limit, self.window = max(1, round(config.rate)), 1.0

    def rate(self, now: float) -> float:
        """Requests a second at a moment, if it stays in use until then."""
        warmth = (now - self._begun) / self._config.period
        return self._cold + (self._config.rate - self._cold) * min(1.0, max(0.0, warmth))

    def take(self, now: float) -> Place | None:
        """A place for one request, None where there is no token."""
        with self._lock:
            self._advance(now)
            if self._tokens < 1.0 - _ROUNDING:
                return None
            self._tokens = max(0.0, self._tokens - 1.0)
        return AT_ONCE

    def _advance(self, now: float) -> None:
        """Fill in what the time since the last request brings. A clock that goes back brings nothing."""
        since = now - self._seen
        if since >= self._config.period:
            self._begun = self._seen = now
            self._tokens = min(max(1.0, self._cold), self._tokens + since * self._cold)
        elif since > 0.0:
            self._tokens = min(max(1.0, self.rate(now)), self._tokens + self._filled(self._seen, now))
            self._seen = now

    def _filled(self, start: float, end: float) -> float:
        """The integral of the rate."""
        warm = self._begun + self._config.period
        growing = max(0.0, min(end, warm) - start)
        middle = self.rate(start + growing / 2)  # the rate grows evenly: its middle is its mean
        return growing * middle + max(0.0, end - max(start, warm)) * self._config.rate

    def remaining(self, now: float) -> float:
        """Tokens, as of the last request."""
        return self._tokens

    def reset(self, now: float) -> float:
        """Seconds until there is a token, at the rate of now."""
        return max(0.0, (1.0 - self._tokens) / self.rate(now)) if self._begun > -math.inf else 0.0


class ConcurrencyLimits:
    """A number of requests in flight. Counted by tokens, so that one given back twice does no harm."""

    __slots__ = ("_live", "limit", "window")

    def __init__(self, config: ConcurrencyLimit) -> None:
        self._live: dict[object, None] = {}
        self.limit, self.window = config.max_in_flight, math.inf

    def take(self, now: float) -> Place | None:
        """A place for one request until it leaves it."""
        token = object()
        if not admit(self._live, self.limit, token):
            return None
        return Place(0.0, lambda: self._live.pop(token, None))

    def remaining(self, now: float) -> float:
        """Free places."""
        return float(max(0, self.limit - len(self._live)))

    def reset(self, now: float) -> float:
        """Nobody knows when a request ends."""
        return 0.0 if len(self._live) < self.limit else math.inf


def make_limits(config: Limiter) -> Limits:
    """The limiter of a configuration."""
    match config:
        case Bucket():
            return BucketLimits(config)
        case UniformRate():
            return UniformLimits(config)
        case WarmUp():
            return WarmUpLimits(config)
        case ConcurrencyLimit():
            return ConcurrencyLimits(config)
