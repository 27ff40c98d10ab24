"""The gradient controller: its windows and its arithmetic, as Envoy's, and that it never loses count."""

from __future__ import annotations

import math
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshlib.model.shedding import AdaptiveConcurrency
from meshlib.policy.concurrency import GradientController, quantile
from parts.flow import Dice

CONFIG = AdaptiveConcurrency(request_count=5, min_rtt_interval=30.0, jitter=0.0)


class Driven:
    """A controller under a manual clock. `now` moves by what requests take."""

    def __init__(self, config: AdaptiveConcurrency = CONFIG, rng: Any = None) -> None:
        self.controller = GradientController(config)
        self.rng = rng or Dice(0.0)
        self.now = 100.0

    def one(self, seconds: float) -> bool:
        """A request alone that takes so long; whether it was let in."""
        began = self.now
        if not self.controller.forwards(began, self.rng):
            return False
        self.now += seconds
        self.controller.sample(began, self.now)
        return True

    def measured(self, seconds: float = 0.01) -> GradientController:
        """The controller with minRTT known."""
        for _ in range(CONFIG.request_count):
            assert self.one(seconds)
        return self.controller

    def window(self, seconds: float) -> int:
        """A window in which a request takes so long; the limit that follows from it."""
        assert self.one(seconds)
        self.now += 0.1
        assert self.controller.forwards(self.now, self.rng)
        self.controller.cancel()
        return self.controller.limit


def test_it_begins_with_a_measurement_that_lets_three_in() -> None:
    controller = GradientController(AdaptiveConcurrency())
    assert [controller.forwards(1.0, Dice()) for _ in range(5)] == [True, True, True, False, False]
    assert (controller.measuring, controller.limit, controller.in_flight, controller.blocked.value) == (True, 3, 3, 2)


def test_the_measurement_ends_with_its_last_request_and_gives_the_median() -> None:
    driven = Driven()
    for seconds in (0.01, 0.02, 0.03, 0.04):
        driven.one(seconds)
    assert (driven.controller.measuring, driven.controller.min_rtt) == (True, 0.0)
    driven.one(0.05)
    assert not driven.controller.measuring
    assert driven.controller.min_rtt == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("taken", "gradient"),
    [(0.0125, 1.0), (0.01, 1.25), (0.001, 2.0), (0.02, 0.625), (0.5, 0.5)],
)
def test_the_limit_follows_the_gradient_with_headroom(taken: float, gradient: float) -> None:
    driven = Driven()
    controller = driven.measured(0.01)
    controller.limit = 100
    scaled = 100 * gradient
    assert driven.window(taken) == int(scaled + math.sqrt(scaled))
    assert controller.gradient == pytest.approx(gradient)
    assert controller.sample_rtt == pytest.approx(taken)


@pytest.mark.parametrize(("limit", "taken", "after"), [(999, 0.01, 1000), (4, 1.0, 3)])
def test_the_limit_stays_between_its_bounds(limit: int, taken: float, after: int) -> None:
    driven = Driven()
    driven.measured(0.01).limit = limit
    assert driven.window(taken) == after


def test_a_window_without_requests_changes_nothing() -> None:
    driven = Driven()
    controller = driven.measured()
    controller.limit = 50
    driven.now += 5.0
    assert controller.forwards(driven.now, driven.rng)
    assert controller.limit == 50


@pytest.mark.parametrize(("draw", "after"), [(0.0, 30.0), (0.5, 32.25), (0.999, 34.49)])
def test_it_is_measured_again_after_the_interval_and_its_jitter(draw: float, after: float) -> None:
    config = AdaptiveConcurrency(request_count=5, min_rtt_interval=30.0, jitter=15.0)
    driven = Driven(config, Dice(draw))
    driven.measured()
    ended = driven.now
    driven.controller.limit = 40
    driven.now = ended + after - 0.1
    driven.one(0.0)
    assert not driven.controller.measuring
    driven.now = ended + after + 0.1
    driven.one(0.01)
    assert (driven.controller.measuring, driven.controller.limit) == (True, 3)


