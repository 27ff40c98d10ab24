"""Circuit breaker: closed, open, half-open, in pybreaker's words, on monotonic time and without a lock.

A breaker lives through *periods*, one per state it is in. A period ends once: its successor is set by an atomic
`setdefault`, so of several threads that would end it exactly one wins, and that one reports the transition. A permit
belongs to the period that gave it; what is recorded after that period has ended is about the past and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from meshlib.model.cluster import CircuitBreaker

State = Literal["closed", "open", "half-open"]
STATE_CLOSED: State = "closed"  # the values of pybreaker.STATE_*
STATE_OPEN: State = "open"
STATE_HALF_OPEN: State = "half-open"

log = logging.getLogger("meshlib.breaker")


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state, with why and the figures that decided it. `number` counts the breaker's transitions from 1:
    listeners of different threads may see two in a row in the wrong order.
    """

    name: str
    old: State
    new: State
    now: float
    reason: str
    figures: Mapping[str, float]
    number: int


Listener = Callable[[Transition], None]


class Permit:
    """Leave to make one call; to be given to `record` or `release` once."""

    __slots__ = ("period",)

    def __init__(self, period: Period) -> None:
        self.period = period

    @property
    def probe(self) -> bool:
        """Whether the call is a probe of a half-open breaker."""
        return self.period.state == STATE_HALF_OPEN


class Period:
    """One stay in one state. Lists and dicts are only changed by atomic operations."""

    __slots__ = ("failures", "number", "permit", "probes", "since", "slots", "state", "successes", "successor")

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

    def try_probe(self) -> Permit | None:
        """A permit for one of the probes, if a slot is free."""
        try:
            self.slots.pop()
        except IndexError:
            return None
        permit = Permit(self)
        self.probes[permit] = None
        return permit

    def end_probe(self, permit: Permit) -> bool:
        """The probe is over, its slot not free yet; False when this permit had ended already."""
        return self.probes.pop(permit, permit) is None

    def free_slot(self) -> None:
        """Let another probe in."""
        self.slots.append(None)


class Breaker:
    """One circuit breaker. `policy` may be replaced at any time and counts from the next decision.

    Listeners are called by the thread whose call caused the transition, after it happened, outside any lock; one that
    raises is logged and does no harm to the call.
    """

    __slots__ = ("_listeners", "_period", "name", "policy")

    def __init__(
        self, policy: CircuitBreaker, name: str, listeners: Sequence[Listener] = (), *, now: float = 0.0
    ) -> None:
        self.policy = policy
        self.name = name
        self._listeners = tuple(listeners)
        self._period = Period(STATE_CLOSED, now, 0)

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
        return max(0.0, period.since + self.policy.reset_timeout - now)

    def permit(self, now: float) -> Permit | None:
        """Leave to make one call, or None: the call must not be made."""
        period = self._period if not self._period.successor else self._current()
        if period.state == STATE_CLOSED:
            return period.permit
        if period.state == STATE_OPEN:
            if now < period.since + self.policy.reset_timeout:
                return None
            period = self._move(period, STATE_HALF_OPEN, now, "reset timeout over", {"open_for": now - period.since})
            if period.state != STATE_HALF_OPEN:
                return None
        return period.try_probe()

    def record(self, permit: Permit, success: bool, now: float, error: BaseException | None = None) -> None:
        """How the call ended. `error` is for breakers that look at it (pybreaker's exclusions); this one does not."""
        period = permit.period
        if period.state == STATE_CLOSED:
            self._record_closed(period, success, now)
        elif period.end_probe(permit):
            self._record_probe(period, success, now)
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

    def _record_closed(self, period: Period, success: bool, now: float) -> None:
        failures = period.failures
        if success:
            if failures:
                failures.clear()
            return
        failures.append(None)
        count = len(failures)
        fail_max = self.policy.fail_max
        if count >= fail_max:
            figures = {"consecutive_failures": count, "fail_max": fail_max}
            self._move(period, STATE_OPEN, now, "consecutive failures", figures)

    def _record_probe(self, period: Period, success: bool, now: float) -> None:
        if not success:
            figures = {"successes": len(period.successes)}
            self._move(period, STATE_OPEN, now, "a probe failed", figures)
            return
        period.successes.append(None)
        count = len(period.successes)
        threshold = self.policy.success_threshold
        if count >= threshold:
            figures = {"successes": count, "success_threshold": threshold}
            self._move(period, STATE_CLOSED, now, "probes succeeded", figures)

    def _current(self) -> Period:
        """The last period of the chain; remembers it, so that the chain stays short."""
        period = self._period
        while period.successor:
            period = period.successor["next"]
        self._period = period
        return period

    def _move(self, period: Period, state: State, now: float, reason: str, figures: Mapping[str, float]) -> Period:
        """End `period`; the period that is current then, ours or another thread's."""
        slots = max(1, self.policy.half_open_permits) if state == STATE_HALF_OPEN else 0
        candidate = Period(state, now, period.number + 1, slots)
        if period.successor.setdefault("next", candidate) is candidate:
            self._period = candidate
            self._report(Transition(self.name, period.state, state, now, reason, figures, candidate.number))
        return self._current()

    def _force(self, state: State, now: float) -> None:
        period = self._current()
        while period.state != state or (state == STATE_OPEN and period.since < now):
            period = self._move(period, state, now, "by hand", {})

    def _report(self, transition: Transition) -> None:
        for listener in self._listeners:
            try:
                listener(transition)
            except Exception:
                log.exception("a listener of circuit breaker %s failed", self.name)
