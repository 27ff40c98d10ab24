"""Clusters that ask the request: endpoints by header or metadata, hash policies of the balancer's own."""

from dataclasses import replace
from typing import Any

import pytest

from meshlib.engine.commands import Start
from meshlib.engine.runtime import Runtime
from meshlib.model.endpoint import Address, HealthStatus, LbEndpoint
from meshlib.model.lb import (
    LbSubsetConfig,
    Maglev,
    OverrideHost,
    OverrideHostSource,
    PickFirst,
    RingHash,
    SubsetSelector,
)
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy, RetryPolicy, Route, RouteAction, WeightedCluster, WeightedClusters
from meshlib.sources.static import static_cluster, static_snapshot
from parts.flow import ADDRESSES, Player, get, runtime_of

BY_HEADER = OverrideHost((OverrideHostSource("x-pick"), OverrideHostSource("", "envoy.lb", ("endpoint", "wanted"))))
A, B, C = ADDRESSES


def runtime(health: HealthStatus = "HEALTHY", routes: Any = None, **fields: Any) -> Runtime:
    cluster = replace(static_cluster("payments", ADDRESSES), **fields)
    assert cluster.load_assignment is not None
    (group,) = cluster.load_assignment.localities
    endpoints = tuple(replace(one, health_status=health) for one in group.endpoints)
    assignment = replace(cluster.load_assignment, localities=(replace(group, endpoints=endpoints),))
    clusters = {"payments": replace(cluster, load_assignment=assignment)}
    retries = RetryPolicy(("connect-failure",), num_retries=4)
    return runtime_of(static_snapshot(clusters, routes=routes, retries=retries))


def went(runtime: Runtime, head: RequestHead, attempts: int = 1) -> list[str]:
    """The endpoints of the first attempts of a call, all of which find nobody."""
    player, found = Player(runtime, head), []
    now = 0.0
    while len(found) < attempts:
        now += 1e-6
        if isinstance(player.last, Start):
            found.append(player.last.host.address)
            player.fails(Failure.CONNECT, now, sent=False)
        else:
            player.send(now)
    player.close()
    return found


def test_a_request_goes_where_its_header_says_whatever_the_health() -> None:
    asking = runtime("UNHEALTHY", override_host=BY_HEADER, healthy_panic_threshold=0.0)
    for address in ADDRESSES:
        assert went(asking, get("payments", "/", (b"x-pick", address.encode()))) == [address]


def test_attempts_go_down_the_list_and_then_where_the_balancer_says() -> None:
    asking = runtime(override_host=BY_HEADER)
    head = get("payments", "/", (b"X-Pick", f"{C}, 10.9.9.9:1,,{A}".encode()), (b"x-pick", B.encode()))
    assert went(asking, head, 2) == [C, A]
    assert {went(asking, head, 3)[2] for _ in range(6)} == set(ADDRESSES)


def test_a_request_that_names_nobody_is_balanced() -> None:
    asking = runtime(override_host=BY_HEADER)
    for head in (get(), get("payments", "/", (b"x-pick", b"")), get("payments", "/", (b"x-pick", b"10.9.9.9:1"))):
        assert {went(asking, head)[0] for _ in range(3)} == set(ADDRESSES)


class Labelled(RequestHead):
    @property
    def metadata(self) -> Metadata:
        return Metadata.of({"envoy.lb": {"endpoint": {"wanted": B}}})


def test_the_calls_metadata_may_say_it() -> None:
    asking = runtime(override_host=BY_HEADER)
    assert went(asking, Labelled("GET", "http", "payments", "/", [(b"host", b"payments")])) == [B]


@pytest.mark.parametrize("policy", [RingHash, Maglev])
def test_the_balancers_hash_policies_take_the_place_of_the_routes(policy: Any) -> None:
    action = RouteAction("payments", hash_policies=(HashPolicy("header", "x-other"),))
    match = static_snapshot({"payments": ADDRESSES}).routes["static"].virtual_hosts[0].routes[0].match
    asking = runtime(
        routes={"payments": [Route(match, action)]}, lb_policy=policy(hash_policies=(HashPolicy("header", "x-user"),))
    )

    def to(user: int, other: int) -> str:
        return went(asking, get("payments", "/", (b"x-user", b"%d" % user), (b"x-other", b"%d" % other)))[0]

    assert all(len({to(user, other) for other in range(8)}) == 1 for user in range(8))
    assert len({to(user, 0) for user in range(20)}) == 3
    # Without a value for the balancer's policy it is chance, even if the route's has one.
    assert len({went(asking, get("payments", "/", (b"x-other", b"1")))[0] for _ in range(40)}) == 3


def test_pick_first_stays_with_the_first_endpoint_that_can_be_reached() -> None:
    first = runtime(lb_policy=PickFirst())

    def answered() -> str:
        player = Player(first, get())
        assert isinstance(player.last, Start)
        player.responds(200, 1.0)
        player.body_ends(1.0)
        return player.commands[0].host.address  # type: ignore[union-attr]

    assert [answered() for _ in range(3)] == [A, A, A]
    assert went(first, get()) == [A]  # nobody there
    assert [answered() for _ in range(3)] == [B, B, B]
    assert went(first, get(), 2) == [B, C]
    assert answered() == A  # none could be reached: all are tried again


def test_other_clusters_ask_nothing() -> None:
    assert runtime().plan.clusters["payments"].by_request is None
    assert not runtime().plan.clusters["payments"].guarded


def test_the_subsets_that_routes_ask_for_are_there_before_the_first_request() -> None:
    labelled = tuple(
        LbEndpoint(Address("10.0.0.1", 80 + number), metadata=Metadata.of({"envoy.lb": {"version": f"v{number}"}}))
        for number in range(3)
    )
    config = LbSubsetConfig((SubsetSelector(("version",)),))
    cluster = replace(static_cluster("payments", labelled), subsets=config, lb_policy=Maglev(251))
    shares = tuple(WeightedCluster("payments", 1, Struct.of({"version": f"v{number}"})) for number in (0, 2))
    match = static_snapshot({"payments": ADDRESSES}).routes["static"].virtual_hosts[0].routes[0].match
    routes = {"payments": [Route(match, RouteAction(WeightedClusters(shares)))]}
    plan = runtime_of(static_snapshot({"payments": cluster}, routes=routes)).plan
    made = plan.clusters["payments"].balancer._compiled._views
    assert set(made) == {(("version", "'v0'"),), (("version", "'v2'"),)}
