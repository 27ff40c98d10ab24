"""The attempt loop as lists of values: what each outcome leads to, and what is held in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import BodyEnd, Commit, Discard, Fail, Start, Wait, abandon
from meshlib.engine.events import AttemptEnded, CallEnded, EndpointEjected, EndpointReturned, HealingChanged
from meshlib.engine.plan import Attached
from meshlib.engine.runtime import Runtime
from meshlib.engine.stand_in import STAND_IN
from meshlib.model.cluster import CircuitBreaker, OutlierDetection, RetryBudget
from meshlib.model.endpoint import Address, LbEndpoint
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Failure
from meshlib.model.route import RetryPolicy, Route, RouteAction
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, ENDED, Dice, Player, get, held, limited_cluster, runtime_of

ANYTHING = RouteMatch(PathMatcher("prefix", "/"))
RETRY = RetryPolicy(("5xx",), num_retries=2)
ONE = ADDRESSES[:1]


def told(runtime: Runtime) -> list[Any]:
    seen: list[Any] = []
    runtime.observers = (seen.append,)
    return seen


def stats(runtime: Runtime) -> dict[str, int]:
    """Counters that moved, without their cluster."""
    return {name: counter.value for name, counter in runtime.state.clusters["payments"].stats.items() if counter.value}


def flag_of(player: Player) -> str:
    assert isinstance(player.last, Fail)
    return str(player.last.failure.flag)


# ---------------------------------------------------------------------- one attempt


def test_a_call_from_beginning_to_end() -> None:
    runtime = runtime_of({"payments": ONE})
    seen = told(runtime)
    player = Player(runtime, get("payments", "/charge?card=1"), now=10.0)
    start = player.last
    assert isinstance(start, Start)
    assert (start.attempt, start.host.address, start.deadline, start.final_deadline) == (1, ONE[0], 25.0, 25.0)
    assert held(runtime) == {"default.requests": 1, ONE[0]: 1}
    commit = player.responds(200, 10.5)
    assert isinstance(commit, Commit)
    assert commit.headers is None
    assert held(runtime) == {"default.requests": 1, ONE[0]: 1}, "the load ends when the body does"
    assert player.body_ends(11.0) == ENDED
    assert held(runtime) == {}
    attempt, call = seen
    assert isinstance(attempt, AttemptEnded)
    assert (attempt.result, attempt.duration, attempt.retry) == (200, 0.5, "")
    assert isinstance(call, CallEnded)
    assert (call.status, call.flag, call.duration, call.path) == (200, None, 1.0, "/charge")
    assert stats(runtime) == {"upstream_rq_total": 1, "upstream_rq_completed": 1, "upstream_rq_2xx": 1}


@pytest.mark.parametrize(
    "failure, flag",
    [
        (Failure.CONNECT, "UF"),
        (Failure.CONNECT_TIMEOUT, "UF"),
        (Failure.OVERFLOW, "UO"),
        (Failure.RESET_BEFORE_REQUEST, "UC"),
        (Failure.RESET, "UC"),
        (Failure.REFUSED_STREAM, "UR"),
        (Failure.TIMEOUT, "UT"),
        (Failure.POOL_TIMEOUT, "UT"),
        (Failure.PER_TRY_TIMEOUT, "UT"),
        (Failure.IDLE, "SI"),
        (Failure.PROTOCOL, "UPE"),
        (Failure.LOCAL, "DC"),
        (Failure.NESTED, "LR"),
    ],
)
def test_what_each_failure_is_called(failure: Failure, flag: str) -> None:
    runtime = runtime_of({"payments": ONE})
    error = OSError("why")
    player = Player(runtime)
    player.fails(failure, 1.0, error=error)
    assert flag_of(player) == flag
    assert player.last.failure.reason == "why"
    assert player.last.outcome.error is error
    assert held(runtime) == {}
    assert player.send(None) == ENDED


def test_every_failure_is_in_that_table() -> None:
    (mark,) = test_what_each_failure_is_called.pytestmark  # type: ignore[attr-defined]
    assert {failure for failure, _ in mark.args[1]} == set(Failure)


def test_no_endpoint_is_uh() -> None:
    player = Player(runtime_of({"payments": []}))
    assert flag_of(player) == "UH"
    assert player.last.failure.attempts == 0


def test_a_caller_that_needs_no_endpoint_is_served_without_one_and_its_stand_in_is_never_ejected() -> None:
    detection, breaker = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100), CircuitBreaker(fail_max=3)
    cluster = static_cluster("payments", [], outlier_detection=detection, circuit_breaker=breaker)
    runtime = runtime_of({"payments": cluster}, retries=RETRY)
    seen = told(runtime)
    player = Player(runtime, stand_in=STAND_IN)
    for attempt in (1, 2, 3):
        assert isinstance(player.last, Start)
        assert (player.last.host, player.last.attempt) == (STAND_IN, attempt)
        player.responds(503, float(attempt))
        while isinstance(player.last, Discard | Wait):
            player.send(float(attempt))
    assert isinstance(player.last, Commit)
    assert player.last.info.endpoint == ""
    player.body_ends(4.0)
    assert flag_of(Player(runtime, stand_in=STAND_IN)) == "UO", "its breaker counts as ever"
    assert [event for event in seen if isinstance(event, EndpointEjected)] == []
    assert held(runtime) == {}
    assert STAND_IN.cell.active == 0


def test_a_stand_in_is_not_for_clusters_whose_endpoints_are_all_down() -> None:
    down = [LbEndpoint(Address("10.0.0.1", 80), health_status="UNHEALTHY")]
    cluster = replace(static_cluster("payments", down), healthy_panic_threshold=0)
    assert flag_of(Player(runtime_of({"payments": cluster}), stand_in=STAND_IN)) == "UH"


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    player = Player(runtime_of(), now=10.0, deadline=10.0)
    assert flag_of(player) == "UT"
    assert player.last.failure.attempts == 0


def test_the_earlier_of_deadline_and_route_timeout_holds() -> None:
    runtime = runtime_of(timeout=5.0)
    assert Player(runtime, now=10.0, deadline=12.0).last.deadline == 12.0
    assert Player(runtime, now=10.0, deadline=99.0).last.deadline == 15.0
    assert Player(runtime_of(timeout=None)).last.deadline is None


def test_what_the_upstream_is_told_of_the_time_left() -> None:
    def told_ms(player: Player) -> list[bytes]:
        return [value for name, value in player.last.head.headers if name == b"x-envoy-expected-rq-timeout-ms"]

    forged = get("payments", "/", (b"X-Envoy-Expected-Rq-Timeout-Ms", b"7"))
    assert told_ms(Player(runtime_of(timeout=5.0), forged, deadline=1.25)) == [b"1250"]
    assert told_ms(Player(runtime_of(timeout=None), forged)) == []


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.IDLE, Failure.PROTOCOL])
def test_a_body_that_breaks_is_the_endpoints_fault(failure: Failure) -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime = runtime_of({"payments": static_cluster("payments", ONE, outlier_detection=detection)})
    seen = told(runtime)
    player = Player(runtime)
    player.responds(200, 1.0)
    assert player.body_ends(2.0, failure) == ENDED
    assert [type(event) for event in seen] == [AttemptEnded, EndpointEjected, HealingChanged, CallEnded]
    assert seen[-1].flag is not None
    assert held(runtime) == {}


def test_a_body_that_outlives_the_deadline_is_told_and_blames_nobody() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime = runtime_of({"payments": static_cluster("payments", ONE, outlier_detection=detection)})
    seen = told(runtime)
    player = Player(runtime)
    player.responds(200, 1.0)
    player.body_ends(2.0, Failure.TIMEOUT)
    assert [type(event) for event in seen] == [AttemptEnded, CallEnded]
    assert seen[-1].flag == "UT"
    assert runtime.state.cluster("payments").stats["upstream_rq_timeout"].value == 1


def test_a_caller_who_gives_up_the_body_is_nobodys_fault() -> None:
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime = runtime_of({"payments": static_cluster("payments", ONE, outlier_detection=detection)})
    seen = told(runtime)
    player = Player(runtime)
    player.responds(200, 1.0)
    player.body_ends(2.0, Failure.LOCAL)
    assert [type(event) for event in seen] == [AttemptEnded, CallEnded]


def test_response_headers_are_changed_at_the_commit() -> None:
    stamp = HeaderMutations(add=(HeaderValueOption("x-by", "mesh"),), remove=("server",))
    route = Route(ANYTHING, RouteAction("payments"), response_headers=stamp)
    player = Player(runtime_of(static_snapshot({"payments": ONE}, routes={"payments": (route,)})))
    commit = player.responds(200, 1.0, (b"Server", b"x"), (b"A", b"b"))
    assert commit.headers == [(b"A", b"b"), (b"x-by", b"mesh")]


# ---------------------------------------------------------------------- retries


def test_a_retry_drops_waits_and_goes_elsewhere() -> None:
    policy = replace(RETRY, previous_hosts=True, host_selection_retry_max_attempts=5)
    runtime = runtime_of(retries=policy)
    seen = told(runtime)
    player = Player(runtime)
    first = player.last.host.address
    discard = player.responds(503, 1.0)
    assert isinstance(discard, Discard)
    assert discard.outcome.status == 503
    assert held(runtime) == {"default.retries": 1}, "the dropped attempt is no load, the retry is one from here"
    wait = player.send(1.1)
    assert isinstance(wait, Wait)
    assert 0 <= wait.seconds < 0.025
    second = player.send(1.2)
    assert (second.attempt, second.final_deadline) == (2, 15.0)
    assert second.host.address != first
    assert held(runtime) == {"default.retries": 1, "default.requests": 1, second.host.address: 1}
    assert isinstance(player.responds(200, 2.0), Commit)
    assert held(runtime) == {"default.requests": 1, second.host.address: 1}, "answered: no longer a retry in flight"
    player.body_ends(3.0)
    assert player.kinds == ["Start", "Discard", "Wait", "Start", "Commit"]
    assert [event.retry for event in seen if isinstance(event, AttemptEnded)] == ["5xx", ""]
    assert stats(runtime)["upstream_rq_retry_success"] == 1


def test_a_failure_has_nothing_to_drop() -> None:
    player = Player(runtime_of(retries=RETRY))
    assert isinstance(player.fails(Failure.CONNECT, 1.0), Wait)


def test_when_retries_are_used_up_the_last_answer_is_the_callers() -> None:
    runtime = runtime_of(retries=RETRY)
    player = Player(runtime)
    for at in (1.0, 2.0):
        player.responds(503, at)
        player.send(at)
        player.send(at)
    commit = player.responds(503, 3.0)
    assert isinstance(commit, Commit)
    assert (commit.info.attempts, commit.info.flag) == (3, "URX")
    assert "upstream_rq_retry_success" not in stats(runtime)
    player.close()


def test_when_retries_are_used_up_the_last_failure_keeps_its_own_flag() -> None:
    player = Player(runtime_of(retries=replace(RETRY, num_retries=1)))
    player.fails(Failure.CONNECT, 1.0)
    player.send(1.1)
    player.fails(Failure.CONNECT, 2.0)
    assert flag_of(player) == "UF"
    assert player.last.failure.attempts == 2
    assert "URX" in player.last.failure.reason


@pytest.mark.parametrize("status", [200, 404, 500])
def test_what_was_not_asked_for_is_not_retried(status: int) -> None:
    player = Player(runtime_of(retries=2))  # 503, connect failures, ...
    assert isinstance(player.responds(status, 1.0), Commit)


@pytest.mark.parametrize(
    "sent, kind",
    [(False, Wait), (True, Fail)],
)
def test_a_body_that_cannot_be_sent_again_may_be_sent_for_the_first_time(sent: bool, kind: type) -> None:
    player = Player(runtime_of(retries=RETRY), replayable=False)
    assert isinstance(player.fails(Failure.RESET, 1.0, sent=sent), kind)


def test_a_response_to_a_body_that_cannot_be_sent_again_is_the_callers() -> None:
    player = Player(runtime_of(retries=RETRY), replayable=False)
    assert isinstance(player.responds(503, 1.0), Commit)


def test_no_retry_that_would_begin_after_the_deadline() -> None:
    policy = replace(RETRY, base_interval=10.0, max_interval=10.0)
    runtime = runtime_of(retries=policy, timeout=5.0, rng=Dice(0.9))
    player = Player(runtime)
    assert isinstance(player.responds(503, 1.0), Commit)


def test_a_back_off_that_takes_too_long_leaves_no_attempt_behind() -> None:
    runtime = runtime_of(retries=RETRY, timeout=5.0)
    player = Player(runtime)
    assert isinstance(player.fails(Failure.RESET, 1.0), Wait)
    player.send(6.0)  # a busy process wakes late
    assert flag_of(player) == "UT"
    assert player.last.failure.attempts == 1, "the second was never made"
    assert stats(runtime)["upstream_rq_total"] == 1
    assert player.send(None) == ENDED
    assert held(runtime) == {}


def test_back_off_grows_with_every_retry() -> None:
    policy = RetryPolicy(("5xx",), num_retries=4, base_interval=0.1, max_interval=0.5)
    player = Player(runtime_of(retries=policy, timeout=None, rng=Dice(0.99999)))
    waits = []
    for _ in range(4):
        waits.append(player.fails(Failure.RESET, 1.0).seconds)
        player.send(2.0)
    assert waits == [pytest.approx(bound, rel=1e-3) for bound in (0.1, 0.2, 0.4, 0.5)]


def test_a_per_try_timeout_bounds_each_attempt_and_the_deadline_the_last() -> None:
    policy = replace(RETRY, per_try_timeout=4.0)
    player = Player(runtime_of(retries=policy, timeout=5.0, rng=Dice(0.0)))
    first = player.last
    assert (first.deadline, first.on_deadline, first.final_deadline) == (4.0, Failure.PER_TRY_TIMEOUT, 5.0)
    player.fails(Failure.PER_TRY_TIMEOUT, 4.0)
    second = player.send(4.0)
    assert (second.deadline, second.on_deadline) == (5.0, Failure.TIMEOUT)
    player.fails(Failure.TIMEOUT, 5.0)
    assert flag_of(player) == "UT"


def test_the_number_of_retries_in_flight_is_bounded() -> None:
    runtime = runtime_of({"payments": limited_cluster(limits={"max_retries": 2})}, retries=RETRY)
    players = [Player(runtime) for _ in range(4)]
    assert [type(player.responds(503, 1.0)) for player in players] == [Discard, Discard, Commit, Commit]
    assert stats(runtime)["upstream_rq_retry_overflow"] == 2
    for player in players:
        player.close()
    assert held(runtime) == {}


def test_a_budget_is_a_share_of_what_is_in_flight() -> None:
    budget = RetryBudget(budget_percent=25.0, min_retry_concurrency=1)
    runtime = runtime_of({"payments": limited_cluster(limits={"retry_budget": budget})}, retries=RETRY)
    players = [Player(runtime) for _ in range(12)]
    retried = sum(isinstance(player.responds(503, 1.0), Discard) for player in players)
    # Of 12 in flight 3 may be retries, of 11 and of 10 only 2: a dropped attempt is in flight no more.
    assert retried == 2
    for player in players:
        player.close()
    assert held(runtime) == {}


# ---------------------------------------------------------------------- breakers, then thresholds


def broken(**policy: Any) -> Runtime:
    breaker = CircuitBreaker(**policy)
    return runtime_of({"payments": static_cluster("payments", ONE, circuit_breaker=breaker)})


def test_an_open_breaker_refuses_until_its_time_is_over() -> None:
    runtime = broken(fail_max=2, reset_timeout=10.0)
    for at in (1.0, 2.0):
        player = Player(runtime, now=at)
        player.responds(500, at)
        player.body_ends(at)
    refused = Player(runtime, now=11.9)
    assert (flag_of(refused), refused.last.failure.circuit_open) == ("UO", True)
    assert held(runtime) == {}
    probe, second = Player(runtime, now=12.0), Player(runtime, now=12.0)
    assert isinstance(probe.last, Start)
    assert flag_of(second) == "UO"
    probe.responds(200, 13.0)
    assert isinstance(Player(runtime, now=13.0).last, Start)


def test_a_probe_that_is_given_up_makes_room_for_another() -> None:
    runtime = broken(fail_max=1, reset_timeout=10.0)
    player = Player(runtime)
    player.responds(500, 0.0)
    player.close()
    for _ in range(3):
        probe = Player(runtime, now=20.0)
        assert isinstance(probe.last, Start)
        probe.close()
    neutral = Player(runtime, now=20.0)
    neutral.fails(Failure.OVERFLOW, 20.0)
    assert isinstance(Player(runtime, now=20.0).last, Start), "an overflow says nothing of the upstream"


def test_a_breaker_may_open_between_attempts() -> None:
    breaker = CircuitBreaker(fail_max=1, reset_timeout=60.0)
    runtime = runtime_of({"payments": static_cluster("payments", ONE, circuit_breaker=breaker)}, retries=RETRY)
    player = Player(runtime)
    player.responds(503, 1.0)
    player.send(1.0)
    player.send(1.1)
    assert (flag_of(player), player.last.failure.circuit_open) == ("UO", True)
    assert player.send(None) == ENDED
    assert held(runtime) == {}


def test_transitions_are_told() -> None:
    changes: list[Any] = []
    cluster = static_cluster("payments", ONE, circuit_breaker=CircuitBreaker(fail_max=1))
    runtime = runtime_of({"payments": cluster}, attached=Attached(on_transition=changes.append))
    player = Player(runtime, now=5.0)
    player.fails(Failure.CONNECT, 6.0)
    assert [(change.old, change.new, change.now) for change in changes] == [("closed", "open", 6.0)]


def test_one_request_too_many_is_refused_and_holds_nothing() -> None:
    breaker = CircuitBreaker(fail_max=1, half_open_permits=1)
    cluster = limited_cluster(addresses=ONE, limits={"max_requests": 1}, circuit_breaker=breaker)
    runtime = runtime_of({"payments": cluster})
    first, second = Player(runtime), Player(runtime)
    assert flag_of(second) == "UO"
    assert not second.last.failure.circuit_open
    assert held(runtime) == {"default.requests": 1, ONE[0]: 1}
    first.close()
    assert isinstance(Player(runtime).last, Start)


def test_the_two_routing_priorities_have_their_own_load() -> None:
    route = Route(ANYTHING, RouteAction("payments", priority="HIGH"))
    runtime = runtime_of(static_snapshot({"payments": ONE}, routes={"payments": (route,)}))
    player = Player(runtime)
    assert held(runtime) == {"high.requests": 1, ONE[0]: 1}
    player.close()
    assert held(runtime) == {}


# ---------------------------------------------------------------------- outlier detection


def test_an_ejected_endpoint_is_left_alone_and_returns() -> None:
    detection = OutlierDetection(consecutive_5xx=2, base_ejection_time=10.0, max_ejection_percent=50, interval=5.0)
    cluster = static_cluster("payments", ADDRESSES[:2], outlier_detection=detection)
    runtime = runtime_of({"payments": cluster})
    seen = told(runtime)

    def call(at: float) -> str:
        player = Player(runtime, now=at)
        address: str = player.last.host.address
        player.responds(500 if address == ADDRESSES[0] else 200, at)
        player.body_ends(at)
        return address

    first = [call(1.0) for _ in range(8)]
    assert first.count(ADDRESSES[0]) == 2
    assert {call(10.9) for _ in range(4)} == {ADDRESSES[1]}
    assert {call(11.0) for _ in range(4)} == set(ADDRESSES[:2])
    told_of = [event for event in seen if isinstance(event, EndpointEjected | EndpointReturned)]
    assert [(type(event), event.at) for event in told_of[:2]] == [(EndpointEjected, 1.0), (EndpointReturned, 11.0)]
    assert told_of[0].seconds == 10.0


# ---------------------------------------------------------------------- closed at every yield


def test_a_caller_that_goes_away_is_told_of_as_dc() -> None:
    runtime = runtime_of({"payments": ONE}, retries=RETRY)
    seen = told(runtime)
    for steps in range(3):
        player = Player(runtime, now=5.0)
        for _, step in SCRIPT[:steps]:
            step(player)
        abandon(player.flow, 7.5)
        call = seen[-1]
        assert isinstance(call, CallEnded)
        assert (call.status, call.flag, call.info.flag, call.duration) == (None, "DC", "DC", 2.5)
    assert held(runtime) == {}
    abandon(player.flow, 9.0)
    assert len([event for event in seen if isinstance(event, CallEnded)]) == 3, "a call ends once"


SCRIPT: list[tuple[str, Any]] = [
    ("Start", lambda player: player.responds(503, 1.0)),
    ("Discard", lambda player: player.send(1.0)),
    ("Wait", lambda player: player.send(1.1)),
    ("Start", lambda player: player.fails(Failure.CONNECT, 2.0)),
    ("Wait", lambda player: player.send(2.1)),
    ("Start", lambda player: player.responds(200, 3.0)),
    ("Commit", lambda player: player.send(BodyEnd(4.0))),
]


@pytest.mark.parametrize("how", ["close", "throw", "abandon"])
@pytest.mark.parametrize("steps", range(len(SCRIPT) + 1))
def test_closed_at_any_moment_everything_is_given_back(steps: int, how: str) -> None:
    breaker = CircuitBreaker(fail_max=10)
    cluster = limited_cluster(circuit_breaker=breaker, outlier_detection=OutlierDetection())
    runtime = runtime_of({"payments": cluster}, retries=RETRY)
    player = Player(runtime)
    for expected, step in SCRIPT[:steps]:
        assert type(player.last).__name__ == expected
        step(player)
    if how == "close" or player.last == ENDED:
        player.close()
    elif how == "abandon":
        abandon(player.flow, 5.0)
    else:
        with pytest.raises(KeyboardInterrupt):
            player.flow.throw(KeyboardInterrupt)
    assert held(runtime) == {}
