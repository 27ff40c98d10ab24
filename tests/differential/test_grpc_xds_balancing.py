"""Which endpoint, by `load_balancing_policy`: grpcio's `xds:///` and the mesh's channels on one control plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from differential.grpc_xds_twin import World, endpoints_of, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
LB = "type.googleapis.com/envoy.extensions.load_balancing_policies"


def policy(*entries: tuple[str, Json]) -> Json:
    """A list of policies: by their messages, those with a type URL in TypedStructs."""
    return {
        "policies": [
            {"typed_extension_config": {"name": name, "typed_config": _typed(name, value)}} for name, value in entries
        ]
    }


def _typed(name: str, value: Json) -> Json:
    if "/" not in name:
        return {"@type": f"{LB}.{name}", **value}
    return {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": name, "value": value}


def by_locality(*entries: tuple[str, Json]) -> Json:
    """What grpcio wants around a policy of its own: localities first."""
    return policy(("wrr_locality.v3.WrrLocality", {"endpoint_picking_policy": policy(*entries)}))


@pytest.fixture
def world(xds_world: Callable[[], World]) -> World:
    __import__("xds.type.v3.typed_struct_pb2")  # the JSON parser packs only what is imported
    for name in ("wrr_locality", "ring_hash"):
        __import__(f"envoy.extensions.load_balancing_policies.{name}.v3.{name}_pb2")
    return xds_world()


def backends_of(ended: Sequence[Ended]) -> list[str]:
    return [one.backend or f"{one.code} {one.details}" for one in ended]


def test_the_first_policy_that_is_known_counts(world: World, echo_backends: Backends) -> None:
    chosen = by_locality(("type.googleapis.com/acme.NotThere", {"a": 1}), ("type.googleapis.com/pick_first", {}))
    cluster = {"endpoints": endpoints_of(echo_backends(3)), "load_balancing_policy": chosen}
    world.put([route(world.cluster("all"))], {"all": cluster})
    for ended in (world.theirs(*[GrpcCall()] * 12), world.ours(*[GrpcCall()] * 12)):
        assert backends_of(ended) == ["a"] * 12


@pytest.mark.parametrize(
    "hashed",
    [
        ("type.googleapis.com/ring_hash_experimental", {"minRingSize": 64, "requestHashHeader": "x-user"}),
        ("ring_hash.v3.RingHash", {"minimum_ring_size": 64, "hash_function": "XX_HASH"}),
    ],
)
def test_ring_hash_by_either_name(world: World, echo_backends: Backends, hashed: tuple[str, Json]) -> None:
    cluster = {"endpoints": endpoints_of(echo_backends(3)), "load_balancing_policy": policy(hashed)}
    header = {"hash_policy": [{"header": {"header_name": "x-user"}}]}
    world.put([route(world.cluster("all"), **header)], {"all": cluster})
    calls = [GrpcCall(metadata=(("x-user", f"u{number}"),)) for number in range(24)]
    theirs, ours = backends_of(world.theirs(*calls)), backends_of(world.ours(*calls))
    assert ours == theirs
    assert len(set(ours)) > 1
