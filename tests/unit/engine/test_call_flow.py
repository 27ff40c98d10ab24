"""The stages of a call before its first attempt, each way out of each, as lists of values."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshlib.engine.commands import Fail, Fetch, PassThrough, Query, Reply, Start, abandon
from meshlib.engine.events import CallEnded, RateLimited
from meshlib.engine.plan import Attached
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment, DropOverload
from meshlib.model.filters import HttpFilter, LocalRateLimit, RouterFilter, TokenBucket
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import ALWAYS, HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    NonForwardingAction,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.model.snapshot import Snapshot
from meshlib.policy.shared_limit import SharedRateLimit, SharedVerdict
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, ENDED, Dice, Player, get, held, runtime_of

ANYTHING = RouteMatch(PathMatcher("prefix", "/"))
REFUSED = SharedVerdict(False, 1, 0, 60.0, "store", None)
ALLOWED = SharedVerdict(True, 1, 0, 60.0, "store", None)


def routed(*routes: Route, **options: Any) -> Runtime:
    return runtime_of(static_snapshot({"payments": ADDRESSES}, routes={"payments": routes}, **options))


def told(runtime: Runtime) -> list[Any]:
    seen: list[Any] = []
    runtime.observers = (seen.append,)
    return seen


def ends_with(player: Player, flag: str) -> Fail:
    """The flow failed with the flag, holds nothing, and asks for nothing more."""
    command = player.last
    assert isinstance(command, Fail)
    assert command.failure.flag == flag
    assert player.send(None) == ENDED
    return command


# ---------------------------------------------------------------------- 1 configuration


@pytest.fixture
def on_demand() -> Runtime:
    """A source that is asked for each authority, and has said nothing yet."""
    return runtime_of(Snapshot(on_demand=True))


def test_what_is_not_there_yet_is_fetched_and_then_used(on_demand: Runtime) -> None:
    player = Player(on_demand, now=100.0)
    assert player.last == Fetch("payments", 115.0)
    on_demand.install(on_demand.compile(replace(static_snapshot({"payments": ADDRESSES}), on_demand=True), None))
    start = player.send(103.0)
    assert isinstance(start, Start)
    assert start.deadline == 103.0 + 15.0, "the route's timeout begins when there is a route"


def test_a_fetch_ends_at_the_callers_deadline(on_demand: Runtime) -> None:
    assert Player(on_demand, now=100.0, deadline=101.0).last == Fetch("payments", 101.0)


def test_configuration_that_does_not_come_is_nfcf(on_demand: Runtime) -> None:
    seen = told(on_demand)
    player = Player(on_demand)
    player.send(15.0)
    failed = ends_with(player, "NFCF")
    assert "'payments' arrived within 15 s" in failed.failure.reason
    assert [(type(event), event.flag) for event in seen] == [(CallEnded, "NFCF")]


def test_a_caller_that_goes_away_while_configuration_is_fetched_is_told_of(on_demand: Runtime) -> None:
    seen = told(on_demand)
    player = Player(on_demand, now=100.0)
    abandon(player.flow, 102.5)
    (ended,) = seen
    assert isinstance(ended, CallEnded)
    assert (ended.flag, ended.info.flag, ended.status, ended.authority) == ("DC", "DC", None, "payments")
    assert (ended.at, ended.duration) == (102.5, 2.5)


@pytest.mark.parametrize("unknown, kind", [("pass_through", PassThrough), ("reject", Fail)])
def test_a_host_nothing_speaks_for(unknown: Any, kind: type) -> None:
    head = get("elsewhere")
    player = Player(runtime_of(unknown_hosts=unknown), head)
    assert isinstance(player.last, kind)
    if isinstance(player.last, PassThrough):
        assert player.last.head is head
    else:
        ends_with(player, "NR")


def test_a_host_known_to_be_absent_is_not_fetched() -> None:
    runtime = runtime_of(Snapshot(on_demand=True, absent=frozenset({"payments"})), unknown_hosts="pass_through")
    assert Player(runtime).kinds == ["PassThrough"]


def test_a_listener_without_a_virtual_host_for_its_name_is_all_there_is() -> None:
    """Nothing more can come, and the control plane speaks for the name: the call neither waits nor passes."""
    other = RouteConfiguration("routes", (VirtualHost("other", ("other",), ()),))
    manager = HttpConnectionManager(other, (HttpFilter("router", RouterFilter()),))
    listeners = {"payments": Listener("payments", (manager,), api=True)}
    snapshot = Snapshot(listeners=MappingProxyType(listeners), on_demand=True)
    ends_with(Player(runtime_of(snapshot, unknown_hosts="pass_through")), "NR")


def test_a_call_keeps_the_plan_it_began_with() -> None:
    runtime = runtime_of({"payments": ADDRESSES[:1]}, retries=1)
    player = Player(runtime)
    runtime.install(runtime.compile(static_snapshot({"payments": ADDRESSES[1:2]}), runtime.plan))
    player.responds(503, 1.0)
    player.send(1.0)
    again = player.send(1.1)
    assert again.host.address == ADDRESSES[0]
    assert Player(runtime).last.host.address == ADDRESSES[1]
    assert again.cluster is not runtime.plan.clusters["payments"]


# ---------------------------------------------------------------------- 2 route


def test_no_route_is_nr() -> None:
    only = RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher("x-a", StringMatcher("exact", "1")),))
    runtime = routed(Route(only, RouteAction("payments")))
    failed = ends_with(Player(runtime, get("payments", "/charge?card=1")), "NR")
    assert failed.failure.reason == "no route of virtual host 'payments' matches GET /charge"
    assert isinstance(Player(runtime, get("payments", "/", (b"X-A", b"1"))).last, Start)


def test_a_cluster_that_does_not_exist_is_nc() -> None:
    runtime = routed(Route(ANYTHING, RouteAction("gone"), name="lost"))
    failed = ends_with(Player(runtime), "NC")
    assert failed.failure.cluster == "gone"
    assert "lost" in failed.failure.route


def test_a_missing_cluster_header_is_nc() -> None:
    runtime = routed(Route(ANYTHING, RouteAction(ClusterHeader("x-cluster"))))
    ends_with(Player(runtime), "NC")
    assert isinstance(Player(runtime, get("payments", "/", (b"x-cluster", b"payments"))).last, Start)


def test_a_servers_route_is_not_for_clients() -> None:
    ends_with(Player(routed(Route(ANYTHING, NonForwardingAction()))), "NC")


# ---------------------------------------------------------------------- 3 filters, 4 answers


ONE_AN_HOUR = LocalRateLimit("quota", TokenBucket(1, 1, 3600.0), ALWAYS, ALWAYS)


def limited(*routes: Route, clusters: dict[str, Any] | None = None, limit: LocalRateLimit = ONE_AN_HOUR) -> Runtime:
    base = static_snapshot(clusters or {"payments": ADDRESSES}, routes={"payments": routes})
    (table,) = base.routes.values()
    filters = (HttpFilter("limit", limit), HttpFilter("router", RouterFilter()))
    listener = Listener("payments", (HttpConnectionManager(table, filters),), api=True)
    return runtime_of(replace(base, routes=MappingProxyType({}), listeners=MappingProxyType({"payments": listener})))


def test_a_filter_answers_before_anything_is_balanced() -> None:
    runtime = limited(Route(ANYTHING, RouteAction("payments")))
    seen = told(runtime)
    first = Player(runtime)
    refused = Player(runtime)
    assert isinstance(first.last, Start)
    assert isinstance(refused.last, Reply)
    assert (refused.last.status, refused.last.body, refused.last.info.flag) == (429, b"local_rate_limited", "RL")
    assert refused.send(None) == ENDED
    assert [(type(event), getattr(event, "status", None)) for event in seen] == [(RateLimited, None), (CallEnded, 429)]
    assert len(runtime.state.clusters["payments"].default.requests) == 1
    first.close()


@pytest.mark.parametrize("exhausted, grpc_status", [(False, None), (True, 8)])
def test_a_rate_limit_says_what_a_grpc_call_ends_with(exhausted: bool, grpc_status: int | None) -> None:
    limit = LocalRateLimit("quota", TokenBucket(0), ALWAYS, ALWAYS, rate_limited_as_resource_exhausted=exhausted)
    refused = Player(limited(Route(ANYTHING, RouteAction("payments")), limit=limit)).last
    assert isinstance(refused, Reply)
    assert (refused.status, refused.grpc_status) == (429, grpc_status)


def test_filters_come_before_direct_responses() -> None:
    runtime = limited(Route(ANYTHING, DirectResponseAction(200, b"fine")))
    assert [Player(runtime).last.status for _ in range(2)] == [200, 429]


def test_a_direct_response_with_the_routes_headers() -> None:
    stamp = HeaderMutations(add=(HeaderValueOption("x-by", "mesh"),))
    runtime = routed(Route(ANYTHING, DirectResponseAction(404, b"none"), response_headers=stamp))
    player = Player(runtime)
    assert isinstance(player.last, Reply)
    headers = [(b"x-by", b"mesh"), (b"content-type", b"text/plain")]
    assert (player.last.status, player.last.headers, player.last.body) == (404, headers, b"none")
    assert player.send(None) == ENDED


@pytest.mark.parametrize("status, told", [(200, False), (201, True), (202, False), (300, True), (399, True)])
def test_a_direct_response_of_something_created_or_moved_says_where_as_in_envoy(status: int, told: bool) -> None:
    player = Player(routed(Route(ANYTHING, DirectResponseAction(status))), get("payments", "/a?b"))
    assert isinstance(player.last, Reply)
    assert player.last.headers == ([(b"location", b"http://payments/a?b")] if told else [])


def test_a_redirect() -> None:
    runtime = routed(Route(ANYTHING, RedirectAction(302, host_redirect="other", prefix_rewrite="/new/")))
    player = Player(runtime, get("payments", "/old?x=1"))
    assert (player.last.status, player.last.headers) == (302, [(b"location", b"http://other/new/old?x=1")])


def test_an_original_destination_cluster_passes_through() -> None:
    snapshot = static_snapshot({"payments": Cluster("payments", type="ORIGINAL_DST")})
    assert Player(runtime_of(snapshot)).kinds == ["PassThrough"]


# ---------------------------------------------------------------------- 5 what protects the cluster


def with_limits(*names: str) -> Runtime:
    limits = [SharedRateLimit("1/hour", "memory://", name=name) for name in names]
    return runtime_of(attached=Attached(limits={"payments": limits}))


def test_every_shared_limit_is_asked_in_order() -> None:
    player = Player(with_limits("first", "second"))
    assert isinstance(player.last, Query)
    assert isinstance(player.send((ALLOWED, 0.05)), Query)
    start = player.send((ALLOWED, 0.1))
    assert isinstance(start, Start)
    assert start.deadline == 0.1 + 15.0, "the route's timeout is for the upstream, not for the limit's store"
    player.close()


@pytest.mark.parametrize("flag", [None, "RLSE"])
def test_the_first_limit_that_refuses_ends_the_call(flag: Any) -> None:
    runtime = with_limits("first", "second")
    seen = told(runtime)
    player = Player(runtime)
    player.send((replace(REFUSED, flag=flag), 0.1))
    assert "'first'" in ends_with(player, flag or "RL").failure.reason
    assert [type(event) for event in seen] == [RateLimited, CallEnded]
    assert held(runtime) == {}


def test_a_caller_that_goes_away_while_a_limit_is_asked_is_told_of() -> None:
    runtime = with_limits("first", "second")
    seen = told(runtime)
    player = Player(runtime, now=1.0)
    assert isinstance(player.send((ALLOWED, 1.5)), Query)
    abandon(player.flow, 3.0)
    (ended,) = seen
    assert isinstance(ended, CallEnded)
    assert (ended.flag, ended.info.cluster, ended.duration) == ("DC", "payments", 2.0)
    assert held(runtime) == {}


@pytest.mark.parametrize("draw, kind", [(0.29, Fail), (0.31, Start)])
def test_a_share_of_the_calls_is_dropped_on_overload(draw: float, kind: type) -> None:
    cluster = static_cluster("payments", ADDRESSES)
    assert isinstance(cluster.load_assignment, ClusterLoadAssignment)
    load = replace(cluster.load_assignment, drop_overloads=(DropOverload("busy", 0.3),))
    player = Player(runtime_of({"payments": replace(cluster, load_assignment=load)}, rng=Dice(draw)))
    assert isinstance(player.last, kind)
    if kind is Fail:
        assert "'busy'" in ends_with(player, "DO").failure.reason


def test_closing_before_the_first_answer_holds_nothing(on_demand: Runtime) -> None:
    for runtime in (on_demand, with_limits("one"), routed(Route(ANYTHING, DirectResponseAction(200)))):
        Player(runtime).close()
        assert held(runtime) == {}


def test_an_observer_that_raises_is_dropped_and_the_call_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    runtime = runtime_of()
    seen: list[Any] = []

    def broken(event: Any) -> None:
        raise ValueError("an observer's own mistake")

    runtime.observers = (broken, seen.append)
    player = Player(runtime)
    player.responds(200, 1.0)
    assert player.body_ends(2.0) == ENDED
    assert len(seen) == 2
    assert runtime.observers == (seen.append,)
    assert "observer" in caplog.text
