"""A bookshop by Istio's generator: real calls of httpx and gRPC go by host, port, subset and header, counted where they
arrive; as a full sidecar node and as a proxyless one.
"""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.errors import CallError
from parts.fast_backend import Reply
from parts.istio_bookinfo import VERSIONS, documents, routes, subsets
from parts.istio_nodes import Kind, istio_mesh, refusals
from parts.istio_server import IstioServer
from parts.istio_workloads import Shop, tally, who
from parts.xds import eventually

pytestmark = pytest.mark.needs("istio_generator")

BOTH = pytest.mark.parametrize("kind", ["sidecar", "grpc"])
REVIEWS = "http://reviews:9080"
JASON = (("end-user", "jason"),)
TO_JASON = """[
  {name: jason, match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]},
  {name: all, route: [{destination: {host: reviews, subset: v1}}]}]"""


@pytest.fixture(scope="module")
def every_workload() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.stop()


@pytest.fixture
def shop(every_workload: Shop) -> Shop:
    every_workload.reset()
    return every_workload


@pytest.fixture(scope="module")
def istio(generator: Callable[..., IstioServer], every_workload: Shop) -> IstioServer:
    return generator(every_workload.entries)


@pytest.fixture
def mesh_of(istio: IstioServer, shop: Shop) -> Iterator[Callable[..., Mesh]]:
    """``mesh_of("sidecar", rule, ...)``: a started mesh once the generator has these objects beside the services."""
    meshes: list[Mesh] = []

    def make(kind: Kind, *objects: str, **options: Any) -> Mesh:
        istio.write(documents([shop.entries, *objects]))
        mesh = istio_mesh(istio, kind, seed=1, **options)
        meshes.append(mesh)
        return mesh.wait_ready()

    yield make
    for mesh in meshes:
        assert refusals(mesh) == 0
        mesh.close()


def http_names(client: httpx.Client, urls: list[str], **options: Any) -> list[str]:
    """Who answers each."""
    return [client.get(url, **options).raise_for_status().json()["name"] for url in urls]


