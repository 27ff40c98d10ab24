"""What protections do on a bad day, plotted: the mesh's own call flow in model time, so that the figures are exact.

    python -m benchmarks.bad_days [--docs FOLDER]

Prints the figures; `--docs` writes the plots into a folder.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Commit, Discard, Fail, Flow, Start, Wait
from meshlib.engine.runtime import Runtime
from meshlib.model.circuit_breaker import CircuitBreaker
from meshlib.model.cluster import CircuitBreakers, Cluster, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.model.retry import RetryPolicy
from meshlib.model.route import Route, RouteAction
from meshlib.sources.static import static_cluster, static_snapshot

PODS, RATE, SECONDS = 10, 400.0, 60  # calls a second, in an open loop
BEGINS, ENDS = 10, 40
TAKES, FAILS_AFTER = 0.005, 0.02  # seconds: an answer, a failure
ADDRESSES = [f"10.0.0.{number + 1}:80" for number in range(PODS)]
Ill = Callable[[str, float], float]
"""(Pod, time) -> how likely a request fails there."""


@dataclass(slots=True)
class Seconds:
    """What each second brought."""

    calls: list[int] = field(default_factory=lambda: [0] * SECONDS)
    failed: list[int] = field(default_factory=lambda: [0] * SECONDS)
    attempts: list[int] = field(default_factory=lambda: [0] * SECONDS)

    @property
    def failing(self) -> list[float]:
        """The share of calls that failed."""
        return [failed / max(1, calls) for failed, calls in zip(self.failed, self.calls, strict=True)]

    @property
    def load(self) -> list[float]:
        """Attempts for each call."""
        return [sent / max(1, calls) for sent, calls in zip(self.attempts, self.calls, strict=True)]


def one_pod_fails_half(pod: str, at: float) -> float:
    """The fourth pod answers every second request with an error."""
    return 0.5 if pod == ADDRESSES[3] and BEGINS <= at < ENDS else 0.0


def all_pods_fail(pod: str, at: float) -> float:
    """A storm."""
    return 1.0 if BEGINS <= at < ENDS else 0.0


def simulate(cluster: Cluster, retries: RetryPolicy | None, ill: Ill) -> Seconds:
    """Calls at random times to a cluster whose pods are ill in this way."""
    chance, seen = random.Random(1), Seconds()
    runtime = Runtime(random.Random(2), unknown_hosts="reject")
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("pods", retry_policy=retries))
    runtime.install(runtime.compile(static_snapshot({"pods": cluster}, routes={"pods": [route]}), None))
    due: list[tuple[float, int, Flow | None, Any]] = []
    now, number = 0.0, 0
    while now < SECONDS:
        heappush(due, (now, number, None, None))
        now, number = now + chance.expovariate(RATE), number + 1
    while due:
        at, _, flow, answer = heappop(due)
        if flow is None:
            flow = call_flow(runtime, RequestHead("GET", "http", "pods", "/", [(b"Host", b"pods")]), at)
            _tell(seen.calls, at)
            command: Any = next(flow)
        else:
            command = flow.send(answer)
        number += 1
        _obey(command, flow, at, number, due, seen, chance, ill)
    return seen


def _obey(
    command: Any, flow: Flow, at: float, number: int, due: list[Any], seen: Seconds, chance: random.Random, ill: Ill
) -> None:
    match command:
        case Start():
            _tell(seen.attempts, at)
            fails = chance.random() < ill(command.host.address, at)
            outcome = Outcome(503 if fails else 200, [])
            outcome.at = at + (FAILS_AFTER if fails else TAKES)
            heappush(due, (outcome.at, number, flow, outcome))
        case Wait():
            heappush(due, (at + command.seconds, number, flow, at + command.seconds))
        case Discard():
            heappush(due, (at, number, flow, at))
        case Commit():
            if command.outcome.status != 200:
                _tell(seen.failed, at)
            try:
                flow.send(BodyEnd(at))
            except StopIteration:
                return
        case Fail():
            _tell(seen.failed, at)
            flow.close()
        case _:
            raise TypeError(command)


def _tell(seconds: list[int], at: float) -> None:
    if at < SECONDS:
        seconds[int(at)] += 1


def pods(thresholds: Thresholds = Thresholds(), **fields: Any) -> Cluster:  # noqa: B008  frozen
    """The cluster with a protection."""
    made = static_cluster("pods", ADDRESSES, outlier_detection=fields.pop("outlier_detection", None))
    return replace(made, circuit_breakers=CircuitBreakers(thresholds), **fields)


TWICE = RetryPolicy(("gateway-error",), num_retries=2, previous_hosts=True, host_selection_retry_max_attempts=3)
NO_BUDGET = Thresholds(max_requests=100_000, max_retries=100_000)
BUDGET = Thresholds(max_requests=100_000, retry_budget=RetryBudget(20.0, 3))
STREAKS = OutlierDetection(consecutive_5xx=5, enforcing_success_rate=0, max_ejection_percent=20, interval=5.0)
RATES = OutlierDetection(
    consecutive_5xx=1_000, success_rate_minimum_hosts=5, success_rate_request_volume=50, interval=5.0,
    max_ejection_percent=20,
)  # fmt: skip
BREAKER = CircuitBreaker(fail_max=20, reset_timeout=5.0)

OUTLIERS: dict[str, tuple[Cluster, RetryPolicy | None]] = {
    "nothing": (pods(), None),
    "five failures in a row": (pods(outlier_detection=STREAKS), None),
    "success rate": (pods(outlier_detection=RATES), None),
    "success rate, and retries": (pods(BUDGET, outlier_detection=RATES), TWICE),
}
STORMS: dict[str, tuple[Cluster, RetryPolicy | None]] = {
    "retries without a budget": (pods(NO_BUDGET), TWICE),
    "retries with a budget": (pods(BUDGET), TWICE),
    "a budget and a circuit breaker": (pods(BUDGET, circuit_breaker=BREAKER), TWICE),
}


def outliers() -> dict[str, Sequence[float]]:
    """The share of calls that fail, by what protects them."""
    return {name: simulate(*given, one_pod_fails_half).failing for name, given in OUTLIERS.items()}


def storms() -> dict[str, Sequence[float]]:
    """Attempts for each call."""
    return {name: simulate(*given, all_pods_fail).load for name, given in STORMS.items()}


def draw(lines: Mapping[str, Sequence[float]], title: str, label: str, file: Path) -> None:
    """One plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
    axes.axvspan(BEGINS, ENDS, color="#fff3e0")
    for name, values in lines.items():
        axes.step(range(SECONDS), values, where="post", label=name, linewidth=1.6)
    axes.set(title=title, xlabel="seconds", ylabel=label, ylim=(0, None), xlim=(0, SECONDS))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bad_days", description=__doc__)
    parser.add_argument("--docs", type=Path, help="folder for the plots")
    options = parser.parse_args(given)
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    failing, load = outliers(), storms()
    for title, lines in (("calls that fail", failing), ("attempts for each call", load)):
        print(f"{title:34}{'before':>8}{'first 10 s':>12}{'then':>8}{'after':>8}")
        for name, values in lines.items():
            spans = (values[:BEGINS], values[BEGINS : BEGINS + 10], values[BEGINS + 10 : ENDS], values[ENDS + 5 :])
            means = [sum(span) / len(span) for span in spans]
            print(f"{name:34}{means[0]:>8.3f}{means[1]:>12.3f}{means[2]:>8.3f}{means[3]:>8.3f}")
    if options.docs is not None:
        options.docs.mkdir(parents=True, exist_ok=True)
        title = "One of ten pods fails every second request, from 10 to 40 s"
        draw(failing, title, "share of calls that fail", options.docs / "outliers.png")
        draw(
            load,
            "All pods fail from 10 to 40 s: what they are asked",
            "attempts for each call",
            options.docs / "storm.png",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
