"""When to open the next stream (gRFC A57)."""

from __future__ import annotations

from meshlib.model.backoff import BackoffPolicy, Rng


class StreamBackoff:
    """Counts the failures of one server.

    A stream that answered before it ended costs no penalty and is reopened at once; but not more often than every
    ``policy.base`` seconds, or a server that answers once and hangs up would be called in a hot loop.
    """

    def __init__(self, policy: BackoffPolicy, rng: Rng) -> None:
        self._policy = policy
        self._rng = rng
        self._failures = 0

    def failed(self, now: float) -> float:
        """The stream ended without an answer: when to try again."""
        self._failures += 1
        return now + self._policy.delay(self._failures, self._rng)

    def ended(self, opened_at: float, now: float) -> float:
        """The stream ended after an answer: when to open the next one."""
        self._failures = 0
        return max(now, opened_at + self._policy.base)
