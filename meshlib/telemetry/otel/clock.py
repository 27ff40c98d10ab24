"""From the engine's monotonic seconds to OpenTelemetry's epoch nanoseconds."""

from __future__ import annotations

import time

_FRESH = 10.0


class EpochClock:
    """One offset for all times of a span, so that its length is right whatever the wall clock does; taken anew every 10
    seconds, so that the wall clock's corrections are followed.
    """

    __slots__ = ("_offset", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._offset = 0

    def offset(self, now: float) -> int:
        """What to add to `int(seconds * 1e9)`."""
        if now >= self._until or now < self._until - 2 * _FRESH:
            self._offset = time.time_ns() - time.monotonic_ns()
            self._until = now + _FRESH
        return self._offset
