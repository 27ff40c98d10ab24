"""Fault injection of gRFC A33: grpcio's `xds:///` and the mesh's channels on one control plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.grpc_xds_twin import World, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
NAME = "envoy.filters.http.fault"
ALWAYS = {"numerator": 100}
TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
ROUTER = {
    "name": "router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
BY_HEADER = {
    "abort": {"header_abort": {}, "percentage": ALWAYS},
    "delay": {"header_delay": {}, "percentage": ALWAYS},
}


@pytest.fixture
def faulty(xds_world: Callable[[], World], echo_backends: Backends) -> Callable[..., World]:
    """``faulty(chain, on_route)``: a world with a fault filter, whose route `/meshlib.test.Echo/` has its own."""

    def make(chain: Json, on_route: Json | None = None) -> World:
        world = xds_world()
        filters = [{"name": NAME, "typed_config": {"@type": TYPE, **chain}}, ROUTER]
        routed = route(world.cluster("up"))
        if on_route is not None:
            routed["typed_per_filter_config"] = {NAME: {"@type": TYPE, **on_route}}
        world.put([routed], {"up": echo_backends(1)}, manager={"http_filters": filters})
        world.follow(
            lambda ended: ended.code not in ("UNAVAILABLE", "UNIMPLEMENTED") or "fault" in ended.details.lower()
        )
        return world

    return make


def aborted(http_status: int) -> Json:
    return {"abort": {"http_status": http_status, "percentage": ALWAYS}}


def codes(*sides: list[Ended]) -> list[list[str]]:
    return [[ended.code for ended in side] for side in sides]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 429, 500, 502, 503, 504])
def test_an_http_status_is_a_grpc_status(faulty: Callable[..., World], status: int) -> None:
    world = faulty(aborted(status))
    theirs, ours = codes(world.theirs(GrpcCall()), world.ours(GrpcCall()))
    assert theirs == ours


@pytest.mark.parametrize("status", [1, 5, 7, 14, 16])
async def test_a_grpc_status(faulty: Callable[..., World], status: int) -> None:
    world = faulty({"abort": {"grpc_status": status, "percentage": ALWAYS}})
    theirs, ours, aio = codes(world.theirs(GrpcCall()), world.ours(GrpcCall()), await world.ours_aio(GrpcCall()))
    assert theirs == ours == aio


@pytest.mark.parametrize(
    "on_route, expected", [(aborted(403), "PERMISSION_DENIED"), ({}, "OK"), (None, "UNAUTHENTICATED")]
)
def test_a_routes_own_fault(faulty: Callable[..., World], on_route: Json | None, expected: str) -> None:
    world = faulty(aborted(401), on_route)
    assert codes(world.theirs(GrpcCall()), world.ours(GrpcCall())) == [[expected], [expected]]


ASKED = [  # see grpc_xds_differences for the others
    {},
    {"abort-grpc-request": "5"},
    {"abort-grpc-request": "5", "abort-percentage": "0"},
    {"abort-grpc-request": "5", "abort-percentage": "900"},
    {"delay-request": "20"},
    {"delay-request": "20", "delay-request-percentage": "0"},
    {"delay-request": "20", "abort-grpc-request": "7"},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
async def test_what_a_call_asks_for(faulty: Callable[..., World], asked: dict[str, str]) -> None:
    world = faulty(BY_HEADER)
    call = GrpcCall(metadata=tuple((f"x-envoy-fault-{name}", value) for name, value in asked.items()))
    theirs, ours, aio = codes(world.theirs(call), world.ours(call), await world.ours_aio(call))
    assert theirs == ours == aio


@pytest.mark.parametrize("kind", ["Unary", "ServerStream", "ClientStream", "Both"])
async def test_every_kind_of_call(faulty: Callable[..., World], kind: str) -> None:
    world = faulty({"delay": {"fixed_delay": "0.02s", "percentage": ALWAYS}, **aborted(403)})
    call = GrpcCall(kind=kind)
    theirs, ours, aio = codes(world.theirs(call), world.ours(call), await world.ours_aio(call))
    assert theirs == ours == aio == ["PERMISSION_DENIED"]


def test_a_delay_counts_against_the_deadline(faulty: Callable[..., World]) -> None:
    world = faulty(BY_HEADER)
    call = GrpcCall(metadata=(("x-envoy-fault-delay-request", "3000"),), timeout=0.2)
    assert codes(world.theirs(call), world.ours(call)) == [["DEADLINE_EXCEEDED"], ["DEADLINE_EXCEEDED"]]


def test_a_share_of_calls(faulty: Callable[..., World]) -> None:
    world = faulty({"abort": {"grpc_status": 7, "percentage": {"numerator": 30}}})
    for ask in (world.theirs, world.ours):
        counts = Counter(ended.code for ended in ask(*[GrpcCall()] * 600))
        assert set(counts) == {"OK", "PERMISSION_DENIED"}
        assert abs(counts["PERMISSION_DENIED"] - 180) < 57  # five standard deviations


def test_what_is_over_max_active_faults_passes(faulty: Callable[..., World]) -> None:
    """In grpcio all channels of a process have one count; in a mesh its calls have."""
    world = faulty({**BY_HEADER, "max_active_faults": 2})
    call = GrpcCall(metadata=(("x-envoy-fault-delay-request", "3000"),), timeout=0.5)
    for ask in (world.theirs, world.ours):
        counts = Counter(ended.code for ended in ask(*[call] * 8, together=True))
        assert counts == {"OK": 6, "DEADLINE_EXCEEDED": 2}, ask.__name__
