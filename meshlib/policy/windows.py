"""Windows of calls: how many of the last calls, or of the calls of the last seconds, failed or were slow.

Lock-free: each call is one token, put in and taken out by operations that are atomic, so that no call is counted twice
or lost, whoever records at the same time.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.state.counter import Counter

PARTS = 10
"""How many parts a window over time has: it forgets a tenth at a time."""


class Figures(NamedTuple):
    """What a window holds. A slow call may have failed besides."""

    calls: int
    failures: int
    slow_calls: int


class Window:
    """What both kinds of window have: the rates, in percent, that are too much, and how many calls it takes to say so;
    infinite for one that is not looked at.
    """

    __slots__ = ("failure_rate", "minimum", "slow_call_rate")

    def follow(self, policy: CircuitBreaker) -> None:
        """Judge by this policy from now on."""
        failures, slow = policy.failure_rate, policy.slow_call_rate
        self.failure_rate = _NEVER if failures is None else failures
        self.slow_call_rate = _NEVER if slow is None else slow
        # A window over calls never holds more than its size, so it need not wait for more.
        counts = policy.window_type == "count"
        self.minimum = min(policy.minimum_calls, policy.window_size) if counts else policy.minimum_calls

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call; what the window then holds, if that is too much."""
        raise NotImplementedError

    def _too_much(self, calls: int, failures: int, slow_calls: int) -> Figures | None:
        if calls < self.minimum:
            return None
        if failures * 100 >= self.failure_rate * calls or slow_calls * 100 >= self.slow_call_rate * calls:
            return Figures(calls, failures, slow_calls)
        return None


class CountWindow(Window):
    """The last `size` calls."""

    __slots__ = ("_calls", "_failures", "_size", "_slow")

    def __init__(self, policy: CircuitBreaker) -> None:
        self._size = int(policy.window_size)
        self._calls: deque[object] = deque()
        self._failures: dict[object, None] = {}
        self._slow: dict[object, None] = {}
        self.follow(policy)

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call, and out with the oldest. Each call that is over the size takes one out, so it never holds more
        for longer than that takes.
        """
        calls, failures, slow_calls = self._calls, self._failures, self._slow
        calls.append(self._told_apart(failed, slow) if failed or slow else None)
        if len(calls) > self._size:
            oldest = calls.popleft()
            if oldest is not None:
                failures.pop(oldest, None)
                slow_calls.pop(oldest, None)
        if not failures and not slow_calls:
            return None
        return self._too_much(len(calls), len(failures), len(slow_calls))

    def figures(self) -> Figures:
        """What it holds."""
        return Figures(len(self._calls), len(self._failures), len(self._slow))

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


class TimeWindow(Window):
    """The calls of the last `window_size` seconds, in `PARTS` parts of which the newest is still growing."""

    __slots__ = ("_parts", "_settled", "_width")

    def __init__(self, policy: CircuitBreaker) -> None:
        self._width = policy.window_size / PARTS
        self._parts: dict[int, _Part] = {}
        self._settled: int | None = None
        self.follow(policy)

    def follow(self, policy: CircuitBreaker) -> None:
        """Judge by this policy from now on: the next call is looked at whatever it is."""
        super().follow(policy)
        self._settled = None

    def add(self, failed: bool, slow: bool, now: float) -> Figures | None:
        """One more call. A good one raises no rate once one of its part has been looked at with enough others: until
        the next part begins there is nothing to reckon.
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
        calls, failures, slow_calls = self.figures(number)
        if calls >= self.minimum:
            self._settled = number
        return self._too_much(calls, failures, slow_calls)

    def figures(self, newest: int) -> Figures:
        """What it holds while part `newest` grows."""
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
    return TimeWindow(policy) if policy.window_type == "time" else CountWindow(policy)


def same_window(one: CircuitBreaker, other: CircuitBreaker) -> bool:
    """Whether what one policy has seen is good for the other."""
    return _shape(one) == _shape(other)


def _shape(policy: CircuitBreaker) -> tuple[object, ...]:
    looks = policy.failure_rate is not None, policy.slow_call_rate is not None and policy.slow_call_duration
    return (any(looks), looks[1], policy.window_type, policy.window_size)


_NEVER = float("inf")
