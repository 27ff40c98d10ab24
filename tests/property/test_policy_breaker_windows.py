"""The breaker's windows, slow calls, ramp and longest half-open, against a model that keeps every call."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from meshlib.model.cluster import CircuitBreaker
from meshlib.policy.breaker import Breaker, Permit, Transition
from meshlib.policy.windows import PARTS

RESET, LONG = 10.0, 1.0

policies = st.builds(
    CircuitBreaker,
    fail_max=st.sampled_from([0, 3, 6]),
    reset_timeout=st.just(RESET),
    success_threshold=st.integers(1, 3),
    half_open_permits=st.integers(1, 3),
    failure_rate=st.sampled_from([None, 25.0, 50.0, 100.0]),
    slow_call_rate=st.sampled_from([None, 50.0]),
    slow_call_duration=st.just(LONG),
    window_type=st.sampled_from(["count", "time"]),
    window_size=st.sampled_from([3, 8, 20]),
    minimum_calls=st.sampled_from([1, 4, 10]),
    half_open_max_wait=st.sampled_from([0.0, 4.0]),
    ramp_up=st.sampled_from([0.0, 5.0]),
)


class WindowMachine(RuleBasedStateMachine):
    """The model: every call of the period in a list, looked through from the beginning each time."""

    permits = Bundle("permits")

    @initialize(policy=policies)
    def start(self, policy: CircuitBreaker) -> None:
        self.policy = policy
        self.seen: list[Transition] = []
        self.breaker = Breaker(policy, "model", [self.seen.append])
        self.now = 0.0
        self.period = 0
        self.state = "closed"
        self.begin()

    def begin(self) -> None:
        self.since = self.now
        self.ended: list[tuple[float, bool, bool]] = []  # when, failed, slow
        self.streak = self.successes = self.asked = 0
        self.probing: set[Permit] = set()
        self.ramps = False

    def move(self, state: str) -> None:
        before, self.state = self.state, state
        self.period += 1
        self.begin()
        self.ramps = (before, state) == ("half-open", "closed") and self.policy.ramp_up > 0

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.9, 1.1, 2.5, RESET]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def passes(self) -> bool:
        policy = self.policy
        if self.state == "open" and self.now >= self.since + RESET:
            self.move("half-open")
        longest = policy.half_open_max_wait
        if self.state == "half-open" and longest and self.now >= self.since + longest:
            self.move("open")
            return False
        if self.state == "half-open":
            return len(self.probing) < policy.half_open_permits
        if self.state == "closed" and self.ramps and self.now < self.since + policy.ramp_up:
            share = 0.1 + 0.9 * (self.now - self.since) / policy.ramp_up
            self.asked += 1
            return int(self.asked * share) > int((self.asked - 1) * share)
        return self.state == "closed"

    @rule(target=permits, times=st.integers(1, 4))
    def ask(self, times: int) -> Any:
        given = []
        for _ in range(times):
            expected = self.passes()
            permit = self.breaker.permit(self.now)
            assert (permit is not None) == expected
            if permit is not None:
                if self.state == "half-open":
                    self.probing.add(permit)
                given.append((permit, self.period, self.now))
        return multiple(*given)

    @rule(permit=consumes(permits), success=st.booleans())
    def end(self, permit: tuple[Permit, int, float], success: bool) -> None:
        given, period, began = permit
        self.breaker.record(given, success, self.now)
        if period != self.period:
            return
        slow = self.policy.slow_call_rate is not None and self.now - began > LONG
        if self.state == "half-open":
            self.probing.discard(given)
            self.successes += success
            if not success or slow:
                self.move("open")
            elif self.successes >= self.policy.success_threshold:
                self.move("closed")
            return
        self.ended.append((self.now, not success, slow))
        self.streak = 0 if success else self.streak + 1
        if (self.policy.fail_max and self.streak >= self.policy.fail_max) or self.too_many():
            self.move("open")

    def too_many(self) -> bool:
        policy, minimum = self.policy, self.policy.minimum_calls
        if policy.window_type == "count":
            window = self.ended[-int(policy.window_size) :]
            minimum = min(minimum, int(policy.window_size))
        else:
            part = policy.window_size / PARTS
            window = [call for call in self.ended if call[0] // part > self.now // part - PARTS]
        if len(window) < minimum:
            return False
        rates = [100.0 * sum(call[which] for call in window) / len(window) for which in (1, 2)]
        limits = (policy.failure_rate, policy.slow_call_rate)
        return any(limit is not None and rate >= limit for limit, rate in zip(limits, rates, strict=True))

    @rule(permit=consumes(permits))
    def cancel(self, permit: tuple[Permit, int, float]) -> None:
        self.breaker.release(permit[0])
        self.probing.discard(permit[0])

    @invariant()
    def it_is_in_the_models_state(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.current_state == self.state
            assert [change.number for change in self.seen] == list(range(1, self.period + 1))
            assert len(self.probing) <= self.policy.half_open_permits


TestWindows = WindowMachine.TestCase
TestWindows.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
