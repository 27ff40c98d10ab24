"""Circuit breaker: closed, open, half-open, in pybreaker's words, on monotonic time and without a lock.

A breaker lives through *periods*, one per state it is in. A period ends once: its successor is set by an atomic
`setdefault`, so of several threads that would end it exactly one wins, and that one reports the transition. A permit
belongs to the period that gave it; what is recorded after that period has ended is about the past and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counting
from typing import Literal

from meshlib.model.circuit_breaker import CircuitBreaker, FallbackResponse
from meshlib.policy.windows import Figures, Window, same_window, window_of

State = Literal["closed", "open", "half-open"]
STATE_CLOSED: State = "closed"  # the values of pybreaker.STATE_*
STATE_OPEN: State = "open"
STATE_HALF_OPEN: State = "half-open"

log = logging.getLogger("meshlib.breaker")


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, with why and the figures that decided it. `number` counts the breaker's transitions from 1:
    listeners of different threads may see two in a row in the wrong order. `subject`: (cluster, endpoint) where the
    breaker is an endpoint's, else empty.
    """

    name: str
    old: State
    new: State
    now: float
    reason: str
    figures: Mapping[str, float]
    number: int
    subject: tuple[str, str] = ("", "")


Listener = Callable[[Transition], None]


class Permit:
    """Leave to make one call; to be given to `record` or `release` once. `began` is when it was given, None where
    nobody wants to know.
    """

    __slots__ = ("began", "period")

    def __init__(self, period: Period, began: float | None = None) -> None:
        self.period = period
        self.began = began

    @property
    def probe(self) -> bool:
        """Whether the call is a probe of a half-open breaker."""
        return self.period.state == STATE_HALF_OPEN


class Period:
    """One stay in one state. Lists and dicts are only changed by atomic operations."""

    __slots__ = (
        "asked",
        "failures",
        "number",
        "permit",
        "plain",
        "probes",
        "ramp_end",
        "since",
        "slots",
        "state",
        "successes",
        "successor",
        "window",
    )

    def __init__(self, state: State, since: float, number: int, slots: int = 0) -> None:
        self.state = state
        self.since = since
        self.number = number
        self.failures: list[None] = []
        self.successes: list[None] = []
        self.slots: list[None] = [None] * slots
        self.probes: dict[Permit, Permit | None] = {}
        self.successor: dict[str, Period] = {}
        self.permit = Permit(self)  # shared by all calls of a closed period, so that a permit costs no allocation
        self.plain = state == STATE_CLOSED  # every call passes, and nobody asks how long it takes, or is told of it
        self.window: Window | None = None
        self.ramp_end = since
        self.asked = counting()  # who has asked during the ramp

    def follow(self, policy: CircuitBreaker) -> None:
        """Count by this policy from now on, anew."""
        self.window = window_of(policy)
        self.plain = self.ramp_end <= self.since and policy.slow_call_rate is None

    def try_probe(self, now: float | None = None) -> Permit | None:
        """A permit for one of the probes, if a slot is free."""
        try:
            self.slots.pop()
        except IndexError:
            return None
        permit = Permit(self, now)
        self.probes[permit] = None
        return permit

    def end_probe(self, permit: Permit) -> bool:
        """The probe is over, its slot not free yet; False when this permit had ended already."""
        return self.probes.pop(permit, permit) is None

    def free_slot(self) -> None:
        """Let another probe in."""
        self.slots.append(None)


