"""Outlier detection in whole calls: what is counted, when intervals end, what is told, and which plan's rules count."""

from typing import Any

import pytest

from meshlib.engine.events import EndpointEjected, EndpointReturned
from meshlib.engine.judging import checked_healthy
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import ErrorMatcher, OutlierDetection
from meshlib.model.matchers import HeaderMatcher, StringMatcher
from meshlib.model.outcome import Failure
from meshlib.model.report import ResourceError
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import Player, runtime_of

FIVE = [f"10.0.0.{number}:80" for number in range(1, 6)]
BAD = FIVE[0]
BY_RATE = OutlierDetection(
    consecutive_5xx=0,
    success_rate_request_volume=10,
    success_rate_stdev_factor=1000,
    max_ejection_percent=20,
    enforcing_failure_percentage=0,
)


def mesh(detection: OutlierDetection | None = BY_RATE, addresses: list[str] = FIVE) -> tuple[Runtime, list[Any]]:
    runtime = runtime_of({"payments": static_cluster("payments", addresses, outlier_detection=detection)})
    seen: list[Any] = []

    def hear(event: Any) -> None:
        if isinstance(event, EndpointEjected | EndpointReturned):
            seen.append(event)

    runtime.observers = (hear,)
    return runtime, seen


def call(runtime: Runtime, at: float, bad: int = 500) -> str:
    """One call; the bad endpoint answers every other one with this status. Where it went."""
    player = Player(runtime, now=at)
    address: str = player.last.host.address
    odd = len(runtime.state.cluster("payments").window.failures) == 0 or int(at * 100) % 2
    player.responds(bad if address == BAD and odd else 200, at)
    player.body_ends(at)
    return address


def calls(runtime: Runtime, number: int, since: float, step: float = 0.01) -> list[str]:
    return [call(runtime, since + n * step) for n in range(number)]


def stat(runtime: Runtime, name: str) -> int:
    return runtime.state.cluster("payments").stats[f"outlier_detection.ejections_{name}"].value


def test_who_fails_more_often_is_ejected_with_the_first_call_after_the_interval_and_comes_back() -> None:
    runtime, seen = mesh()
    calls(runtime, 200, 1.0)
    assert seen == []
    assert BAD not in calls(runtime, 50, 11.0)
    (ejected,) = seen
    assert (ejected.at, ejected.endpoint, ejected.reason, ejected.seconds) == (11.0, BAD, "success_rate", 30.0)
    assert ejected.details.endswith(", 5 hosts)")
    assert BAD in calls(runtime, 50, 41.0)
    assert [(type(event), event.at) for event in seen[1:]] == [(EndpointReturned, 41.0)]


def test_the_end_of_an_attempt_closes_the_interval_too_so_that_it_counts_in_its_own() -> None:
    runtime, seen = mesh()
    calls(runtime, 200, 1.0)
    player = Player(runtime, now=10.9)
    player.responds(200, 12.0)
    player.body_ends(12.0)
    assert [(type(event), event.at) for event in seen] == [(EndpointEjected, 11.0)]
    tallies = runtime.state.cluster("payments").window.read()
    assert sum(tally.successes for tally in tallies.values()) == 1, "the next interval has begun with it"


def test_after_a_silence_the_first_call_finds_things_as_if_there_had_been_none() -> None:
    runtime, seen = mesh()
    calls(runtime, 200, 1.0)
    assert BAD in calls(runtime, 50, 500.0)
    assert [(type(event), event.at) for event in seen] == [(EndpointEjected, 11.0), (EndpointReturned, 41.0)]
    assert [cell.ejections for cell in runtime.state.cluster("payments").endpoints.values()] == [0] * 5
    assert stat(runtime, "enforced_success_rate") == 1


def test_small_clusters_and_those_without_detection_count_no_successes() -> None:
    for runtime, _ in (mesh(addresses=FIVE[:4]), mesh(None)):
        calls(runtime, 50, 1.0)
        assert runtime.state.cluster("payments").window.read() == {}
    runtime, _ = mesh()
    calls(runtime, 50, 1.0)
    tallies = runtime.state.cluster("payments").window.read().values()
    assert sum(tally.successes + tally.failures for tally in tallies) == 50


