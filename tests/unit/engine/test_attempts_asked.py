"""What a request asks of its own call, and what few routes have: timeouts, retries, where retries go, what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import Commit, Fail, Reply, Start, Wait
from meshlib.flags import ResponseFlag
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import HeaderMatcher, Present, StringMatcher
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.model.retry import GrpcTimeout, RateLimitedBackOff, ResetHeader, RetryPolicy
from meshlib.model.route import RouteAction
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, Dice, Player, get, runtime_of

RETRY = RetryPolicy(("5xx",), num_retries=1)


def changed(
    snapshot: Snapshot, *, host: dict[str, Any] | None = None, route: Any = None, action: Any = None
) -> Snapshot:
    """A snapshot whose virtual hosts, routes and route actions have these fields."""

    def one(entry: Any) -> Any:
        found = replace(entry, **(route or {}))
        return replace(found, action=replace(found.action, **action)) if action else found

    routes = {
        name: replace(
            table,
            virtual_hosts=tuple(
                replace(each, routes=tuple(map(one, each.routes)), **(host or {})) for each in table.virtual_hosts
            ),
        )
        for name, table in snapshot.routes.items()
    }
    return replace(snapshot, routes=routes)


def plain(retries: RetryPolicy | None = None, timeout: float | None = 15.0, **options: Any) -> Snapshot:
    return static_snapshot({"payments": ADDRESSES}, retries=retries, timeout=timeout, **options)


def play(snapshot: Snapshot | None = None, *headers: tuple[bytes, bytes], **options: Any) -> Player:
    return Player(runtime_of(snapshot or plain(), rng=Dice(0.0)), get("payments", "/", *headers), **options)


def started(player: Player) -> Start:
    assert isinstance(player.last, Start), player.last
    return player.last


def names(player: Player) -> set[bytes]:
    return {name.lower() for name, _ in started(player).head.headers}


def test_a_request_sets_its_own_timeout_and_the_upstream_does_not_see_how() -> None:
    call = play(None, (b"X-Envoy-Upstream-Rq-Timeout-Ms", b"250"))
    assert started(call).deadline == 0.25
    assert b"x-envoy-upstream-rq-timeout-ms" not in names(call)
    assert (b"x-envoy-expected-rq-timeout-ms", b"250") in started(call).head.headers
    assert started(play(None, (b"x-envoy-upstream-rq-timeout-ms", b"0"))).deadline is None
    assert started(play(None, (b"x-envoy-upstream-rq-timeout-ms", b"soon"))).deadline == 15.0


def test_the_duration_of_the_stream_bounds_too() -> None:
    header = (b"x-envoy-upstream-stream-duration-ms", b"500")
    assert started(play(None, header)).deadline == 0.5
    assert started(play(None, header, (b"x-envoy-upstream-rq-timeout-ms", b"100"))).deadline == 0.1


def test_a_per_try_timeout_without_a_policy_ends_the_call() -> None:
    call = play(None, (b"x-envoy-upstream-rq-per-try-timeout-ms", b"100"))
    start = started(call)
    assert (start.deadline, start.final_deadline, start.on_deadline) == (0.1, 15.0, Failure.PER_TRY_TIMEOUT)
    assert isinstance(call.fails(Failure.PER_TRY_TIMEOUT, 0.1), Fail)


def test_a_request_asks_for_retries() -> None:
    call = play(None, (b"x-envoy-retry-on", b"5xx"), (b"x-envoy-max-retries", b"2"))
    call.responds(503, 0.1)
    call.send(0.1)
    call.send(0.1)
    assert started(call).attempt == 2
    assert names(call) & {b"x-envoy-retry-on", b"x-envoy-max-retries"} == set()


@pytest.mark.parametrize(
    ("headers", "status", "response"),
    [
        (((b"x-envoy-retry-on", b"retriable-status-codes"), (b"x-envoy-retriable-status-codes", b"418")), 418, ()),
        (
            ((b"x-envoy-retry-on", b"retriable-headers"), (b"x-envoy-retriable-header-names", b"X-Again")),
            200,
            ((b"x-again", b""),),
        ),
        (((b"x-envoy-retry-grpc-on", b"unavailable"),), 200, ((b"grpc-status", b"14"),)),
    ],
)
def test_every_condition_can_be_asked_for(headers: Any, status: int, response: Any) -> None:
    call = play(None, *headers)
    call.responds(status, 0.1, *response)
    assert "Discard" in call.kinds
    call = play(None, *headers)
    assert isinstance(call.responds(200, 0.1), Commit)


def test_more_retries_are_asked_for_than_the_policy_has() -> None:
    for asked, attempts in ((b"3", 4), (b"0", 1)):
        call = play(plain(RETRY), (b"x-envoy-max-retries", asked))
        while not isinstance(call.last, Commit):
            call.responds(503, 0.1) if isinstance(call.last, Start) else call.send(0.1)
        assert call.last.info.attempts == attempts


def test_where_nobody_trusts_them_the_headers_do_nothing_but_vanish() -> None:
    runtime = runtime_of(plain())
    runtime.trust_envoy_headers = False
    headers = ((b"x-envoy-upstream-rq-timeout-ms", b"250"), (b"x-envoy-retry-on", b"5xx"))
    call = Player(runtime, get("payments", "/", *headers))
    assert started(call).deadline == 15.0
    assert not names(call) & {b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-retry-on"}
    assert isinstance(call.responds(503, 0.1), Commit)


def test_a_response_in_place_of_a_timeout() -> None:
    call = play(None, (b"x-envoy-upstream-rq-timeout-alt-response", b"1"))
    reply = call.fails(Failure.TIMEOUT, 15.0)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.info.flag) == (204, b"", ResponseFlag.UT)
    assert isinstance(play(None, (b"x-envoy-upstream-rq-timeout-alt-response", b"1")).fails(Failure.RESET, 1.0), Fail)


def test_only_requests_with_the_right_headers_are_retried() -> None:
    matchers = (HeaderMatcher("x-retry", Present()), HeaderMatcher(":method", StringMatcher("exact", "PUT")))
    policy = replace(RETRY, retriable_request_headers=matchers, per_try_timeout=1.0)
    call = play(plain(policy))
    assert started(call).deadline == 1.0
    assert isinstance(call.responds(503, 0.1), Commit)
    call = play(plain(policy), (b"x-retry", b""))
    call.responds(503, 0.1)
    assert "Discard" in call.kinds
    call = play(plain(policy), (b"x-envoy-retry-on", b"5xx"), (b"x-envoy-max-retries", b"5"))
    assert isinstance(call.responds(503, 0.1), Commit)


def limited(*headers: ResetHeader, longest: float = 300.0) -> Snapshot:
    policy = replace(RETRY, retry_on=("retriable-status-codes",), retriable_status_codes=(429,))
    return plain(replace(policy, rate_limited_back_off=RateLimitedBackOff(headers, longest)), timeout=None)


@pytest.mark.parametrize(
    ("response", "dice", "waits"),
    [
        ((b"retry-after", b"2"), 0.0, 2.0),
        ((b"Retry-After", b"2"), 0.5, 2.5),
        ((b"retry-after", b"301"), 0.0, 0.0),
        ((b"retry-after", b"0"), 0.0, 0.0),
        ((b"retry-after", b"Fri, 21 Nov 2026 10:00:00 GMT"), 0.0, 0.0),
        ((b"x-reset", b"1007"), 0.0, 7.0),
        ((b"x-reset", b"999"), 0.0, 0.0),
        ((b"x-other", b"5"), 0.0, 0.0),
    ],
)
def test_a_response_says_when_to_come_back(response: tuple[bytes, bytes], dice: float, waits: float) -> None:
    snapshot = limited(ResetHeader("retry-after"), ResetHeader("x-reset", "UNIX_TIMESTAMP"))
    runtime = runtime_of(snapshot, rng=Dice(dice))
    runtime.wall_clock = lambda: 1000.0
    call = Player(runtime, get())
    call.responds(429, 0.1, response)
    call.send(0.1)
    assert isinstance(call.last, Wait)
    exponential = dice * 0.025
    assert call.last.seconds == pytest.approx(waits or exponential)
    stats = runtime.state.cluster("payments").stats
    assert stats["upstream_rq_retry_backoff_ratelimited"].value == (1 if waits else 0)
    assert stats["upstream_rq_retry_backoff_exponential"].value == (0 if waits else 1)


def test_labels_keep_retries_away() -> None:
    def endpoint(port: int, **labels: Any) -> LbEndpoint:
        metadata = Metadata((("envoy.lb", Struct(tuple(labels.items()))),))
        return LbEndpoint(Address("10.0.0.1", port), metadata=metadata)

    endpoints = (endpoint(1), endpoint(2, canary=True), endpoint(3, stage="old", zone="a"), endpoint(4, stage="new"))
    cluster = replace(
        static_cluster("payments", ADDRESSES),
        load_assignment=ClusterLoadAssignment("payments", (LocalityLbEndpoints(endpoints),)),
    )
    policy = replace(
        RETRY,
        num_retries=9,
        omit_canary_hosts=True,
        omit_host_metadata=(Struct((("stage", "old"),)),),
        host_selection_retry_max_attempts=20,
    )
    call = Player(runtime_of(static_snapshot({"payments": cluster}, retries=policy)), get())
    hosts = []
    while not isinstance(call.last, Commit):
        if isinstance(call.last, Start):
            hosts.append(call.last.host.endpoint.address.port)
            call.responds(503, 0.1)
        else:
            call.send(0.1)
    assert set(hosts[1:]) == {1, 4}


def test_priorities_that_were_tried_are_left_out_and_let_in_again() -> None:
    assignment = ClusterLoadAssignment(
        "payments",
        tuple(
            LocalityLbEndpoints((LbEndpoint(Address("10.0.0.1", 10 + priority)),), priority=priority)
            for priority in range(3)
        ),
    )
    cluster = replace(static_cluster("payments", ADDRESSES), load_assignment=assignment)
    policy = replace(RETRY, num_retries=5, previous_priorities=1)
    call = Player(runtime_of(static_snapshot({"payments": cluster}, retries=policy)), get())
    priorities = []
    while not isinstance(call.last, Commit):
        if isinstance(call.last, Start):
            priorities.append(call.last.host.priority)
            call.responds(503, 0.1)
        else:
            call.send(0.1)
    assert priorities == [0, 1, 2, 0, 1, 2]


def test_a_body_that_is_too_long_to_keep_is_not_sent_again() -> None:
    snapshot = changed(plain(RETRY), host={"request_body_buffer_limit": 10})
    call = play(snapshot, (b"content-length", b"11"))
    commit = call.responds(503, 0.1)
    assert isinstance(commit, Commit)
    assert commit.info.why_not_retried == "not-replayable"
    stats = snapshot_stats(call)
    assert stats["retry_or_shadow_abandoned"].value == 1
    call = play(snapshot, (b"content-length", b"10"))
    call.responds(503, 0.1)
    assert "Discard" in call.kinds
    call = play(changed(snapshot, route={"request_body_buffer_limit": 20}), (b"content-length", b"11"))
    call.responds(503, 0.1)
    assert "Discard" in call.kinds


def snapshot_stats(call: Player) -> Any:
    return call.commands[0].cluster.stats  # type: ignore[union-attr]


def test_attempts_are_counted_in_the_response_too() -> None:
    call = play(changed(plain(RETRY), host={"include_attempt_count_in_response": True}))
    call.responds(503, 0.1)
    call.send(0.1)
    call.send(0.1)
    commit = call.responds(200, 0.2, (b"X-Envoy-Attempt-Count", b"7"), (b"a", b"b"))
    assert isinstance(commit, Commit)
    assert commit.headers == [(b"a", b"b"), (b"x-envoy-attempt-count", b"2")]


def test_a_retry_after_a_timeout_says_so() -> None:
    policy = replace(RETRY, num_retries=2, per_try_timeout=0.5)
    call = play(changed(plain(policy), host={"include_is_timeout_retry_header": True}))
    assert b"x-envoy-is-timeout-retry" not in names(call)
    for failure, told in ((Failure.PER_TRY_TIMEOUT, b"true"), (Failure.RESET, b"false")):
        call.fails(failure, 0.5)
        call.send(0.5)
        assert (b"x-envoy-is-timeout-retry", told) in started(call).head.headers


def grpc_call(bound: GrpcTimeout, left: float | None, **route: Any) -> float | None:
    snapshot = changed(plain(**route), action={"grpc_timeout": bound})
    headers = [(b"content-type", b"application/grpc")]
    if left is not None:
        headers.append((b"grpc-timeout", b"%dm" % int(left * 1000)))
    head = RequestHead("POST", "http", "payments", "/", headers)
    return started(Player(runtime_of(snapshot), head)).deadline


@pytest.mark.parametrize(
    ("bound", "left", "deadline"),
    [
        (GrpcTimeout(4.0, 0.5, True), 2.0, 1.5),
        (GrpcTimeout(4.0, 0.5, True), 9.0, 4.0),
        (GrpcTimeout(4.0, 0.5, True), None, 4.0),
        (GrpcTimeout(4.0, 3.0, True), 2.0, 2.0),
        (GrpcTimeout(0.0, 0.0, True), None, None),
        (GrpcTimeout(0.0, 0.0, True), 2.0, 2.0),
        (GrpcTimeout(4.0), 2.0, 2.0),
        (GrpcTimeout(4.0), 9.0, 4.0),
        (GrpcTimeout(4.0, 1.0), 9.0, 3.0),
        (GrpcTimeout(0.0, 1.0), 9.0, 8.0),
    ],
)
def test_a_grpc_callers_timeout(bound: GrpcTimeout, left: float | None, deadline: float | None) -> None:
    timeout = 15.0 if bound.instead_of_route else None
    assert grpc_call(bound, left, timeout=timeout) == deadline


def test_other_calls_have_the_routes_timeout() -> None:
    snapshot = changed(plain(), action={"grpc_timeout": GrpcTimeout(4.0, 0.5, True)})
    assert started(play(snapshot)).deadline == 15.0


def listening(snapshot: Snapshot, router: RouterFilter) -> Snapshot:
    (table,) = snapshot.routes.values()
    manager = HttpConnectionManager(table, (HttpFilter("router", router),))
    return replace(snapshot, routes={}, listeners={"out": Listener("out", managers=(manager,), port=80)})


def test_a_malformed_header_that_the_router_is_strict_about_is_refused() -> None:
    snapshot = listening(plain(), RouterFilter(strict_check_headers=("x-envoy-max-retries",)))
    call = play(snapshot, (b"x-envoy-max-retries", b"many"))
    assert isinstance(call.last, Reply)
    assert (call.last.status, call.last.info.flag) == (400, ResponseFlag.IH)
    assert call.last.body == b"invalid header 'x-envoy-max-retries' with value 'many'"
    assert isinstance(play(snapshot, (b"x-envoy-max-retries", b"2")).last, Start)


def test_the_timeout_of_the_mesh_before_is_respected_where_the_router_is_told_to() -> None:
    header = (b"x-envoy-expected-rq-timeout-ms", b"70")
    assert started(play(None, header)).deadline == 15.0
    snapshot = listening(plain(), RouterFilter(respect_expected_rq_timeout=True))
    assert started(play(snapshot, header)).deadline == 0.07


def test_an_attempt_lasts_no_longer_than_the_cluster_lets_its_streams() -> None:
    cluster = replace(static_cluster("payments", ADDRESSES), max_stream_duration=0.5)
    call = play(static_snapshot({"payments": cluster}, retries=RetryPolicy(("reset",), 1)))
    start = started(call)
    assert (start.deadline, start.final_deadline) == (0.5, 0.5)
    call.fails(start.on_deadline, 0.5)
    call.send(0.5)
    assert started(call).final_deadline == 1.0


def test_an_action_without_any_of_it_has_no_extras() -> None:
    runtime = runtime_of(plain(RETRY))
    host = runtime.plan.outbound.find("http", "payments")
    assert host is not None
    assert isinstance(host.routes[0].action, RouteAction)
    assert host.routes[0].extras is None
