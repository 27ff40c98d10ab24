"""What a real Consul says becomes what calls do: health, weights, subsets, splits, routes, names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from meshlib import Mesh, NoHealthyUpstreamError, NoRouteError, UpstreamTimeoutError
from meshlib.model.lb import Maglev
from parts.consul_server import ConsulServer
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

pytestmark = pytest.mark.needs("consul")

Backends = Callable[..., FastBackend]


def register(consul: ConsulServer, name: str, backend: FastBackend, **more: Any) -> None:
    consul.register(name, f"{name}-{backend.name}", backend.port, **more)


def subsets(consul: ConsulServer, name: str, **resolver: Any) -> None:
    """v1 and v2 by the instances' meta, for HTTP."""
    consul.write("service-defaults", name, Protocol="http")
    named = {version: {"Filter": f"Service.Meta.version == {version}"} for version in ("v1", "v2")}
    consul.write("service-resolver", name, DefaultSubset="v1", Subsets=named, **resolver)


def two_versions(consul: ConsulServer, name: str, backends: Backends, **resolver: Any) -> list[FastBackend]:
    made = [backends("v1"), backends("v2")]
    for backend in made:
        register(consul, name, backend, Meta={"version": backend.name}, Tags=[backend.name])
    subsets(consul, name, **resolver)
    return made


def answers(mesh: Mesh, url: str, count: int, **options: Any) -> Counter[str]:
    with mesh.http.client() as client:
        return Counter(client.get(url, **options).json()["name"] for _ in range(count))


