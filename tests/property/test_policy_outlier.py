"""Outlier detection under any traffic: the ejected share, the books, and that everybody comes back."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify
from meshlib.policy.outlier import Change, OutlierDetector
from meshlib.state.cells import ClusterState, EndpointState

OUTCOMES = [Outcome(200), Outcome(404), Outcome(500), Outcome(503)]
OUTCOMES += [Outcome(failure=failure, request_sent=sent) for failure in Failure for sent in (True, False)]
INTERVAL, BASE, LONGEST, JITTER = 10.0, 30.0, 100.0, 2.0
HALF = st.sampled_from([0, 50, 100])


class Half:
    """Draws that alternate, so that half of what may happen does."""

    def __init__(self) -> None:
        self.drawn = 0.0

    def random(self) -> float:
        self.drawn = 0.75 - self.drawn
        return self.drawn


class OutlierMachine(RuleBasedStateMachine):
    @initialize(
        hosts=st.integers(1, 12),
        percent=st.integers(0, 100),
        always_one=st.booleans(),
        threshold=st.integers(0, 4),
        split=st.booleans(),
        enforcing=st.tuples(HALF, HALF, HALF, HALF),
    )
    def start(
        self,
        hosts: int,
        percent: int,
        always_one: bool,
        threshold: int,
        split: bool,
        enforcing: tuple[int, int, int, int],
    ) -> None:
        self.config = OutlierDetection(
            threshold,
            enforcing[0],
            INTERVAL,
            BASE,
            LONGEST,
            percent,
            always_one,
            JITTER,
            consecutive_gateway_failure=threshold,
            enforcing_consecutive_gateway_failure=enforcing[1],
            split_external_local_origin_errors=split,
            consecutive_local_origin_failure=threshold,
            success_rate_minimum_hosts=3,
            success_rate_request_volume=4,
            success_rate_stdev_factor=500,
            enforcing_success_rate=enforcing[2],
            failure_percentage_minimum_hosts=2,
            failure_percentage_request_volume=2,
            enforcing_failure_percentage=enforcing[3],
            enforcing_failure_percentage_local_origin=enforcing[3],
        )
        self.a_new_plan()
        self.cluster = ClusterState("model")
        self.cells = [self.cluster.endpoint(str(number)) for number in range(hosts)]
        self.rng = Half()
        self.now = 0.0
        self.ejected: dict[EndpointState, float] = {}
        self.events = 0
        self.sweep()

    def sweep(self) -> None:
        swept = self.detector.sweep(self.cluster, self.now, len(self.cells), self.rng)
        assert self.now < swept.due <= self.now + INTERVAL
        for change in swept.changes:
            self.heard(change)
        assert all(until > self.now for until in self.ejected.values()), "whose time is over is back"

    def heard(self, change: Change) -> None:
        at, cell, ejection = change
        if ejection is None:
            assert self.ejected.pop(cell) == at, "back on the dot"
            return
        assert cell not in self.ejected, "an ejected host is not ejected once more"
        assert at <= self.now
        assert BASE - 0.001 <= ejection.until - at <= LONGEST + JITTER + 0.001
        assert ejection.details
        self.ejected[cell] = ejection.until
        self.events += 1

    @rule(host=st.integers(0, 11), outcome=st.sampled_from(OUTCOMES), times=st.integers(1, 6))
    def traffic(self, host: int, outcome: Outcome, times: int) -> None:
        cell = self.cells[host % len(self.cells)]
        for _ in range(times):
            found = self.detector.record(self.cluster, cell, classify(outcome), self.now, len(self.cells), self.rng)
            if found is not None:
                self.heard(Change(self.now, cell, found))

    @rule(seconds=st.sampled_from([0.1, 4.0, 10.0, 35.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.sweep()

    @rule(host=st.integers(0, 11))
    def a_health_check_succeeds(self, host: int) -> None:
        cell = self.cells[host % len(self.cells)]
        assert self.detector.healthy(self.cluster, cell, self.now) == (self.ejected.pop(cell, None) is not None)

    @rule()
    def a_new_plan(self) -> None:
        self.detector = OutlierDetector(self.config)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "cells"):
            return
        assert {cell for cell in self.cells if cell.ejected} == set(self.cluster.ejected) == set(self.ejected)
        allowed = max(self.config.max_ejection_percent * len(self.cells) // 100, int(self.config.always_eject_one_host))
        assert len(self.ejected) <= allowed
        assert all(0 <= cell.ejections <= math.ceil(LONGEST / BASE) + 1 for cell in self.cells)
        assert all(cell.ejections for cell in self.cells if cell.ejected)
        waiting = {cell for cell in self.cells if cell.ejections and not cell.ejected}
        assert waiting <= set(self.cluster.returned_at), "a multiplier that nothing makes smaller"
        counted = {name: counter.value for name, counter in self.cluster.stats.items() if "enforced" in name}
        assert counted.pop("outlier_detection.ejections_enforced_total") == sum(counted.values()) == self.events

    def teardown(self) -> None:
        if hasattr(self, "cells"):
            for _ in range(30):
                self.now += 10.0
                self.sweep()
            assert not self.cluster.ejected
            assert all(cell.ejections == 0 for cell in self.cells)
            assert not self.cluster.returned_at


TestOutlier = OutlierMachine.TestCase
TestOutlier.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
