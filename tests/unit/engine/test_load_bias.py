"""Load bias: who says that it has too much to do is balanced to as if it had more requests, for a while."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import BodyEnd
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import LoadBias, OutlierDetection
from meshlib.model.lb import LbPolicy, LeastRequest, PeakEwma
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import Player, at_time, runtime_of

FOUR = [f"10.0.0.{number}:80" for number in range(1, 5)]
BIAS = LoadBias(requests=10, duration=5.0, max_duration=60.0)


LEAST = LeastRequest()


def snapshot(bias: LoadBias | None = BIAS, policy: LbPolicy = LEAST, **more: Any) -> Snapshot:
    cluster = static_cluster("payments", FOUR, **more)
    return static_snapshot({"payments": replace(cluster, lb_policy=policy, load_bias=bias)})


def answered(runtime: Runtime, at: float, outcome: Outcome | None = None) -> str:
    """One call of ten milliseconds, answered so. Where it went."""
    player = Player(runtime, now=at - 0.01)
    address: str = player.last.host.address
    player.send(at_time(outcome or Outcome(200), at))
    if not isinstance(player.last, tuple):
        player.send(BodyEnd(at))
    return address


def picks(runtime: Runtime, at: float, number: int = 200) -> Counter[str]:
    return Counter(answered(runtime, at) for _ in range(number))


def biased(runtime: Runtime) -> dict[str, int]:
    """Endpoints with tokens though no call is under way."""
    cells = runtime.state.cluster("payments").endpoints.values()
    return {cell.address: cell.active for cell in cells if cell.active}


@pytest.mark.parametrize("policy", [LEAST, LeastRequest(full_scan=True), PeakEwma()])
def test_who_has_too_much_to_do_is_left_alone_for_a_while(policy: LbPolicy) -> None:
    runtime = runtime_of(snapshot(policy=policy))
    picks(runtime, 1.0)
    busy = answered(runtime, 2.0, Outcome(429))
    assert biased(runtime) == {busy: 10}
    assert busy not in picks(runtime, 6.9)
    assert picks(runtime, 7.1)[busy]
    assert biased(runtime) == {}


@pytest.mark.parametrize(
    "outcome,seconds",
    [
        (Outcome(429), 5.0),
        (Outcome(429, [(b"Retry-After", b"20")]), 20.0),
        (Outcome(429, [(b"retry-after", b"3600")]), 60.0),
        (Outcome(429, [(b"retry-after", b"0")]), 1.0),
        (Outcome(503, [(b"retry-after", b"2")]), 2.0),
        (Outcome(503, [(b"retry-after", b"Sat, 21 Nov 2026 17:00:00 GMT")]), 5.0),
        (Outcome(200, grpc_status=8), 5.0),
        (Outcome(failure=Failure.RESET, grpc_status=8), 5.0),
        (Outcome(200), None),
        (Outcome(503), None),
        (Outcome(301, [(b"retry-after", b"9")]), None),
        (Outcome(200, grpc_status=14), None),
        (Outcome(failure=Failure.CONNECT), None),
    ],
)
def test_what_counts_and_for_how_long(outcome: Outcome, seconds: float | None) -> None:
    runtime = runtime_of(snapshot())
    answered(runtime, 2.0, outcome)
    biases = runtime.state.cluster("payments").biases.values()
    assert [one.until - 2.0 for one in biases] == ([] if seconds is None else [seconds])


def test_a_stream_is_heard_when_it_ends() -> None:
    runtime = runtime_of(snapshot())
    player = Player(runtime, now=1.0)
    player.send(at_time(Outcome(200, grpc_status=GRPC_STATUS_PENDING), 1.0))
    assert runtime.state.cluster("payments").biases == {}
    player.send(BodyEnd(3.0, None, 8))
    assert [one.until for one in runtime.state.cluster("payments").biases.values()] == [8.0]


def test_more_of_the_same_lasts_longer_and_weighs_no_more() -> None:
    runtime = runtime_of(snapshot(LoadBias(requests=3)))
    for at in (1.0, 2.0, 3.0):
        for _ in range(40):
            answered(runtime, at, Outcome(429))
    assert set(biased(runtime).values()) == {3}
    picks(runtime, 7.9)
    assert biased(runtime)
    picks(runtime, 8.1)
    assert biased(runtime) == {}


def test_without_one_nothing_is_heard_and_one_that_is_taken_away_is_lifted() -> None:
    runtime = runtime_of(snapshot(None))
    assert runtime.plan.clusters["payments"].observe is None
    answered(runtime, 1.0, Outcome(429))
    assert biased(runtime) == {}
    runtime = runtime_of(snapshot())
    answered(runtime, 1.0, Outcome(429))
    late = Player(runtime, now=1.0)
    runtime.install(runtime.compile(snapshot(None), runtime.plan), 2.0)
    late.responds(429, 3.0)
    late.body_ends(3.0)
    assert biased(runtime) == {}


def test_it_goes_along_with_outlier_detection() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100, base_ejection_time=30.0)
    runtime = runtime_of(snapshot(outlier_detection=detection))
    busy = answered(runtime, 1.0, Outcome(503, [(b"retry-after", b"4")]))
    assert runtime.state.cluster("payments").endpoint(busy).ejected
    picks(runtime, 5.1, 8)
    assert biased(runtime) == {}, "lifted in time, though the ejection lasts"
    assert runtime.state.cluster("payments").endpoint(busy).ejected
