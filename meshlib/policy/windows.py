"""Windows of calls: how many of the last calls, or of the calls of the last seconds, failed or were slow.

Lock-free: each call is one token, put in and taken out by operations that are atomic, so that no call is counted twice
or lost, whoever records at the same time.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.state.counter import Counter

PARTS = 10
"""How many parts a window over time has: it forgets a tenth at a time."""


class Figures(NamedTuple):
    """What a window holds. A slow call may have failed besides."""

    calls: int
    failures: int
    slow_calls: int


class Window(Protocol):
    """What both kinds of window do."""

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call; what the window then holds, None where that cannot have raised any of its rates."""


class CountWindow:
    """The last `size` calls."""

    __slots__ = ("_calls", "_failures", "_size", "_slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: deque[object] = deque()
        self._failures: dict[object, None] = {}
        self._slow: dict[object, None] = {}

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call, and out with the oldest. Each call that is over the size takes one out, so it never holds more
        for longer than that takes.
        """
        calls = self._calls
        token = self._told_apart(failed, slow) if failed or slow else None
        calls.append(token)
        if len(calls) > self._size:
            oldest = calls.popleft()
            if oldest is not None:
                self._failures.pop(oldest, None)
                self._slow.pop(oldest, None)
        if not self._failures and not self._slow:
            return None
        return Figures(len(calls), len(self._failures), len(self._slow))

    def _told_apart(self, failed: bool, slow: bool) -> object:
        token = object()  # in its places before it is in the window: whoever takes it out finds it there
        if failed:
            self._failures[token] = None
        if slow:
            self._slow[token] = None
        return token


class _Part:
    """The calls of one part of a window over time. Appending to a list is atomic, and its length costs nothing."""

    __slots__ = ("calls", "failures", "slow")

    def __init__(self) -> None:
        self.calls = Counter()
        self.failures: list[None] = []
        self.slow: list[None] = []


class TimeWindow:
    """The calls of the last `seconds`, in `PARTS` parts of which the newest is still growing."""

    __slots__ = ("_parts", "_settled", "_width", "minimum")

    def __init__(self, seconds: float, minimum: int) -> None:
        self._width = seconds / PARTS
        self._parts: dict[int, _Part] = {}
        self._settled: int | None = None
        self.minimum = minimum

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call. A good one raises no rate once the part's first call has been looked at with enough others:
        until the next part begins there is nothing to reckon.
        """
        number = int(now // self._width)
        part = self._parts.get(number) or self._parts.setdefault(number, _Part())
        part.calls.add()
        if failed:
            part.failures.append(None)
        if slow:
            part.slow.append(None)
        if not failed and not slow and self._settled == number:
            return None
        figures = self._reckoned(number)
        if figures.calls >= self.minimum:
            self._settled = number
        return figures

    def _reckoned(self, newest: int) -> Figures:
        parts = self._parts
        for number in [number for number in list(parts) if number <= newest - PARTS]:
            parts.pop(number, None)
        counted = list(parts.values())
        return Figures(
            sum(part.calls.value for part in counted),
            sum(len(part.failures) for part in counted),
            sum(len(part.slow) for part in counted),
        )


def window_of(policy: CircuitBreaker) -> Window | None:
    """The window of a policy; None where it looks at no rate."""
    if policy.failure_rate is None and policy.slow_call_rate is None:
        return None
    if policy.window_type == "time":
        return TimeWindow(policy.window_size, policy.minimum_calls)
    return CountWindow(int(policy.window_size))


def same_window(one: CircuitBreaker, other: CircuitBreaker) -> bool:
    """Whether what one policy has seen is good for the other."""
    return _shape(one) == _shape(other)


def _shape(policy: CircuitBreaker) -> tuple[object, ...]:
    looks = policy.failure_rate is not None, policy.slow_call_rate is not None and policy.slow_call_duration
    return (*looks, policy.window_type, policy.window_size, policy.minimum_calls)