@BOTH
def test_by_host_and_port(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    mesh = mesh_of(kind)
    with mesh.http.client() as client:
        for name, versions in VERSIONS.items():
            hosts = (name, f"{name}.default", f"{name}.default.svc", f"{name}.default.svc.cluster.local")
            answered = http_names(client, [f"http://{host}:9080/" for host in hosts for _ in versions])
            assert set(answered) <= {f"{name}-{version}" for version in versions}
            with mesh.grpc.channel(f"{name}:9090") as channel:
                assert who(channel) in {f"{name}-{version}" for version in versions}
    assert {name.partition("-")[0] for name in shop.counted()} == set(VERSIONS)


@BOTH
def test_by_subset_and_header(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    mesh = mesh_of(kind, subsets("reviews"), routes("reviews", TO_JASON))
    with mesh.http.client() as client, mesh.grpc.channel("reviews:9090") as channel:
        assert http_names(client, [REVIEWS] * 3) == ["reviews-v1"] * 3
        assert http_names(client, [REVIEWS] * 3, headers=dict(JASON)) == ["reviews-v2"] * 3
        assert [who(channel), who(channel, JASON)] == ["reviews-v1", "reviews-v2"]
    assert shop.counted() == {"reviews-v1": 4, "reviews-v2": 4}


@BOTH
async def test_asyncio_clients_do_the_same(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    mesh = mesh_of(kind, subsets("reviews"), routes("reviews", TO_JASON))
    async with mesh.http.async_client() as client, mesh.grpc.aio_channel("reviews:9090") as channel:
        assert (await client.get(REVIEWS)).json()["name"] == "reviews-v1"
        assert (await client.get(REVIEWS, headers=dict(JASON))).json()["name"] == "reviews-v2"
        call = channel.unary_unary("/shop.Workload/Who")
        assert await call(b"", timeout=5) == b"reviews-v1"
        assert await call(b"", timeout=5, metadata=JASON) == b"reviews-v2"


@BOTH
def test_by_weight(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    split = """[{route: [{destination: {host: reviews, subset: v1}, weight: 80},
                         {destination: {host: reviews, subset: v3}, weight: 20}]}]"""
    mesh = mesh_of(kind, subsets("reviews"), routes("reviews", split))
    with mesh.http.client() as client:
        found = tally(http_names(client, [REVIEWS] * 300))
    assert found.keys() == {"reviews-v1", "reviews-v3"}
    assert 210 <= found["reviews-v1"] <= 270, "240 expected; the bounds are beyond four standard deviations"


def test_paths_rewrites_redirects_and_answers(mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    http = """[
      {match: [{uri: {exact: /old}}], redirect: {uri: /new, authority: details:9080, redirectCode: 308}},
      {match: [{uri: {prefix: /closed}}], directResponse: {status: 418, body: {string: closed}}},
      {match: [{uri: {prefix: /v2/}, queryParams: {beta: {exact: "1"}}}], rewrite: {uri: /, authority: shop.test},
       route: [{destination: {host: reviews, subset: v2}, headers: {request: {set: {x-seen: mesh}}}}]},
      {match: [{method: {exact: POST}}], route: [{destination: {host: ratings, port: {number: 9080}}}]},
      {route: [{destination: {host: reviews, subset: v1}}]}]"""
    mesh = mesh_of("sidecar", subsets("reviews"), routes("reviews", http))
    with mesh.http.client() as client:
        moved = client.get(f"{REVIEWS}/old")
        assert (moved.status_code, moved.headers["location"]) == (308, "http://details:9080/new")
        assert client.get(f"{REVIEWS}/old", follow_redirects=True).json()["name"] == "details-v1"
        assert (client.get(f"{REVIEWS}/closed/x").status_code, client.get(f"{REVIEWS}/closed").text) == (418, "closed")
        assert client.get(f"{REVIEWS}/v2/books?beta=1").json()["name"] == "reviews-v2"
        assert client.get(f"{REVIEWS}/v2/books").json()["name"] == "reviews-v1"
        assert client.post(f"{REVIEWS}/books").json()["name"] == "ratings-v1"
    (seen,) = shop["reviews-v2"].http.requests
    assert (seen.target, seen.header("host"), seen.header("x-seen")) == ("/books?beta=1", "shop.test", "mesh")


@BOTH
def test_retries_go_to_another_host_and_time_has_an_end(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    http = """[
      {match: [{uri: {prefix: /slow}}], timeout: 300ms, retries: {attempts: 0},
       route: [{destination: {host: details}}]},
      {retries: {attempts: 3, retryOn: "5xx"}, route: [{destination: {host: reviews}}]}]"""
    mesh = mesh_of(kind, routes("reviews", http))
    shop["reviews-v1"].http.behave(status=503)
    shop["reviews-v2"].http.behave(status=500)
    shop["details-v1"].http.behave(Reply(delay=20.0))
    with mesh.http.client() as client:
        assert http_names(client, [REVIEWS] * 5) == ["reviews-v3"] * 5
        assert shop["reviews-v3"].http.count == 5
        with pytest.raises(CallError, match="UT"):
            client.get(f"{REVIEWS}/slow")
    assert shop["details-v1"].http.count == 1


@BOTH
def test_consistent_hashing_is_sticky(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    mesh = mesh_of(kind, subsets("reviews", "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}"))
    with mesh.http.client() as client:
        homes = [set(http_names(client, [REVIEWS] * 3, headers={"x-user": str(user)})) for user in range(30)]
    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) == 3


def test_outlier_detection_takes_a_failing_pod_out(mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    policy = (
        "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 50}}"
    )
    no_retries = "[{retries: {attempts: 0}, route: [{destination: {host: reviews}}]}]"
    mesh = mesh_of("sidecar", subsets("reviews", policy), routes("reviews", no_retries))
    shop["reviews-v2"].http.behave(status=503)
    with mesh.http.client() as client:
        codes = [client.get(REVIEWS).status_code for _ in range(30)]
    assert codes.count(503) == shop["reviews-v2"].http.count == 2


def test_a_virtual_service_that_is_edited_live(mesh_of: Callable[..., Mesh], istio: IstioServer, shop: Shop) -> None:
    mesh = mesh_of("sidecar", subsets("reviews"), routes("reviews", TO_JASON))
    with mesh.http.client() as client:
        assert http_names(client, [REVIEWS]) == ["reviews-v1"]
        for version in ("v3", "v2", "v1"):
            http = f"[{{route: [{{destination: {{host: reviews, subset: {version}}}}}]}}]"
            istio.write(documents([shop.entries, subsets("reviews"), routes("reviews", http)]))
            eventually(lambda v=version: http_names(client, [REVIEWS]) == [f"reviews-{v}"], f"{version} takes over")
        istio.write(shop.entries)
        eventually(lambda: len(set(http_names(client, [REVIEWS] * 12))) > 1, "without rules every version is called")
    assert istio.nacks() == []


def test_the_control_plane_may_go_away(mesh_of: Callable[..., Mesh], istio: IstioServer, shop: Shop) -> None:
    mesh = mesh_of("sidecar", subsets("reviews"), routes("reviews", TO_JASON))
    with mesh.http.client() as client:
        istio.kill()
        assert http_names(client, [REVIEWS] * 5) == ["reviews-v1"] * 5
        istio.restart()
        http = "[{route: [{destination: {host: reviews, subset: v3}}]}]"
        istio.write(documents([shop.entries, subsets("reviews"), routes("reviews", http)]))
        eventually(lambda: http_names(client, [REVIEWS]) == ["reviews-v3"], "the new istiod is followed", 30.0)


@pytest.mark.parametrize("policy", ["ALLOW_ANY", "REGISTRY_ONLY"])
def test_hosts_that_are_not_in_the_registry(policy: str, generator: Callable[..., IstioServer], shop: Shop) -> None:
    istio = generator(shop.entries, f"outboundTrafficPolicy: {{mode: {policy}}}\n")
    outside = shop["ratings-v1"].http
    with istio_mesh(istio).wait_ready() as mesh, mesh.http.client() as client:
        if policy == "ALLOW_ANY":
            assert client.get(outside.url).json()["name"] == "ratings-v1"
        else:
            with pytest.raises(CallError, match="UH"):
                client.get(outside.url)
            refused = client.get("http://unknown.test:9080/")
            assert refused.status_code == 502, "on a port of the mesh istiod answers by route"
            assert outside.count == 0
        assert http_names(client, ["http://ratings:9080/"]) == ["ratings-v1"]


@BOTH
def test_copies_go_where_no_route_leads(kind: Kind, mesh_of: Callable[..., Mesh], shop: Shop) -> None:
    mirrored = routes(
        "reviews", "[{route: [{destination: {host: reviews, subset: v1}}], mirror: {host: reviews, subset: v3}}]"
    )
    mesh = mesh_of(kind, subsets("reviews"), mirrored)
    with mesh.http.client() as client:
        assert http_names(client, [f"{REVIEWS}/{number}" for number in range(3)]) == ["reviews-v1"] * 3
    eventually(lambda: shop["reviews-v3"].http.count == 3, "three copies")
    assert {request.header("host") for request in shop["reviews-v3"].http.requests} == {"reviews:9080"}
    assert shop.counted() == {"reviews-v1": 3, "reviews-v3": 3}
