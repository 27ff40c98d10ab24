"""What the engine does for gRPC alone: streams judged by their trailers, transparent retries, pushback, broken wires as
statuses; and the driver that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshlib.context import NO_CONTEXT, CallContext
from meshlib.drivers.callback import CallbackDriver
from meshlib.drivers.resumed import Resumed
from meshlib.engine.call import call_flow
from meshlib.engine.commands import BodyEnd, Commit, Discard, Fail, Start, Wait
from meshlib.engine.events import CallEnded
from meshlib.engine.runtime import Runtime
from meshlib.grpc.metadata import head_of
from meshlib.model.cluster import CircuitBreaker, OutlierDetection
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.outcome import GRPC_STATUS_PENDING, Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.model.route import RetryPolicy, Route, RouteAction, WeightedCluster, WeightedClusters
from meshlib.policy.classify import classify
from meshlib.policy.retry import parse_pushback
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import Dice, Player, at_time, held, runtime_of

ADDRESS = "10.0.0.1:80"


def head(streams: bool = False) -> RequestHead:
    return head_of("payments", "/shop.Payments/Charge", None, NO_CONTEXT, streams)[0]


def runtime(*retry_on: str, **cluster: Any) -> Runtime:
    policy = RetryPolicy(retry_on, num_retries=1) if retry_on else None
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("payments", timeout=10.0, retry_policy=policy))
    clusters = {"payments": static_cluster("payments", [ADDRESS], **cluster)}
    return runtime_of(clusters, routes={"payments": [route]}, rng=Dice(0.5))


def says(player: Player, grpc_status: int, *headers: tuple[bytes, bytes]) -> Any:
    return player.send(at_time(Outcome(200, list(headers), grpc_status=grpc_status), 1.0))


def breaks(player: Player, failure: Failure, grpc_status: int | None) -> Any:
    return player.send(at_time(Outcome(failure=failure, grpc_status=grpc_status), 1.0))


@pytest.mark.parametrize(("status", "kept"), [(0, 0), (5, 0), (14, 1)])
def test_a_stream_is_judged_by_its_trailers(status: int, kept: int) -> None:
    mesh = runtime(outlier_detection=OutlierDetection(consecutive_5xx=2))
    player = Player(mesh, head())
    says(player, GRPC_STATUS_PENDING)
    cluster = mesh.state.cluster("payments")
    assert cluster.stats["upstream_rq_completed"].value == 0
    player.send(BodyEnd(2.0, None, status))
    assert ("consecutive_5xx" in cluster.streaks.get(cluster.endpoint(ADDRESS), ())) == bool(kept)
    assert cluster.stats["upstream_rq_completed"].value == 1
    assert held(mesh) == {}


def test_streams_that_break_in_a_row_eject_their_endpoint() -> None:
    mesh = runtime(outlier_detection=OutlierDetection(consecutive_5xx=2, max_ejection_percent=100))
    for _ in range(2):
        player = Player(mesh, head())
        says(player, GRPC_STATUS_PENDING)
        player.send(BodyEnd(2.0, None, 14))
    assert mesh.state.cluster("payments").endpoint(ADDRESS).ejected


@pytest.mark.parametrize(
    ("ends", "state"), [((None, 0), "closed"), ((None, 14), "open"), ((Failure.RESET, None), "open")]
)
def test_a_breakers_probe_lasts_as_long_as_its_stream(ends: Any, state: str) -> None:
    mesh = runtime(circuit_breaker=CircuitBreaker(fail_max=1, reset_timeout=1.0))
    breaker = mesh.plan.clusters["payments"].breaker
    player = Player(mesh, head())
    breaks(player, Failure.RESET, 14)
    player = Player(mesh, head(), 5.0)
    says(player, GRPC_STATUS_PENDING)
    assert breaker is not None
    assert breaker.permit(5.5) is None, "the probe is under way"
    player.send(BodyEnd(6.0, *ends))
    assert (breaker.permit(6.0) is not None) is (state == "closed")


def test_an_ended_call_tells_its_status() -> None:
    mesh = runtime()
    told: list[Any] = []
    mesh.observers = (told.append,)
    player = Player(mesh, head())
    commit = says(player, GRPC_STATUS_PENDING)
    player.send(BodyEnd(2.0, None, 13))
    assert [(event.status, event.info.grpc_status) for event in told if isinstance(event, CallEnded)] == [(200, 13)]
    assert commit.info.grpc_status == 13


def test_a_call_nobody_has_seen_is_sent_once_more() -> None:
    player = Player(runtime(), head())
    assert breaks(player, Failure.REFUSED_STREAM, 14) == Wait(0.0)
    assert isinstance(player.send(1.0), Start)
    failed = breaks(player, Failure.REFUSED_STREAM, 14)
    assert isinstance(failed, Fail)
    assert failed.failure.attempts == 2


@pytest.mark.parametrize(
    ("failure", "status", "replayable"),
    [
        (Failure.RESET, 14, True),
        (Failure.REFUSED_STREAM, None, True),
        (Failure.REFUSED_STREAM, 14, False),
    ],
    ids=["seen, perhaps", "not gRPC", "cannot be sent again"],
)
def test_any_other_failure_is_final_without_a_policy(failure: Failure, status: int | None, replayable: bool) -> None:
    player = Player(runtime(), head(), replayable=replayable)
    assert isinstance(breaks(player, failure, status), Fail)


def test_a_broken_wire_is_a_status_to_grpcs_words() -> None:
    assert isinstance(breaks(Player(runtime("unavailable"), head()), Failure.RESET, 14), Wait)
    assert isinstance(breaks(Player(runtime("unavailable"), head()), Failure.RESET, None), Fail)
    assert isinstance(breaks(Player(runtime("unavailable"), head()), Failure.RESET, 13), Fail)
    assert classify(Outcome(failure=Failure.CONNECT, grpc_status=14)).satisfies("connect-failure")


def test_pushback_takes_the_place_of_back_off() -> None:
    asked = (b"grpc-retry-pushback-ms", b"700")
    player = Player(runtime("unavailable"), head())
    assert isinstance(says(player, 14, asked), Discard)
    assert player.send(1.0) == Wait(0.7)
    forbidden = says(Player(runtime("unavailable"), head()), 14, (b"grpc-retry-pushback-ms", b"-1"))
    assert isinstance(forbidden, Commit)
    assert forbidden.info.why_not_retried == "pushback"


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), ("250", 0.25), ("-1", None), ("", None), ("1e3", None), ("9" * 11, None)]
)
def test_pushback_as_it_is_written(value: str, seconds: float | None) -> None:
    assert parse_pushback(value) == seconds


@pytest.mark.parametrize(("streams", "deadline"), [(False, 10.0), (True, None)])
def test_the_routes_timeout_is_for_requests_that_end(streams: bool, deadline: float | None) -> None:
    assert Player(runtime(), head(streams)).last.final_deadline == deadline


class Wire:
    """Attempts that end when the test says so."""

    def __init__(self) -> None:
        self.ended: list[Callable[[Outcome], None]] = []
        self.discarded: list[Outcome] = []

    def begin(self, start: Start, ended: Callable[[Outcome], None]) -> None:
        self.ended.append(ended)

    def discard(self, outcome: Outcome) -> None:
        self.discarded.append(outcome)


class Nobody:
    def wait_for(self, authority: str, deadline: float) -> None:
        raise AssertionError("nothing has to be waited for")


def test_the_callback_driver_goes_on_with_whoever_has_news() -> None:
    mesh = runtime()
    wire, done = Wire(), list[Any]()
    driver = CallbackDriver(flow_of(mesh), wire, Nobody(), done.append)
    driver.start()
    assert done == []
    wire.ended[0](Outcome(200, grpc_status=0))
    assert isinstance(done[0], Commit)
    assert held(mesh) == {"default.requests": 1, ADDRESS: 1}


def test_the_callback_driver_gives_up_when_the_attempt_ends() -> None:
    mesh = runtime("unavailable")
    wire, done = Wire(), list[Any]()
    driver = CallbackDriver(flow_of(mesh), wire, Nobody(), done.append)
    driver.start()
    driver.give_up()
    assert done == []
    wire.ended[0](Outcome(200, grpc_status=14))
    assert done == [None]
    assert held(mesh) == {}


def test_a_resumed_flow_gives_its_command_again() -> None:
    mesh = runtime()
    flow = flow_of(mesh)
    start = next(flow)
    resumed = Resumed(flow, start)
    assert next(resumed) is start
    assert isinstance(resumed.send(at_time(Outcome(200, grpc_status=0), 1.0)), Commit)
    resumed.close()
    assert held(mesh) == {}


def flow_of(mesh: Runtime) -> Any:
    return call_flow(mesh, head(), 0.0)


def places(mesh: Runtime, *, calls: int) -> list[str]:
    """The clusters that many calls alike go to."""
    found = []
    for _ in range(calls):
        player = Player(mesh, head())
        found.append(player.last.cluster.name)
        says(player, 0)
        player.send(BodyEnd(2.0))
    return found


def test_calls_alike_share_a_head_and_a_decision_until_the_plan_is_another() -> None:
    mesh = runtime_of({"a": [ADDRESS], "b": [ADDRESS]}, routes={"payments": "a"})
    assert head() is head()
    assert places(mesh, calls=2) == ["a", "a"]
    assert list(mesh.plan.decided) == [head()]
    turned = static_snapshot({"a": [ADDRESS], "b": [ADDRESS]}, routes={"payments": "b"})
    mesh.install(mesh.compile(turned, mesh.plan))
    assert places(mesh, calls=2) == ["b", "b"]


def test_a_call_with_metadata_or_a_context_has_a_head_of_its_own() -> None:
    mesh = runtime_of({"a": [ADDRESS]}, routes={"payments": "a"})
    with_metadata = head_of("payments", "/a/b", (("tenant", "x"),), NO_CONTEXT)[0]
    with_context = head_of("payments", "/a/b", None, CallContext(headers=((b"tenant", b"x"),)))[0]
    stream = head(streams=True)
    for one in (with_metadata, with_context, stream):
        assert isinstance(Player(mesh, one).last, Start)
    assert mesh.plan.decided == {}


def test_what_chance_decides_is_drawn_for_each_call() -> None:
    clusters = {"a": [ADDRESS], "b": [ADDRESS]}
    halves = WeightedClusters((WeightedCluster("a", 1), WeightedCluster("b", 1)))
    weighted = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction(halves))
    mesh = runtime_of(clusters, routes={"payments": [weighted]}, rng=Dice(0.1, 0.9, 0.1, 0.9))
    assert set(places(mesh, calls=4)) == {"a", "b"}
    some = RouteMatch(PathMatcher("prefix", "/"), runtime_fraction=FractionalPercent(50))
    canary = [Route(some, RouteAction("b")), Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("a"))]
    mesh = runtime_of(clusters, routes={"payments": canary}, rng=Dice(0.1, 0.9, 0.1, 0.9, 0.1, 0.9))
    assert set(places(mesh, calls=6)) == {"a", "b"}