def test_the_limit_of_before_a_measurement_comes_back_after_it() -> None:
    driven = Driven()
    controller = driven.measured()
    controller.limit = 40
    driven.now += 31.0
    before = driven.now - 0.5  # one that is still under way from before
    assert controller.forwards(driven.now, driven.rng)
    limit = controller._deferred
    controller.sample(before, driven.now)
    for _ in range(5):
        assert controller.measuring  # the old one did not count
        driven.one(0.03)
    assert (controller.limit, controller.measuring) == (limit, False)
    assert controller.min_rtt == pytest.approx(0.03)


def test_a_limit_that_stays_at_the_minimum_is_measured_again() -> None:
    driven = Driven()
    controller = driven.measured(0.001)
    for _ in range(4):
        driven.window(1.0)
        assert not controller.measuring
    driven.window(1.0)
    driven.one(1.0)
    assert controller.measuring


def test_a_min_rtt_that_is_told_is_never_measured() -> None:
    driven = Driven(AdaptiveConcurrency(min_rtt=0.01))
    limits = [driven.window(0.01) for _ in range(6)]
    assert limits == sorted(limits)
    assert limits[-1] > 30
    for _ in range(30):
        driven.window(1.0)
        assert not driven.controller.measuring
    assert driven.controller.limit == 3


def test_a_share_of_the_limit_is_at_least_one_place() -> None:
    controller = GradientController(AdaptiveConcurrency(min_concurrency=10, min_rtt=1.0))
    assert [controller.forwards(0.0, Dice(), 0.3) for _ in range(4)] == [True, True, True, False]
    assert controller.forwards(0.0, Dice(), 1.0)
    assert GradientController(AdaptiveConcurrency()).forwards(0.0, Dice(), 0.01)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_between_the_least_and_the_most(values: list[float], part: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= quantile(ordered, part) <= ordered[-1]
    assert quantile(ordered, 0.0) == ordered[0]
    assert quantile(ordered, 1.0) == ordered[-1]


def test_a_clock_that_stands_still_breaks_nothing() -> None:
    driven = Driven()
    for _ in range(50):
        assert driven.one(0.0)
    driven.now += 1.0
    assert driven.window(0.0) > 3


class Machine(RuleBasedStateMachine):
    """Requests begin, end, and are given up, at any time: never more inside than a limit allowed, never one lost."""

    def __init__(self) -> None:
        super().__init__()
        self.config = AdaptiveConcurrency(request_count=4, max_concurrency_limit=12, min_rtt_interval=2.0)
        self.controller = GradientController(self.config)
        self.rng = random.Random(1)
        self.now = 0.0
        self.inside: list[float] = []

    @rule(step=st.floats(0, 1))
    def passes(self, step: float) -> None:
        self.now += step

    @rule()
    def begins(self) -> None:
        admitted = self.controller.forwards(self.now, self.rng)
        assert admitted == (len(self.inside) < self.controller.limit)
        if admitted:
            self.inside.append(self.now)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), whole=st.booleans())
    def ends(self, data: Any, whole: bool) -> None:
        began = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        if whole:
            self.controller.sample(began, self.now)
        else:
            self.controller.cancel()

    @invariant()
    def counts_agree(self) -> None:
        assert self.controller.in_flight == len(self.inside) <= self.config.max_concurrency_limit
        assert self.config.min_concurrency <= self.controller.limit <= self.config.max_concurrency_limit


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_eight_threads_lose_no_count() -> None:
    controller = GradientController(AdaptiveConcurrency(min_rtt=0.001, max_concurrency_limit=5, min_concurrency=5))
    most: list[int] = []

    def run(seed: int) -> None:
        rng, now = random.Random(seed), 0.0
        for _ in range(3000):
            now += 0.001
            if controller.forwards(now, rng):
                most.append(controller.in_flight)
                controller.sample(now, now + 0.001)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.in_flight == 0
    assert max(most) <= 5
    assert len(most) + controller.blocked.value == 8 * 3000
