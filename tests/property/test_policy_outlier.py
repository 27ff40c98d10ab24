"""Outlier detection under any traffic: the ejected share, the books, and that everybody comes back."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify
from meshlib.policy.outlier import OutlierDetector
from meshlib.state.cells import ClusterState

OUTCOMES = [Outcome(200), Outcome(404), Outcome(500), Outcome(503)]
OUTCOMES += [Outcome(failure=failure) for failure in Failure]


class Always:
    def random(self) -> float:
        return 0.0


class OutlierMachine(RuleBasedStateMachine):
    @initialize(
        hosts=st.integers(1, 12),
        percent=st.integers(0, 100),
        always_one=st.booleans(),
        threshold=st.integers(1, 4),
    )
    def start(self, hosts: int, percent: int, always_one: bool, threshold: int) -> None:
        self.config = OutlierDetection(threshold, 100, 10.0, 30.0, 100.0, percent, always_one)
        self.detector = OutlierDetector(self.config)
        self.cluster = ClusterState("model")
        self.cells = [self.cluster.endpoint(str(number)) for number in range(hosts)]
        self.now = self.tick = 0.0

    @rule(host=st.integers(0, 11), outcome=st.sampled_from(OUTCOMES), times=st.integers(1, 4))
    def traffic(self, host: int, outcome: Outcome, times: int) -> None:
        cell = self.cells[host % len(self.cells)]
        for _ in range(times):
            already = cell.ejected
            found = self.detector.record(self.cluster, cell, classify(outcome), self.now, len(self.cells), Always())
            if found is not None:
                assert not already
                assert 29.999 <= found.until - self.now <= 100.001

    @rule(seconds=st.sampled_from([0.1, 4.0, 10.0, 35.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.tick:
            before = {cell: cell.ejection for cell in self.cells}
            self.tick = self.detector.sweep(self.cluster, self.now)
            for cell, ejection in before.items():
                assert cell.ejected == (ejection is not None and ejection.until > self.now)

    @rule()
    def a_new_plan(self) -> None:
        self.detector = OutlierDetector(self.config)

    @invariant()
    def the_books_are_right(self) -> None:
        if not hasattr(self, "cells"):
            return
        ejected = [cell for cell in self.cells if cell.ejected]
        assert set(self.cluster.ejected) == set(ejected)
        allowed = max(self.config.max_ejection_percent * len(self.cells) // 100, int(self.config.always_eject_one_host))
        assert len(ejected) <= allowed
        assert all(0 <= cell.ejections <= 5 for cell in self.cells)
        assert all(len(streak) < self.config.consecutive_5xx for streak in self.cluster.streaks.values())

    def teardown(self) -> None:
        if hasattr(self, "cells"):
            for _ in range(30):
                self.now += 10.0
                self.detector.sweep(self.cluster, self.now)
            assert not self.cluster.ejected
            assert all(cell.ejections == 0 for cell in self.cells)


TestOutlier = OutlierMachine.TestCase
TestOutlier.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