def test_a_service_is_balanced_by_its_weights(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    heavy, light = fast_backend("heavy"), fast_backend("light")
    register(consul, name, heavy, Weights={"Passing": 3, "Warning": 1})
    register(consul, name, light)

    mesh = mesh_of(consul, name)

    assert answers(mesh, f"http://{name}/", 40) == {"heavy": 30, "light": 10}
    assert answers(mesh, f"http://{name}:8080/", 4) == {"heavy": 3, "light": 1}
    assert answers(mesh, f"http://{name}.service.consul/", 4) == {"heavy": 3, "light": 1}
    assert answers(mesh, f"http://{name}.service.dc1.consul/", 4) == {"heavy": 3, "light": 1}


def test_health_decides(consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any) -> None:
    one, two = fast_backend("one"), fast_backend("two")
    for backend in (one, two):
        check = {"CheckID": f"{name}-{backend.name}", "TTL": "1h", "Status": "passing"}
        register(consul, name, backend, Weights={"Passing": 4, "Warning": 1}, Check=check)
    mesh, cautious = mesh_of(consul, name), mesh_of(consul, name, passing=True)

    consul.request("PUT", f"/v1/agent/check/warn/{name}-two")
    eventually(lambda: answers(mesh, f"http://{name}/", 10) == {"one": 8, "two": 2}, "a warning counts for less")
    eventually(lambda: answers(cautious, f"http://{name}/", 10) == {"one": 10}, "passing only")
    consul.request("PUT", f"/v1/agent/check/fail/{name}-two")
    eventually(lambda: answers(mesh, f"http://{name}/", 10) == {"one": 10}, "critical gets nothing")
    consul.deregister(f"{name}-one")

    def refused() -> bool:
        try:
            answers(mesh, f"http://{name}/", 1)
        except NoHealthyUpstreamError:
            return True
        return False

    eventually(refused, "no instance is a fact, and no reason to leave the mesh")
    consul.deregister(f"{name}-two")
    eventually(refused, "nor is it when none is registered any more")
    register(consul, name, one)
    eventually(lambda: not refused(), "it is back")


def test_a_splitter_shifts_the_weights(consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any) -> None:
    two_versions(consul, name, fast_backend)
    mesh = mesh_of(consul, name, seed=1)
    assert answers(mesh, f"http://{name}/", 10) == {"v1": 10}

    shares = [{"Weight": 50, "ServiceSubset": "v1"}, {"Weight": 50, "ServiceSubset": "v2"}]
    shares[1]["ResponseHeaders"] = {"Set": {"x-share": "canary"}}  # type: ignore[assignment]
    consul.write("service-splitter", name, Splits=shares)
    eventually(lambda: answers(mesh, f"http://{name}/", 10)["v2"], "the canary gets some")
    assert 60 < answers(mesh, f"http://{name}/", 200)["v2"] < 140
    with mesh.http.client(name) as client:
        marks = {(found.json()["name"], found.headers.get("x-share")) for found in (client.get("/") for _ in range(50))}
    assert marks == {("v1", None), ("v2", "canary")}
    consul.write("service-splitter", name, Splits=[{"Weight": 100, "ServiceSubset": "v2"}])
    eventually(lambda: answers(mesh, f"http://{name}/", 10) == {"v2": 10}, "all of it")
    consul.delete("service-splitter", name)
    eventually(lambda: answers(mesh, f"http://{name}/", 10) == {"v1": 10}, "the resolver's default again")


def test_a_router_matches_in_order(consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any) -> None:
    two_versions(consul, name, fast_backend)
    canary = {"ServiceSubset": "v2"}
    matches: list[dict[str, Any]] = [
        {"PathExact": "/exact"},
        {"PathRegex": "/re/[0-9]+"},
        {"PathPrefix": "/Case", "CaseInsensitive": True},
        {"Header": [{"Name": "x-canary", "Present": True}, {"Name": "x-not", "Exact": "no", "Invert": True}]},
        {"QueryParam": [{"Name": "canary", "Exact": "yes"}]},
        {"Methods": ["PUT", "DELETE"]},
    ]
    routes = [{"Match": {"HTTP": match}, "Destination": canary} for match in matches]
    consul.write("service-router", name, Routes=routes)
    mesh = mesh_of(consul, name)

    def goes(method: str, target: str, **headers: str) -> str:
        with mesh.http.client(name) as client:
            answer = client.request(method, target, headers=headers)
        return str(answer.json()["name"])

    assert goes("GET", "/exact") == "v2"
    assert goes("GET", "/exact/more") == "v1"
    assert goes("GET", "/re/12") == "v2"
    assert goes("GET", "/re/x") == "v1"
    assert goes("GET", "/cAsE/1") == "v2"
    assert goes("GET", "/", **{"x-canary": "1", "x-not": "yes"}) == "v2"
    assert goes("GET", "/", **{"x-canary": "1", "x-not": "no"}) == "v1"
    assert goes("GET", "/?canary=yes") == "v2"
    assert goes("GET", "/?canary=no") == "v1"
    assert goes("PUT", "/") == "v2"
    assert goes("GET", "/") == "v1"


def test_destinations_rewrite_retry_and_change_headers(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    _, canary = two_versions(consul, name, fast_backend)
    destination = {
        "ServiceSubset": "v2",
        "PrefixRewrite": "/new/",
        "NumRetries": 2,
        "RetryOnStatusCodes": [503],
        "RequestHeaders": {"Add": {"x-added": "1"}, "Remove": ["x-secret"]},
        "ResponseHeaders": {"Set": {"x-by": "consul"}},
    }
    root = {"ServiceSubset": "v2", "PrefixRewrite": "/", "RequestTimeout": "150ms"}
    routes = [
        {"Match": {"HTTP": {"PathPrefix": "/old/"}}, "Destination": destination},
        {"Match": {"HTTP": {"PathPrefix": "/admin"}}, "Destination": root},
    ]
    consul.write("service-router", name, Routes=routes)
    mesh = mesh_of(consul, name)
    left = [2]

    def twice_bad(request: Any) -> Reply:
        left[0] -= 1
        return Reply(503 if left[0] >= 0 else 200, delay=0.5 if request.target == "/slow" else 0)

    canary.reply = twice_bad
    with mesh.http.client(name) as client:
        answer = client.get("/old/thing?q=1", headers={"x-secret": "s"})
        client.get("/admin/users")
        client.get("/admin")
        with pytest.raises(UpstreamTimeoutError):
            client.get("/admin/slow")
    assert (answer.status_code, answer.extensions["meshlib"].attempts, answer.headers["x-by"]) == (200, 3, "consul")
    assert canary.requests[0].target == "/new/thing?q=1"
    assert (canary.requests[0].header("x-added"), canary.requests[0].header("x-secret")) == ("1", None)
    assert [request.target for request in canary.requests[3:]] == ["/users", "/", "/slow"]


def test_a_tag_in_the_name_takes_instances_with_the_tag(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    two_versions(consul, name, fast_backend)
    mesh = mesh_of(consul, name)
    assert answers(mesh, f"http://v2.{name}.service.consul/", 5) == {"v2": 5}
    assert answers(mesh, f"http://v2.{name}.service.dc1.consul/", 5) == {"v2": 5}
    filtered = mesh_of(consul, filter="v2 in Service.Tags")
    consul.delete("service-resolver", name)
    assert answers(filtered, f"http://{name}/", 5) == {"v2": 5}
    assert answers(mesh_of(consul, tags=["v1"]), f"http://{name}/", 5) == {"v1": 5}


def test_a_service_is_watched_when_first_called_and_unknown_ones_are_refused(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    mesh = mesh_of(consul)
    for host in (name, f"{name}.service.consul", "example.com", "127.0.0.1:9", "a.b.c.service.consul"):
        with pytest.raises(NoRouteError):
            answers(mesh, f"http://{host}/", 1)
    register(consul, name, fast_backend("late"))

    def known() -> bool:
        try:
            return answers(mesh, f"http://{name}/", 1) == {"late": 1}
        except NoRouteError:
            return False

    eventually(known, "a service registered later is found")


def test_names_cannot_walk_through_the_api(consul: ConsulServer, mesh_of: Any) -> None:
    consul.request("PUT", "/v1/kv/secret", "s3cret")
    mesh = mesh_of(consul, "../../kv/secret", "a/b?c#d", ready=False)
    eventually(lambda: "../../kv/secret" in mesh.plan.snapshot.listeners, "asked for as a name, and unknown")
    assert mesh.plan.snapshot.endpoints["../../kv/secret"].localities == ()


def test_hashing_and_other_balancers_come_from_the_resolver(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    made = [fast_backend(f"b{number}") for number in range(3)]
    for backend in made:
        register(consul, name, backend)
    consul.write("service-defaults", name, Protocol="http")
    policy = {"Policy": "ring_hash", "HashPolicies": [{"Field": "header", "FieldValue": "x-user"}]}
    consul.write("service-resolver", name, LoadBalancer=policy, ConnectTimeout="3s", RequestTimeout="7s")
    mesh = mesh_of(consul, name)

    assert len(answers(mesh, f"http://{name}/", 10, headers={"x-user": "ann"})) == 1
    users = Counter(str(answers(mesh, f"http://{name}/", 1, headers={"x-user": str(user)})) for user in range(30))
    assert len(users) == 3
    cluster = mesh.plan.snapshot.clusters[name]
    assert cluster.connect_timeout == 3.0
    consul.write("service-resolver", name, LoadBalancer={"Policy": "maglev"})
    eventually(lambda: mesh.plan.snapshot.clusters[name].lb_policy == Maglev(), "the change to arrive")


def test_a_chain_that_cannot_be_used_changes_nothing(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    two_versions(consul, name, fast_backend)
    mesh = mesh_of(consul, name)
    consul.write("service-splitter", name, Splits=[{"Weight": 100, "ServiceSubset": "v2"}])
    eventually(lambda: answers(mesh, f"http://{name}/", 3) == {"v2": 3}, "good")
    named = {"v1": {"Filter": "Service.Meta.nonsense["}, "v2": {"Filter": "Service.Meta.version == v2"}}
    try:
        consul.write("service-resolver", name, Subsets=named)
    except OSError:
        named["v1"]["Filter"] = "Service.Nothing == 1"  # Consul checks the grammar, and not the names
        consul.write("service-resolver", name, Subsets=named)
    consul.write("service-splitter", name, Splits=[{"Weight": 100, "ServiceSubset": "v1"}])

    eventually(lambda: any("v1" in issue.path or "Nothing" in issue.path for issue in mesh.issues), "it is told")
    assert answers(mesh, f"http://{name}/", 20) == {"v2": 20}


def test_the_nearest_instances_come_first(
    consul: ConsulServer, name: str, fast_backend: Backends, mesh_of: Any
) -> None:
    made = {f"{name}-{key}": fast_backend(key) for key in ("a", "b", "c")}
    for service_id, backend in made.items():
        check = {"CheckID": service_id, "TTL": "1h", "Status": "passing"}
        consul.register(name, service_id, backend.port, Check=check)
    mesh = mesh_of(consul, name, near="_agent", nearest=1)

    (first,) = answers(mesh, f"http://{name}/", 12)
    consul.request("PUT", f"/v1/agent/check/fail/{name}-{first}")
    others = {"a", "b", "c"} - {first}
    eventually(lambda: set(answers(mesh, f"http://{name}/", 12)) <= others, "the others take over")
