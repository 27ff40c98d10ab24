"""Back-off of connections: how long to wait before the next one (gRPC's "connection backoff"; gRFC A57)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Rng(Protocol):
    """Anything with ``random()`` in [0, 1), such as ``random.Random``."""

    def random(self) -> float:
        """The next number."""
        ...


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Exponential back-off with jitter; seconds. Envoy's bounds (0.5 s to 30 s), gRPC's factor.

    ``jitter`` 0.5 spreads each delay over ±50 %, so that clients cut off together do not come back together.
    """

    base: float = 0.5
    factor: float = 1.6
    maximum: float = 30.0
    jitter: float = 0.5

    def delay(self, failures: int, rng: Rng) -> float:
        """The delay after the given number of failures in a row (1 or more), never above ``maximum``."""
        # The exponent is capped because a float overflows after some thousand failures, not because it matters.
        raw = min(self.base * self.factor ** min(failures - 1, 64), self.maximum)
        return min(raw * (1 - self.jitter + 2 * self.jitter * rng.random()), self.maximum)
