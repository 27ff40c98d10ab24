"""One cluster under one outlier detector, and a random generator that says what it is told to."""

from meshlib.model.cluster import OutlierDetection
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import Classification, classify
from meshlib.policy.outlier import Change, OutlierDetector
from meshlib.state.cells import ClusterState, Ejection, EndpointState

OK = classify(Outcome(200))
ERROR = classify(Outcome(500))
UNAVAILABLE = classify(Outcome(503))
REFUSED = classify(Outcome(failure=Failure.CONNECT, request_sent=False))
RESET = classify(Outcome(failure=Failure.RESET))


class Draw:
    """The next draw; a test that must not draw gives none."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


class World:
    """One cluster of `hosts` hosts under one detector, whose first interval begins at 0."""

    def __init__(self, hosts: int = 10, **config: object) -> None:
        self.cluster = ClusterState("payments")
        self.cells = [self.cluster.endpoint(f"10.0.0.{n}:80") for n in range(hosts)]
        self.configure(**config)
        self.sweep(0.0)

    def configure(self, **config: object) -> None:
        """Another detector takes over, as with a new plan."""
        self.detector = OutlierDetector(OutlierDetection(**config), len(self.cells))  # type: ignore[arg-type]

    def ends(
        self, cell: EndpointState, how: Classification, times: int = 1, now: float = 0.0, rng: Draw | None = None
    ) -> Ejection | None:
        """So many attempts end; the first ejection that they cause."""
        found = None
        for _ in range(times):
            ended = self.detector.record(self.cluster, cell, how, now, len(self.cells), rng or Draw())
            found = found or ended
        return found

    def fail(self, cell: EndpointState, times: int = 5, now: float = 0.0, rng: Draw | None = None) -> Ejection | None:
        return self.ends(cell, ERROR, times, now, rng)

    def mixed(self, cell: EndpointState, good: int, bad: int, how: Classification = ERROR) -> None:
        """Attempts of which some fail, never many in a row."""
        for number in range(good + bad):
            self.ends(cell, how if number * bad // (good + bad) != (number + 1) * bad // (good + bad) else OK)

    def sweep(self, now: float, rng: Draw | None = None) -> list[Change]:
        swept = self.detector.sweep(self.cluster, now, len(self.cells), rng or Draw())
        self.due = swept.due
        return swept.changes

    def stat(self, name: str) -> int:
        return self.cluster.stats[f"outlier_detection.{name}"].value

    def moved(self) -> dict[str, int]:
        """The counters that are not 0."""
        prefix = "outlier_detection.ejections_"
        found = {name.removeprefix(prefix): counter.value for name, counter in self.cluster.stats.items()}
        return {name: value for name, value in found.items() if value}
