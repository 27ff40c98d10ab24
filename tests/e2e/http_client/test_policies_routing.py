"""Routing, balancing and rewriting, end to end: what configuration says is what a real backend sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from e2e.http_client.doors import Door
from meshlib import Mesh
from meshlib.errors import NoHealthyUpstreamError
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.lb import LbSubsetConfig, LeastRequest, RingHash, SubsetSelector
from meshlib.model.matchers import HeaderMatcher, PathMatcher, QueryParameterMatcher, RegexRewrite, RouteMatch
from meshlib.model.matchers import StringMatcher as Text
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import StaticSource, retry_policy, static_cluster, static_snapshot
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
ANYTHING = RouteMatch(PathMatcher("prefix", "/"))


def prefix(path: str, *headers: HeaderMatcher, query: tuple[QueryParameterMatcher, ...] = ()) -> RouteMatch:
    return RouteMatch(PathMatcher("prefix", path), headers, query)


def names(client: Any, count: int, url: str = "/", **options: Any) -> Counter[str]:
    return Counter(client.get(url, **options).headers["x-backend"] for _ in range(count))


def test_by_header_by_path_by_query_and_by_method(door: Door, static: Static, fast_backend: Fast) -> None:
    backends = {name: fast_backend(name) for name in ("canary", "admin", "debug", "write", "stable")}
    routes = (
        Route(prefix("/", HeaderMatcher("x-canary", Text("exact", "1"))), RouteAction("canary")),
        Route(prefix("/admin/"), RouteAction("admin")),
        Route(prefix("/", query=(QueryParameterMatcher("debug", Text("exact", "yes")),)), RouteAction("debug")),
        Route(prefix("/", HeaderMatcher(":method", Text("exact", "POST"))), RouteAction("write")),
        Route(ANYTHING, RouteAction("stable")),
    )
    clusters = {name: [backend.address] for name, backend in backends.items()}
    client = door.client(static(clusters, routes={"payments": routes}))

    def who(method: str, url: str, **options: Any) -> tuple[str, str]:
        response = client.request(method, url, **options)
        assert response.extensions["meshlib"].cluster == response.headers["x-backend"]
        return response.headers["x-backend"], response.extensions["meshlib"].route

    assert who("GET", "/admin/x", headers={"X-Canary": "1"})[0] == "canary"
    assert who("GET", "/admin/x", headers={"X-Canary": "2"})[0] == "admin"
    assert who("GET", "/?debug=yes")[0] == "debug"
    assert who("POST", "/?debug=no", content=b"x")[0] == "write"
    assert who("GET", "/")[0] == "stable"


def test_a_weighted_split_keeps_its_weights(door: Door, static: Static, fast_backend: Fast) -> None:
    clusters = {name: [fast_backend(name).address] for name in ("stable", "canary", "next")}
    weights = {"stable": 70, "canary": 20, "next": 10}
    client = door.client(static(clusters, routes={"payments": weights}))
    calls = 1000
    seen = names(client, calls)
    chi_squared = sum((seen[name] - calls * w / 100) ** 2 / (calls * w / 100) for name, w in weights.items())
    assert chi_squared < 18.42, f"{seen}: p < 0.0001 with two degrees of freedom"


def test_a_share_of_nothing_gets_nothing_and_a_change_takes_effect(
    door: Door, meshes: list[Mesh], fast_backend: Fast
) -> None:
    clusters = {name: [fast_backend(name).address] for name in ("stable", "canary")}

    def shares(canary: int) -> Snapshot:
        return static_snapshot(clusters, routes={"payments": {"stable": 100 - canary, "canary": canary}})

    source = StaticSource(shares(0))
    meshes.append(Mesh(source, seed=1))
    client = door.client(meshes[0])
    assert names(client, 50) == {"stable": 50}
    source.replace(shares(100))
    assert names(client, 50) == {"canary": 50}


def test_the_cluster_may_be_named_by_a_header(door: Door, static: Static, fast_backend: Fast) -> None:
    clusters = {name: [fast_backend(name).address] for name in ("a", "b")}
    mesh = static(clusters, routes={"payments": (Route(ANYTHING, RouteAction(ClusterHeader("x-cluster"))),)})
    client = door.client(mesh)
    assert client.get("/", headers={"x-cluster": "b"}).headers["x-backend"] == "b"
    with pytest.raises(door.error("TransportError"), match="NC: "):
        client.get("/")


def test_round_robin_goes_round(door: Door, static: Static, fast_backend: Fast) -> None:
    addresses = [fast_backend(f"b{index}").address for index in range(3)]
    assert set(names(door.client(static({"payments": addresses})), 30).values()) == {10}


def test_least_request_prefers_the_idle_endpoint(door: Door, static: Static, fast_backend: Fast) -> None:
    backends = [
        fast_backend(name, lambda r: Reply(200, b"x" * (5_000_000 if r.target == "/hold" else 1))) for name in "ab"
    ]
    mesh = static({"payments": [backend.address for backend in backends]}, lb_policy=LeastRequest())
    client = door.client(mesh)
    held = client.open("GET", "/hold")
    busy = held.headers["x-backend"]
    seen = names(client, 200)
    client.close_response(held)
    # The two that are drawn are different ones: of two endpoints the busy one is never the better.
    assert (seen[busy], seen.total()) == (0, 200)


def test_ring_hash_sticks(door: Door, static: Static, fast_backend: Fast) -> None:
    addresses = [fast_backend(f"b{index}").address for index in range(4)]
    by_user = Route(ANYTHING, RouteAction("payments", hash_policies=(HashPolicy("header", "x-user"),)))
    mesh = static({"payments": addresses}, routes={"payments": (by_user,)}, lb_policy=RingHash())
    client = door.client(mesh)
    chosen = {f"user{n}": set(names(client, 4, headers={"x-user": f"user{n}"})) for n in range(24)}
    assert {len(backends) for backends in chosen.values()} == {1}
    assert len({name for backends in chosen.values() for name in backends}) > 1


def test_a_hash_cookie_is_made_by_the_mesh_and_kept_by_the_client(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    addresses = [fast_backend(f"b{index}").address for index in range(4)]
    sticky = HashPolicy("cookie", "mesh-session", ttl=60.0, path="/")
    route = Route(ANYTHING, RouteAction("payments", hash_policies=(sticky,)))
    mesh = static({"payments": addresses}, routes={"payments": (route,)}, lb_policy=RingHash())
    client = door.client(mesh)
    first = client.get("/")
    assert "mesh-session" in first.cookies
    assert names(client, 20) == {first.headers["x-backend"]: 20}


def endpoint(backend: FastBackend, **labels: str) -> LbEndpoint:
    metadata = Metadata.of({"envoy.lb": labels}) if labels else Metadata()
    return LbEndpoint(Address(backend.host, backend.port), metadata=metadata)


def test_subsets(door: Door, static: Static, fast_backend: Fast) -> None:
    versions = {name: fast_backend(name) for name in ("v1", "v2")}
    cluster = static_cluster("payments", [endpoint(backend, version=name) for name, backend in versions.items()])
    cluster = replace(cluster, subsets=LbSubsetConfig((SubsetSelector(("version",)),)))

    def to(version: str) -> RouteAction:
        return RouteAction("payments", metadata_match=Struct.of({"version": version}))

    routes = (
        Route(prefix("/", HeaderMatcher("x-v", Text("exact", "2"))), to("v2")),
        Route(prefix("/", HeaderMatcher("x-v", Text("exact", "9"))), to("v9")),
        Route(ANYTHING, to("v1")),
    )
    client = door.client(static({"payments": cluster}, routes={"payments": routes}))
    assert names(client, 10) == {"v1": 10}
    assert names(client, 10, headers={"x-v": "2"}) == {"v2": 10}
    with pytest.raises(NoHealthyUpstreamError):
        client.get("/", headers={"x-v": "9"})


def test_failover_by_priority(door: Door, meshes: list[Mesh], fast_backend: Fast) -> None:
    first, second = fast_backend("first"), fast_backend("second")

    def snapshot(health: Any) -> Snapshot:
        near = LocalityLbEndpoints((replace(endpoint(first), health_status=health),))
        far = LocalityLbEndpoints((endpoint(second),), priority=1)
        load = ClusterLoadAssignment("payments", (near, far))
        return static_snapshot({"payments": replace(static_cluster("payments", []), load_assignment=load)})

    source = StaticSource(snapshot("HEALTHY"))
    meshes.append(Mesh(source, seed=1))
    client = door.client(meshes[0])
    assert names(client, 20) == {"first": 20}
    source.replace(snapshot("UNHEALTHY"))
    assert names(client, 20) == {"second": 20}
    source.replace(snapshot("HEALTHY"))
    assert names(client, 20) == {"first": 20}


def test_header_mutations_seen_on_both_sides(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", lambda request: Reply(headers=(("server", "secret"), ("x-keep", "1"))))
    route = Route(
        ANYTHING,
        RouteAction("payments"),
        request_headers=HeaderMutations(
            add=(
                HeaderValueOption("x-added", "%REQ(x-given)%-%REQ(:method)%"),
                HeaderValueOption("x-given", "over", "OVERWRITE_IF_EXISTS_OR_ADD"),
                HeaderValueOption("x-once", "new", "ADD_IF_ABSENT"),
            ),
            remove=("x-internal",),
        ),
        response_headers=HeaderMutations(add=(HeaderValueOption("x-served-by", "mesh"),), remove=("server",)),
    )
    client = door.client(static({"payments": [backend.address]}, routes={"payments": (route,)}))
    response = client.get("/", headers={"x-given": "was", "x-internal": "token", "x-once": "old"})
    sent = backend.requests[0]
    assert sent.header("x-added") == "was-GET"
    assert (sent.header("x-given"), sent.header("x-once"), sent.header("x-internal")) == ("over", "old", None)
    assert (response.headers["x-served-by"], response.headers["x-keep"]) == ("mesh", "1")
    assert "server" not in response.headers


def test_path_and_host_are_rewritten_for_the_backend_only(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    routes = (
        Route(
            prefix("/api/"),
            RouteAction(
                "payments",
                prefix_rewrite="/v2/",
                host_rewrite=HostRewrite("literal", "inner.example"),
                append_x_forwarded_host=True,
            ),
        ),
        Route(
            prefix("/user/"), RouteAction("payments", regex_rewrite=RegexRewrite(r"^/user/(\d+)/(.*)$", r"/\2/of/\1"))
        ),
    )
    client = door.client(static({"payments": [backend.address]}, routes={"payments": routes}))
    response = client.get("/api/charge?x=1")
    client.get("/user/42/cards?y=2")
    first, second = backend.requests
    assert (first.target, first.header("host")) == ("/v2/charge?x=1", "inner.example")
    assert first.header("x-envoy-original-path") == "/api/charge?x=1"
    assert first.header("x-forwarded-host") == "payments"
    assert [name for name, _ in first.headers].count("host") == 1
    assert (second.target, second.header("host")) == ("/cards/of/42?y=2", "payments")
    assert str(response.url) == "http://payments/api/charge?x=1", "the caller's own URL stays the caller's"


def test_direct_responses_and_redirects_cost_no_upstream(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend()
    routes = (
        Route(prefix("/healthz"), DirectResponseAction(200, b"fine"), name="health"),
        Route(prefix("/gone"), DirectResponseAction(410)),
        Route(prefix("/old/"), RedirectAction(308, prefix_rewrite="/new/")),
        Route(ANYTHING, RouteAction("payments")),
    )
    client = door.client(static({"payments": [backend.address]}, routes={"payments": routes}))
    health = client.get("/healthz")
    assert (health.status_code, health.text, health.extensions["meshlib"].attempts) == (200, "fine", 0)
    assert "health" in health.extensions["meshlib"].route
    gone = client.request("HEAD", "/gone")
    assert (gone.status_code, gone.content) == (410, b"")
    moved = client.post("/old/x?q=1", content=b"keep me")
    assert (moved.status_code, moved.headers["location"]) == (308, "http://payments/new/x?q=1")
    assert backend.count == 0
    followed = client.post("/old/x?q=1", content=b"keep me", follow_redirects=True).json()
    assert (followed["path"], followed["query"], followed["body"]) == ("/new/x", "q=1", "keep me")


def test_what_the_backend_is_told_of_attempts_and_time(door: Door, meshes: list[Mesh], fast_backend: Fast) -> None:
    backend = fast_backend("b", lambda request: Reply(503 if request.header("x-envoy-attempt-count") == "1" else 200))
    host = VirtualHost(
        "payments",
        ("payments",),
        (Route(ANYTHING, RouteAction("payments", timeout=3.0)),),
        retry_policy(2),
        include_request_attempt_count=True,
    )
    snapshot = Snapshot(
        clusters=MappingProxyType({"payments": static_cluster("payments", [backend.address])}),
        routes=MappingProxyType({"r": RouteConfiguration("r", (host,))}),
    )
    meshes.append(Mesh(StaticSource(snapshot), seed=1))
    response = door.client(meshes[0]).get("/", headers={"x-envoy-expected-rq-timeout-ms": "999999"})
    assert response.extensions["meshlib"].attempts == 2
    assert [request.header("x-envoy-attempt-count") for request in backend.requests] == ["1", "2"]
    told = [[v for n, v in r.headers if n == "x-envoy-expected-rq-timeout-ms"] for r in backend.requests]
    assert all(len(values) == 1 and 2000 < int(values[0]) <= 3000 for values in told)