def test_rules_of_a_plan_that_is_gone_eject_nobody() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime, seen = mesh(detection)
    player = Player(runtime, now=1.0)
    snapshot = static_snapshot({"payments": static_cluster("payments", FIVE)})
    runtime.install(runtime.compile(snapshot, runtime.plan))
    player.responds(500, 2.0)
    assert seen == []
    assert not runtime.state.cluster("payments").ejected, "nobody would ever let it back"


def test_taken_away_and_given_again_it_begins_anew() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime, seen = mesh(detection)
    player = Player(runtime, now=1.0)
    cell = player.last.host.cell
    player.responds(500, 2.0)
    assert (cell.ejected, cell.ejections) == (True, 1)
    for now, wanted in ((3.0, None), (4.0, detection)):
        snapshot = static_snapshot({"payments": static_cluster("payments", FIVE, outlier_detection=wanted)})
        runtime.install(runtime.compile(snapshot, runtime.plan), now)
    assert (cell.ejected, cell.ejections) == (False, 0)
    told = EndpointReturned(3.0, "payments", cell.address, "outlier detection was taken away")
    assert [event for event in seen if isinstance(event, EndpointReturned)] == [told]
    assert runtime.healing.out() == {}


def test_a_health_check_that_succeeds_lets_an_endpoint_back_and_says_so() -> None:
    runtime, seen = mesh(OutlierDetection(consecutive_5xx=1, max_ejection_percent=100))
    player = Player(runtime, now=1.0)
    cell = player.last.host.cell
    cluster = runtime.plan.clusters["payments"]
    player.responds(500, 2.0)
    checked_healthy(runtime, cluster, cell, 3.0)
    checked_healthy(runtime, cluster, cell, 4.0)
    assert [(type(event), event.at) for event in seen] == [(EndpointEjected, 2.0), (EndpointReturned, 3.0)]
    assert seen[1].reason == "a health check succeeded"
    assert not cell.ejected


def test_figures_of_a_streak_are_told() -> None:
    runtime, seen = mesh(OutlierDetection(consecutive_5xx=2, max_ejection_percent=100), FIVE[:1])
    for _ in range(2):
        Player(runtime, now=1.0).responds(500, 2.0)
    (ejected,) = seen
    assert (ejected.reason, ejected.details) == ("consecutive_5xx", "2 in a row")


def sick(name: str, value: str) -> ErrorMatcher:
    return ErrorMatcher("headers", headers=(HeaderMatcher(name, StringMatcher("exact", value)),))


@pytest.mark.parametrize(
    "matcher,status,headers,ejects",
    [
        (sick(":status", "404"), 404, (), True),
        (sick(":status", "404"), 503, (), False),
        (sick("x-sick", "1"), 200, ((b"x-sick", b"1"),), True),
        (sick("x-sick", "1"), 200, (), False),
    ],
)
def test_a_matcher_says_which_responses_are_errors(
    matcher: ErrorMatcher, status: int, headers: Any, ejects: bool
) -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100, error_matcher=matcher)
    runtime, seen = mesh(detection)
    Player(runtime, now=1.0).responds(status, 2.0, *headers)
    assert bool(seen) is ejects


def test_a_matcher_leaves_failures_and_retries_alone() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100, error_matcher=sick(":status", "404"))
    runtime, seen = mesh(detection)
    Player(runtime, now=1.0).fails(Failure.CONNECT, 2.0, sent=False)
    assert [event.reason for event in seen] == ["consecutive_5xx"]


def test_a_bad_expression_in_a_matcher_is_refused_with_the_plan() -> None:
    matcher = ErrorMatcher("headers", headers=(HeaderMatcher("x", StringMatcher("safe_regex", "(")),))
    with pytest.raises(ResourceError, match="Cluster payments"):
        mesh(OutlierDetection(error_matcher=matcher))