class Breaker:
    """One circuit breaker. `policy` may be replaced at any time and counts from the next decision; a window of another
    kind or size begins empty. It is called `name` where the policy does not say, or
    in any case if it is an endpoint's, which `subject` says: (cluster, endpoint).

    Listeners, and those of the policy, are called by the thread whose call caused the transition, after it happened,
    outside any lock; one that raises is logged and does no harm to the call.
    """

    __slots__ = ("__weakref__", "_listeners", "_period", "_policy", "_subject", "name")

    def __init__(
        self,
        policy: CircuitBreaker,
        name: str,
        listeners: Sequence[Listener] = (),
        *,
        now: float = 0.0,
        subject: tuple[str, str] = ("", ""),
    ) -> None:
        self._policy = policy
        self.name = name if subject[1] else policy.name or name
        self._subject = subject
        self._listeners = tuple(listeners)
        self._period = Period(STATE_CLOSED, now, 0)
        self._period.follow(policy)

    @property
    def policy(self) -> CircuitBreaker:
        """By what it decides."""
        return self._policy

    @policy.setter
    def policy(self, policy: CircuitBreaker) -> None:
        before, self._policy = self._policy, policy
        period = self._current()
        if not same_window(before, policy):
            period.follow(policy)
        elif period.window is not None:
            period.window.follow(policy)

    @property
    def fallback(self) -> FallbackResponse | None:
        """The policy's."""
        return self._policy.fallback

    @property
    def current_state(self) -> State:
        """`closed`, `open` or `half-open`. An open breaker whose time is over is `open` until somebody asks to call."""
        return self._current().state

    @property
    def fail_counter(self) -> int:
        """Consecutive failures while closed."""
        return len(self._current().failures)

    @property
    def success_counter(self) -> int:
        """Successful probes while half-open."""
        return len(self._current().successes)

    def retry_after(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0 when it is not open."""
        period = self._current()
        if period.state != STATE_OPEN:
            return 0.0
        return max(0.0, period.since + self._policy.reset_timeout - now)

    def refuses_until(self, now: float) -> float | None:
        """Until when the next call would be refused, as far as is known: infinity where that is for others to end, the
        probes under way. None: it would not be, but for a ramp.
        """
        period, policy = self._current(), self._policy
        if period.state == STATE_OPEN:
            until = period.since + policy.reset_timeout
            return until if now < until else None
        if period.state == STATE_CLOSED or period.slots:
            return None
        return period.since + policy.half_open_max_wait if policy.half_open_max_wait else _FOR_EVER

    def permit(self, now: float) -> Permit | None:
        """Leave to make one call, or None: the call must not be made."""
        period = self._period if not self._period.successor else self._current()
        if period.state == STATE_CLOSED:
            return period.permit if period.plain else self._permit_closed(period, now)
        if period.state == STATE_OPEN:
            if now < period.since + self._policy.reset_timeout:
                return None
            period = self._move(period, STATE_HALF_OPEN, now, "reset timeout over", {"open_for": now - period.since})
        elif self._waited_too_long(period, now):
            return None
        if period.state != STATE_HALF_OPEN:
            return None
        return period.try_probe(now)

    def record(self, permit: Permit, success: bool, now: float, error: BaseException | None = None) -> None:
        """How the call ended; an `error` that the policy excludes counts as a success."""
        if not success and error is not None and self._policy.exclude:
            success = not self._policy.is_system_error(error)
        period = permit.period
        if period.state == STATE_CLOSED:
            self._record_closed(period, permit, success, now)
        elif period.end_probe(permit):
            self._record_probe(period, permit, success, now)
            period.free_slot()  # after the decision, so that no probe starts in a period that has just failed

    def release(self, permit: Permit) -> None:
        """The call says nothing (cancelled, never sent): a probe's place becomes free."""
        if permit.period.end_probe(permit):
            permit.period.free_slot()

    def open(self, now: float) -> None:
        """Open it by hand; an open one starts its time again."""
        self._force(STATE_OPEN, now)

    def close(self, now: float) -> None:
        """Close it by hand."""
        self._force(STATE_CLOSED, now)

    def half_open(self, now: float) -> None:
        """Half-open it by hand: the next calls are probes."""
        self._force(STATE_HALF_OPEN, now)

    def _permit_closed(self, period: Period, now: float) -> Permit | None:
        """Of the calls of a ramp a growing share passes, spread evenly: the n-th does if the share of n + 1 is a whole
        number more than that of n.
        """
        if now < period.ramp_end:
            policy = self._policy
            start = policy.ramp_up_from / 100.0
            share = min(1.0, start + (1.0 - start) * (now - period.since) / (period.ramp_end - period.since))
            number = next(period.asked)
            if int((number + 1) * share) == int(number * share):
                return None
        elif self._policy.slow_call_rate is None:
            period.plain = True
        return period.permit if self._policy.slow_call_rate is None else Permit(period, now)

    def _waited_too_long(self, period: Period, now: float) -> bool:
        longest = self._policy.half_open_max_wait
        if not longest or period.state != STATE_HALF_OPEN or now < period.since + longest:
            return False
        figures = {"half_open_for": now - period.since, "successes": len(period.successes)}
        self._move(period, STATE_OPEN, now, "half-open for too long", figures)
        return True

    def _record_closed(self, period: Period, permit: Permit, success: bool, now: float) -> None:
        window = period.window
        if window is not None:
            began = permit.began
            slow = began is not None and now - began > self._policy.slow_call_duration
            seen = window.add(not success, slow, now)
            if seen is not None:
                self._trip(period, seen, now)
        failures = period.failures
        if success:
            if failures:
                failures.clear()
            return
        fail_max = self._policy.fail_max
        if not fail_max:
            return
        failures.append(None)
        count = len(failures)
        if count >= fail_max:
            figures = {"consecutive_failures": count, "fail_max": fail_max}
            self._move(period, STATE_OPEN, now, "consecutive failures", figures)

    def _trip(self, period: Period, seen: Figures, now: float) -> None:
        """A rate over the window is reached."""
        policy = self._policy
        for limit, count, name in (
            (policy.failure_rate, seen.failures, "failure_rate"),
            (policy.slow_call_rate, seen.slow_calls, "slow_call_rate"),
        ):
            rate = 100.0 * count / seen.calls
            if limit is not None and rate >= limit:
                reason = name.replace("_", " ")
                self._move(period, STATE_OPEN, now, reason, {**_told(seen), name: rate, "threshold": limit})

    def _slowness(self, permit: Permit, now: float) -> float | None:
        """How long a slow call took; None of one that was not, or where slow calls are not looked at."""
        policy = self._policy
        if policy.slow_call_rate is None or permit.began is None:
            return None
        took = now - permit.began
        return took if took > policy.slow_call_duration else None

    def _record_probe(self, period: Period, permit: Permit, success: bool, now: float) -> None:
        figures: dict[str, float] = {"successes": len(period.successes)}
        took = self._slowness(permit, now)
        if not success:
            self._move(period, STATE_OPEN, now, "a probe failed", figures)
            return
        if took is not None:
            figures |= {"duration": took, "slow_call_duration": self._policy.slow_call_duration}
            self._move(period, STATE_OPEN, now, "a probe was slow", figures)
            return
        period.successes.append(None)
        count = len(period.successes)
        threshold = self._policy.success_threshold
        if count >= threshold:
            self._move(
                period, STATE_CLOSED, now, "probes succeeded", {"successes": count, "success_threshold": threshold}
            )

    def _current(self) -> Period:
        """The last period of the chain; remembers it, so that the chain stays short."""
        period = self._period
        while period.successor:
            period = period.successor["next"]
        self._period = period
        return period

    def _move(self, period: Period, state: State, now: float, reason: str, figures: Mapping[str, float]) -> Period:
        """End `period`; the period that is current then, ours or another thread's."""
        policy = self._policy
        slots = max(1, policy.half_open_permits) if state == STATE_HALF_OPEN else 0
        candidate = Period(state, now, period.number + 1, slots)
        if state == STATE_CLOSED:
            if period.state == STATE_HALF_OPEN:
                candidate.ramp_end = now + policy.ramp_up
            candidate.follow(policy)
        if period.successor.setdefault("next", candidate) is candidate:
            self._period = candidate
            self._report(
                Transition(self.name, period.state, state, now, reason, figures, candidate.number, self._subject)
            )
        return self._current()

    def _force(self, state: State, now: float) -> None:
        period = self._current()
        while period.state != state or (state == STATE_OPEN and period.since < now):
            period = self._move(period, state, now, "by hand", {})

    def _report(self, transition: Transition) -> None:
        for listener in (*self._listeners, *self._policy.listeners):
            try:
                listener(transition)
            except Exception:
                log.exception("a listener of circuit breaker %s failed", self.name)


def _told(seen: Figures) -> dict[str, float]:
    return {"calls": seen.calls, "failures": seen.failures, "slow_calls": seen.slow_calls}


_FOR_EVER = float("inf")
