"""Aggregate and LOGICAL_DNS clusters (gRFC A37): grpcio's `xds:///` and a mesh go to the same clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import envoy.extensions.clusters.aggregate.v3.cluster_pb2  # noqa: F401  its type is known to JSON then
import pytest

from differential.grpc_xds_twin import World, endpoints_of, locality, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import GrpcCall

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
AGGREGATE = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"


@pytest.fixture
def world(xds_world: Callable[[], World]) -> World:
    return xds_world()


def row(name: str, *children: str) -> Json:
    config = {"@type": AGGREGATE, "clusters": list(children)}
    kind = {"name": "envoy.clusters.aggregate", "typed_config": config}
    return {"name": name, "cluster_type": kind}  # grpcio refuses CLUSTER_PROVIDED, which is what Envoy wants


def named(name: str, backend: GrpcBackend) -> Json:
    where = {"socket_address": {"address": "localhost", "port_value": backend.port}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}]}
    return {"name": name, "type": "LOGICAL_DNS", "load_assignment": assignment}


def reached(world: World) -> tuple[set[str], set[str]]:
    """(Theirs, ours): the backends of a few calls."""
    pairs = world.both(*[GrpcCall()] * 8)
    return {theirs.backend or theirs.code for theirs, _ in pairs}, {ours.backend or ours.code for _, ours in pairs}


def test_the_first_cluster_with_endpoints_that_serve(world: World, echo_backends: Backends) -> None:
    a, b = echo_backends(2)
    sick = locality([a])
    sick["lb_endpoints"][0]["health_status"] = "UNHEALTHY"
    name = world.cluster
    clusters: dict[str, Any] = {"none": {"endpoints": {"endpoints": []}}, "sick": {"endpoints": {"endpoints": [sick]}}}
    clusters |= {"first": {"endpoints": endpoints_of([a])}, "second": {"endpoints": endpoints_of([b])}}
    cases: list[tuple[list[Json], set[str]]] = [
        ([row(name("row"), name("first"), name("second"))], {a.name}),
        ([row(name("row"), name("none"), name("sick"), name("second"))], {b.name}),
        ([row(name("row"), name("inner"), name("first")), row(name("inner"), name("none"), name("second"))], {b.name}),
        ([row(name("row"), name("sick"), name("dns")), named(name("dns"), b)], {b.name}),
        ([row(name("row"), name("dns"), name("first")), named(name("dns"), b)], {b.name}),
    ]
    for others, wanted in cases:
        used = {child.removeprefix(f"{world.name}-") for other in others for child in _children(other)}
        world.put([route(name("row"))], {key: value for key, value in clusters.items() if key in used}, others=others)
        world.follow(lambda ended, wanted=wanted: {ended.backend} == wanted)  # type: ignore[misc]
        assert reached(world) == (wanted, wanted)


def _children(cluster: Json) -> list[str]:
    found: list[str] = cluster.get("cluster_type", {}).get("typed_config", {}).get("clusters", [])
    return found


def test_a_name_is_resolved(world: World, echo_backends: Backends) -> None:
    (a,) = echo_backends(1)
    world.put([route(world.cluster("dns"))], {}, others=[named(world.cluster("dns"), a)])
    world.follow()
    assert reached(world) == ({a.name}, {a.name})
