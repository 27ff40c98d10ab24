"""The breaker against a model of it: any order of asking, ending, cancelling and waiting."""

import pybreaker
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from meshlib.model.cluster import CircuitBreaker
from meshlib.policy.breaker import Breaker, Permit, Transition
from meshlib.policy.pybreaker_bridge import PybreakerBridge

RESET = 10.0


class BreakerMachine(RuleBasedStateMachine):
    """The model: a state, a streak, a set of probes. It is written from the contract, not from the code."""

    permits = Bundle("permits")

    @initialize(fail_max=st.integers(1, 4), threshold=st.integers(1, 3), probes=st.integers(1, 3))
    def start(self, fail_max: int, threshold: int, probes: int) -> None:
        self.policy = CircuitBreaker(fail_max, RESET, threshold, probes)
        self.seen: list[Transition] = []
        self.breaker = self.make()
        self.now = 0.0
        self.state = "closed"
        self.streak = self.successes = 0
        self.opened = 0.0
        self.period = 0
        self.probing: set[Permit] = set()

    def make(self) -> Breaker | PybreakerBridge:
        return Breaker(self.policy, "model", [self.seen.append])

    def move(self, state: str) -> None:
        self.state, self.streak, self.successes, self.opened = state, 0, 0, self.now
        self.period += 1
        self.probing = set()

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, RESET - 0.001, RESET]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits)
    def ask(self) -> object:
        if self.state == "open" and self.now >= self.opened + RESET:
            self.move("half-open")
        expected = self.state == "closed" or (
            self.state == "half-open" and len(self.probing) < self.policy.half_open_permits
        )
        given = self.breaker.permit(self.now)
        assert (given is not None) == expected
        if given is None:
            return multiple()
        if self.state == "half-open":
            self.probing.add(given)
        return given, self.period

    @rule(permit=consumes(permits), success=st.booleans())
    def end(self, permit: tuple[Permit, int], success: bool) -> None:
        given, period = permit
        self.breaker.record(given, success, self.now)
        if period != self.period:
            return
        if self.state == "closed":
            self.streak = 0 if success else self.streak + 1
            if self.streak >= self.policy.fail_max:
                self.move("open")
        elif self.state == "half-open":
            self.probing.discard(given)
            self.successes += success
            if not success:
                self.move("open")
            elif self.successes >= self.policy.success_threshold:
                self.move("closed")

    @rule(permit=consumes(permits))
    def cancel(self, permit: tuple[Permit, int]) -> None:
        self.breaker.release(permit[0])
        self.probing.discard(permit[0])

    @invariant()
    def it_is_in_the_models_state(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.current_state == self.state
            assert [change.number for change in self.seen] == list(range(1, self.period + 1))
            assert len(self.probing) <= self.policy.half_open_permits


class BridgeMachine(BreakerMachine):
    """A pybreaker object under the bridge behaves as our own breaker."""

    def make(self) -> PybreakerBridge:
        theirs = pybreaker.CircuitBreaker(
            fail_max=self.policy.fail_max, reset_timeout=RESET, success_threshold=self.policy.success_threshold
        )
        return PybreakerBridge(theirs, half_open_permits=self.policy.half_open_permits, listeners=[self.seen.append])


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBridge = BridgeMachine.TestCase
TestBridge.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
