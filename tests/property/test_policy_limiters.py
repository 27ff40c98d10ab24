"""Whatever is asked of them and when: no limiter gives more than it says, and no request waits longer than it may."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshlib.model.filters import LocalRateLimit, LocalRateLimitDescriptor, TokenBucket
from meshlib.model.limiters import Bucket, ConcurrencyLimit, UniformRate, WarmUp
from meshlib.model.matchers import ALWAYS
from meshlib.model.rate_limits import Descriptor
from meshlib.policy.limiters import Place, WarmUpLimits, make_limits
from meshlib.policy.local_limiter import LocalLimiter

PAUSES = st.lists(st.floats(0.0, 3.0), max_size=80)
RATES = st.floats(0.2, 50.0)


@given(st.builds(Bucket, RATES, st.floats(0.0, 20.0)), PAUSES)
def test_a_bucket_gives_no_more_than_its_size_and_what_fills_in(config: Bucket, pauses: list[float]) -> None:
    limits, now, taken = make_limits(config), 0.0, 0
    for pause in pauses:
        now += pause
        taken += limits.take(now) is not None
        assert taken <= limits.limit + config.rate * now + 1e-3


@given(st.builds(UniformRate, RATES, st.floats(0.0, 2.0)), PAUSES)
def test_a_queue_lets_requests_on_one_by_one(config: UniformRate, pauses: list[float]) -> None:
    limits, now, turns = make_limits(config), 100.0, []
    for pause in pauses:
        now += pause
        place = limits.take(now)
        if place is not None:
            assert 0.0 <= place.wait <= config.max_wait + 1e-6
            turns.append(now + place.wait)
    assert all(later - sooner >= 1.0 / config.rate - 1e-6 for sooner, later in pairwise(turns))


@given(st.builds(WarmUp, RATES, st.floats(0.5, 10.0), st.floats(1.0, 5.0)), PAUSES)
def test_a_rate_that_warms_up_is_never_above_its_full_one(config: WarmUp, pauses: list[float]) -> None:
    limits, now, taken = WarmUpLimits(config), 0.0, 0
    for pause in pauses:
        now += pause
        taken += limits.take(now) is not None
        assert config.rate / config.cold_factor - 1e-9 <= limits.rate(now) <= config.rate + 1e-9
        assert taken <= max(1.0, config.rate) + config.rate * now + 1e-3


STEPS = st.lists(st.floats(-4000.0, 4000.0), max_size=60)


@given(st.builds(UniformRate, RATES, st.floats(0.0, 2.0)), STEPS)
def test_steps_of_the_clock_bring_no_two_turns_together(config: UniformRate, steps: list[float]) -> None:
    limits, now, turns = make_limits(config), 1e4, []
    for step in steps:
        now += step
        place = limits.take(now)
        if place is not None:
            turns.append(now + place.wait)
    assert all(later - sooner >= 1.0 / config.rate - 1e-6 for sooner, later in pairwise(turns))


@given(st.builds(WarmUp, RATES, st.floats(0.5, 10.0), st.floats(1.0, 5.0)), STEPS)
def test_steps_of_the_clock_give_a_warm_rate_nothing(config: WarmUp, steps: list[float]) -> None:
    limits, now, taken = WarmUpLimits(config), 1e4, 0
    seen: list[float] = []
    for step in steps:
        now += step
        seen.append(now)
        taken += limits.take(now) is not None
        assert taken <= max(1.0, config.rate) + config.rate * (max(seen) - seen[0]) + 1e-3


class InFlight(RuleBasedStateMachine):
    """Requests come and go in any order; some leave twice."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = make_limits(ConcurrencyLimit(3))
        self.inside: list[Place] = []
        self.gone: list[Place] = []

    @rule()
    def come(self) -> None:
        place = self.limits.take(0.0)
        assert (place is None) is (len(self.inside) == 3)
        if place is not None:
            self.inside.append(place)

    @rule(which=st.integers(0, 2))
    def go(self, which: int) -> None:
        if which < len(self.inside):
            place = self.inside.pop(which)
            assert place.leave is not None
            place.leave()
            self.gone.append(place)

    @rule()
    def go_again(self) -> None:
        if self.gone:
            leave = self.gone[-1].leave
            assert leave is not None
            leave()

    @invariant()
    def counted(self) -> None:
        assert self.limits.remaining(0.0) == 3 - len(self.inside)


TestInFlight = InFlight.TestCase

VALUES = st.sampled_from(["a", "b", "c"])
REQUESTS = st.lists(st.tuples(st.floats(0.0, 5.0), st.lists(VALUES, max_size=3)), max_size=60)


@given(REQUESTS, st.booleans(), st.integers(1, 3))
def test_no_descriptor_gives_more_than_its_bucket_and_its_share(
    requests: list[tuple[float, list[str]]], always: bool, instances: int
) -> None:
    sizes = {"a": TokenBucket(2, 1, 1.0), "b": TokenBucket(5, 2, 1.0), "c": TokenBucket(1, 1, 4.0)}
    described = tuple(LocalRateLimitDescriptor((("k", value),), bucket) for value, bucket in sizes.items())
    whole = TokenBucket(9, 3, 1.0)
    limiter = LocalLimiter(
        LocalRateLimit("p", whole, ALWAYS, ALWAYS, descriptors=described, always_consume_default_token_bucket=always)
    )
    now, passed, default = 0.0, dict.fromkeys(sizes, 0), 0
    for pause, values in requests:
        now += pause
        asked = [Descriptor((("k", value),)) for value in values]
        if limiter.take(now, asked, instances).allowed:
            for value in values:
                passed[value] += 1
            default += always or not values
    for value, bucket in sizes.items():
        most = bucket.max_tokens + bucket.tokens_per_fill / bucket.fill_interval * now
        assert passed[value] * instances <= most + 1e-3
    assert default * instances <= whole.max_tokens + 3.0 * now + 1e-3
