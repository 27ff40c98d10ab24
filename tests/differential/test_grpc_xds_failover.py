"""Failover by connections (gRFC A56): grpcio's `xds:///` and a mesh with a failover timeout agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from differential.grpc_xds_twin import World, locality, route
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import GrpcCall
from parts.xds import eventually

Backends = Callable[[int], list[GrpcBackend]]
MANY = [GrpcCall()] * 12


@pytest.fixture
def world(xds_world: Callable[..., World]) -> World:
    return xds_world(failover_timeout=10.0)


def names(world: World, ask: Callable[..., Any]) -> set[str]:
    """Who answers a few calls; the codes of those that nobody answers."""
    return {one.backend or one.code for one in ask(*MANY)}


def settle(world: World, wanted: set[str]) -> None:
    """Both, and the mesh on asyncio, come to go to these alone. The first calls of either may fail."""
    for ask in (world.theirs, world.ours):
        eventually(lambda ask=ask: names(world, ask) == wanted, f"{ask.__name__} goes to {wanted}", 30.0)


async def test_a_priority_whose_endpoints_die_is_left_and_taken_up_again(world: World, echo_backends: Backends) -> None:
    a, b, c = echo_backends(3)
    priorities = [locality([a, b]), locality([c], "c", priority=1)]
    world.put([route(world.cluster("all"))], {"all": {"endpoints": {"endpoints": priorities}}})
    settle(world, {"a", "b"})
    a.stop()
    settle(world, {"b"})
    b.stop()
    settle(world, {"c"})
    assert {one.backend for one in await world.ours_aio(*MANY)} == {"c"}
    b.restart()
    settle(world, {"b"})
    a.restart()
    settle(world, {"a", "b"})
    assert {one.backend for one in await world.ours_aio(*MANY)} == {"a", "b"}
