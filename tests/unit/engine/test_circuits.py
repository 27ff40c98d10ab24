"""The circuit breakers of endpoints and of routes, in calls, and what is answered while one refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pybreaker
import pytest

from meshlib.engine.circuits import PerEndpoint
from meshlib.engine.commands import Fail, Reply, Start, Wait
from meshlib.engine.plan import Attached
from meshlib.engine.runtime import Runtime
from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.cluster import CircuitBreaker, Cluster
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Failure
from meshlib.model.retry import RetryPolicy
from meshlib.model.route import Route, RouteAction
from meshlib.policy.breaker import Breaker, Transition
from meshlib.policy.pybreaker_bridge import PybreakerBridge
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, Player, get, held, limited_cluster, runtime_of

ENDPOINT = CircuitBreaker(fail_max=2, reset_timeout=10.0, scope="endpoint")
ANYTHING = RouteMatch(PathMatcher("prefix", "/"))


def cluster(policy: CircuitBreaker | None, addresses: Any = ADDRESSES, **more: Any) -> Cluster:
    return replace(static_cluster("payments", addresses, circuit_breaker=policy), **more)


def call(runtime: Runtime, now: float, *failing: str) -> str:
    """One call, which fails at the endpoints `failing`; where it went, or the flag of its failure."""
    player = Player(runtime, now=now)
    if not isinstance(player.last, Start):
        return flag_of(player)
    address = player.last.host.address
    player.responds(500 if address in failing else 200, now)
    player.body_ends(now)
    return address


def flag_of(player: Player) -> str:
    assert isinstance(player.last, Fail), player.last
    assert player.last.failure.circuit_open
    return str(player.last.failure.flag)


def test_an_endpoint_whose_breaker_is_open_is_out_of_balancing() -> None:
    changes: list[Transition] = []
    runtime = runtime_of({"payments": cluster(ENDPOINT)}, attached=Attached(on_transition=changes.append))
    bad = ADDRESSES[1]
    seen = [call(runtime, 0.0, bad) for _ in range(30)]
    assert seen.count(bad) == 2
    assert [(change.name, change.new) for change in changes] == [(f"payments@{bad}", "open")]
    assert changes[0].figures == {"consecutive_failures": 2, "fail_max": 2}
    state = runtime.state.cluster("payments")
    assert [cell.address for cell in state.endpoints.values() if not cell.usable] == [bad]


def test_its_probes_are_let_through_one_by_one_and_the_others_go_elsewhere() -> None:
    runtime = runtime_of({"payments": cluster(ENDPOINT)})
    bad = ADDRESSES[1]
    for _ in range(30):
        call(runtime, 0.0, bad)
    assert bad not in [call(runtime, 9.99) for _ in range(9)]
    players = [Player(runtime, now=10.0) for _ in range(12)]
    probes = [player for player in players if player.last.host.address == bad]
    assert len(probes) == 1
    probes[0].responds(503, 11.0)
    assert bad not in [call(runtime, 20.9) for _ in range(9)], "another reset timeout"
    again = [Player(runtime, now=21.0) for _ in range(12)]
    probe = next(player for player in again if player.last.host.address == bad)
    probe.close()
    assert [call(runtime, 21.0) for _ in range(12)].count(bad) == 4, "a probe given up makes room for one that answers"
    assert not runtime.state.cluster("payments").tripped


def test_two_probes_where_two_are_permitted() -> None:
    runtime = runtime_of({"payments": cluster(replace(ENDPOINT, half_open_permits=2, success_threshold=2))})
    bad = ADDRESSES[0]
    for _ in range(12):
        call(runtime, 0.0, bad)
    players = [Player(runtime, now=10.0) for _ in range(30)]
    assert sum(player.last.host.address == bad for player in players) == 2


@pytest.mark.parametrize("threshold", [0.0, 50.0])
def test_when_all_of_them_are_open_calls_fail_though_it_is_a_panic(threshold: float) -> None:
    runtime = runtime_of({"payments": cluster(ENDPOINT, healthy_panic_threshold=threshold)})
    assert [call(runtime, 0.0, *ADDRESSES) for _ in range(7)].count("UO") == 1
    assert held(runtime) == {}
    assert call(runtime, 10.0) in ADDRESSES


def test_in_panic_the_endpoints_whose_breakers_are_closed_are_found() -> None:
    addresses = [f"10.0.0.{number}:80" for number in range(1, 11)]
    runtime = runtime_of({"payments": cluster(replace(ENDPOINT, fail_max=1), addresses)})
    for _ in range(40):
        call(runtime, 0.0, *addresses[:9])
    assert runtime.plan.clusters["payments"].balancer.in_panic
    assert {call(runtime, 0.0) for _ in range(30)} == {addresses[9]}


def test_a_retry_goes_past_an_endpoint_that_has_just_been_taken_out() -> None:
    policy = replace(ENDPOINT, fail_max=1)
    runtime = runtime_of({"payments": cluster(policy, ADDRESSES[:2])}, retries=RetryPolicy(("5xx",), num_retries=1))
    player = Player(runtime)
    first = player.last.host.address
    player.responds(503, 1.0)
    player.send(1.0)
    assert isinstance(player.last, Wait)
    player.send(1.1)
    assert player.last.host.address != first


def test_a_hedge_asks_the_breakers_too() -> None:
    policy = RetryPolicy(("5xx",), num_retries=1, per_try_timeout=0.5)
    action = RouteAction("payments", retry_policy=policy, hedge_on_per_try_timeout=True)
    snapshot = static_snapshot(
        {"payments": cluster(replace(ENDPOINT, fail_max=1), ADDRESSES[:1])},
        routes={"payments": (Route(ANYTHING, action),)},
    )
    runtime = runtime_of(snapshot)
    runtime.state.cluster("payments").circuits[runtime.state.cluster("payments").endpoint(ADDRESSES[0])] = (
        breaker := Breaker(ENDPOINT, "x")
    )
    breaker.open(0.0)
    assert flag_of(Player(runtime, now=1.0)) == "UO"


def test_an_endpoint_that_has_left_takes_its_breaker_along() -> None:
    runtime = runtime_of({"payments": cluster(replace(ENDPOINT, fail_max=1))})
    for _ in range(3):
        call(runtime, 0.0, ADDRESSES[0])
    assert len(runtime.state.cluster("payments").tripped) == 1
    for addresses in (ADDRESSES[1:], ADDRESSES):
        following = static_snapshot({"payments": cluster(replace(ENDPOINT, fail_max=1), addresses)})
        runtime.install(runtime.compile(following, runtime.plan))
    state = runtime.state.cluster("payments")
    assert not state.tripped
    assert ADDRESSES[0] not in [cell.address for cell in state.circuits]
    assert ADDRESSES[0] in {call(runtime, 1.0) for _ in range(3)}


def test_without_breakers_every_endpoint_is_back() -> None:
    runtime = runtime_of({"payments": cluster(replace(ENDPOINT, fail_max=1))})
    for _ in range(3):
        call(runtime, 0.0, ADDRESSES[0])
    runtime.install(runtime.compile(static_snapshot({"payments": cluster(None)}), runtime.plan))
    assert {call(runtime, 1.0) for _ in range(3)} == set(ADDRESSES)
    assert not runtime.state.cluster("payments").circuits


def test_a_new_policy_holds_for_the_breakers_there_are() -> None:
    runtime = runtime_of({"payments": cluster(ENDPOINT)})
    call(runtime, 0.0)
    following = static_snapshot({"payments": cluster(replace(ENDPOINT, fail_max=1))})
    runtime.install(runtime.compile(following, runtime.plan))
    assert [call(runtime, 0.0, ADDRESSES[0]) for _ in range(9)].count(ADDRESSES[0]) == 1


def test_of_code_a_pybreaker_for_each_endpoint() -> None:
    made: dict[str, pybreaker.CircuitBreaker] = {}

    def make(address: str) -> PybreakerBridge:
        made[address] = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=10, name=address)
        return PybreakerBridge(made[address])

    runtime = runtime_of({"payments": cluster(None)}, attached=Attached(breakers={"payments": PerEndpoint(make)}))
    bad = ADDRESSES[2]
    assert [call(runtime, 0.0, bad) for _ in range(12)].count(bad) == 1
    assert {address: each.current_state for address, each in made.items()} == {
        **dict.fromkeys(ADDRESSES, "closed"),
        bad: "open",
    }
    players = [Player(runtime, now=10.0) for _ in range(12)]
    assert sum(player.last.host.address == bad for player in players) == 1
    made[bad].close()
    assert [call(runtime, 12.0) for _ in range(12)].count(bad) == 4, "and what user code does is seen"


# ---------------------------------------------------------------------- routes


def routed(policy: CircuitBreaker | None, **more: Any) -> Runtime:
    """`/slow` has a breaker, the rest of the host has none."""
    slow = Route(RouteMatch(PathMatcher("prefix", "/slow")), RouteAction("payments"), "slow", circuit_breaker=policy)
    routes = {"payments": (slow, Route(ANYTHING, RouteAction("payments"), "rest"))}
    return runtime_of(static_snapshot({"payments": ADDRESSES}, routes=routes), **more)


def asked(runtime: Runtime, path: str, now: float, status: int = 200) -> str:
    player = Player(runtime, get("payments", path), now=now)
    if not isinstance(player.last, Start):
        return flag_of(player)
    player.responds(status, now)
    player.body_ends(now)
    return str(status)


def test_the_breaker_of_a_route_is_the_routes_alone() -> None:
    changes: list[Transition] = []
    policy = CircuitBreaker(fail_max=2, reset_timeout=10.0)
    runtime = routed(policy, attached=Attached(on_transition=changes.append))
    assert [asked(runtime, "/slow", 0.0, 500) for _ in range(3)] == ["500", "500", "UO"]
    assert asked(runtime, "/quick", 0.0) == "200"
    assert changes[0].name == "payments/slow"
    assert (asked(runtime, "/slow", 10.0), asked(runtime, "/slow", 10.0)) == ("200", "200")


def test_it_is_kept_from_plan_to_plan_and_another_policy_begins_anew() -> None:
    policy = CircuitBreaker(fail_max=1, reset_timeout=10.0)
    runtime = routed(policy)
    asked(runtime, "/slow", 0.0, 500)
    same, other = routed(policy).plan.snapshot, routed(replace(policy, fail_max=3)).plan.snapshot
    renamed = replace(same, routes={name: replace(table, vhds=True) for name, table in same.routes.items()})
    runtime.install(runtime.compile(renamed, runtime.plan))
    assert asked(runtime, "/slow", 1.0) == "UO"
    runtime.install(runtime.compile(other, runtime.plan))
    assert asked(runtime, "/slow", 1.0) == "200"


def test_of_code_the_breaker_of_a_route_by_its_name() -> None:
    theirs = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=10)
    runtime = routed(
        CircuitBreaker(fail_max=100), attached=Attached(breakers={"payments/slow": PybreakerBridge(theirs)})
    )
    asked(runtime, "/slow", 0.0, 500)
    assert theirs.current_state == "open"
    assert (asked(runtime, "/slow", 0.0), asked(runtime, "/quick", 0.0)) == ("UO", "200")


def test_the_permits_of_route_cluster_and_endpoint_go_back_when_a_threshold_refuses() -> None:
    policy = CircuitBreaker(fail_max=1, reset_timeout=10.0)
    payments = replace(limited_cluster(addresses=ADDRESSES[:1], limits={"max_requests": 0}), circuit_breaker=ENDPOINT)
    route = Route(ANYTHING, RouteAction("payments"), "all", circuit_breaker=policy)
    runtime = runtime_of(static_snapshot({"payments": payments}, routes={"payments": (route,)}))
    endpoint = Breaker(ENDPOINT, "endpoint")
    runtime.state.cluster("payments").circuits[runtime.state.cluster("payments").endpoint(ADDRESSES[0])] = endpoint
    circuit = next(iter(runtime.filters.values())).breaker(None)
    circuit.half_open(0.0)
    endpoint.half_open(0.0)
    for _ in range(3):
        player = Player(runtime, now=1.0)
        assert isinstance(player.last, Fail)
        assert not player.last.failure.circuit_open
        player.send(None)
    assert circuit.permit(1.0) is not None
    assert endpoint.permit(1.0) is not None


# ---------------------------------------------------------------------- fallbacks

FALLBACK = FallbackResponse(200, (("x-from", "cache"),), b"[]", grpc_status=0)


@pytest.mark.parametrize("scope", ["cluster", "endpoint", "route"])
def test_what_is_answered_while_a_breaker_refuses(scope: Any) -> None:
    policy = CircuitBreaker(fail_max=1, fallback=FALLBACK, scope="endpoint" if scope == "endpoint" else "cluster")
    if scope == "route":
        runtime, path = routed(policy), "/slow"
    else:
        runtime, path = runtime_of({"payments": cluster(policy, ADDRESSES[:1])}), "/"
    ended: list[Any] = []
    player = Player(runtime, get("payments", path))
    player.responds(500, 0.0)
    player.body_ends(0.0)
    runtime.observers = (ended.append,)
    reply = Player(runtime, get("payments", path), now=1.0).last
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body, reply.grpc_status, reply.info.flag) == (200, b"[]", 0, "UO")
    assert reply.headers == [(b"x-from", b"cache"), (b"x-envoy-overloaded", b"true")]
    assert [(event.status, event.flag) for event in ended] == [(200, "UO")]
    assert held(runtime) == {}


def test_a_fallback_after_a_failed_attempt_has_the_routes_headers() -> None:
    policy = CircuitBreaker(fail_max=1, fallback=FALLBACK)
    said = HeaderMutations((HeaderValueOption("x-route", "yes"),))
    route = Route(
        ANYTHING,
        RouteAction("payments", retry_policy=RetryPolicy(("reset",), num_retries=1)),
        response_headers=said,
    )
    snapshot = static_snapshot({"payments": cluster(policy)}, routes={"payments": (route,)})
    player = Player(runtime_of(snapshot))
    player.fails(Failure.RESET, 1.0)
    reply = player.send(1.1)
    assert isinstance(reply, Reply)
    assert (b"x-route", b"yes") in reply.headers
