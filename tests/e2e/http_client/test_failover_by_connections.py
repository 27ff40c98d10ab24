"""Failover by connections (gRFC A56): a priority whose endpoints cannot be connected to is left, and taken up again."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from e2e.http_client.doors import Door
from meshlib import Mesh, UpstreamConnectError, UpstreamTimeoutError
from meshlib.engine.events import EndpointReachable, EndpointUnreachable
from meshlib.errors import ConfigurationError
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.sources.static import parse_address, static_cluster
from parts.fast_backend import FastBackend
from parts.ports import free_port
from parts.xds import eventually

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def row(*priorities: list[str], name: str = "payments", **fields: Any) -> Cluster:
    """A cluster whose priorities have these endpoints."""
    groups = tuple(
        LocalityLbEndpoints(tuple(LbEndpoint(parse_address(address)) for address in addresses), priority=number)
        for number, addresses in enumerate(priorities)
    )
    made = static_cluster(name, [priorities[0][0]])
    return replace(made, load_assignment=ClusterLoadAssignment(name, groups), **fields)


def nobody() -> str:
    return f"127.0.0.1:{free_port()}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address where connections are neither accepted nor refused: the queue of who waits there is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        while True:
            one = socket.socket()
            one.settimeout(0.2)
            waiting.append(one)
            try:
                one.connect(listening.getsockname())
            except TimeoutError:
                break
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


def who(client: Any) -> str:
    """The backend that answers, or what kind of failure there is."""
    try:
        return client.get("/").headers["x-backend"]
    except (UpstreamConnectError, UpstreamTimeoutError) as error:
        return "late" if isinstance(error, UpstreamTimeoutError) else "no connection"


def listen_at(address: str, fast_backend: Fast, name: str) -> FastBackend:
    return fast_backend(name, port=parse_address(address).port)


def test_a_priority_that_refuses_every_connection_is_left_and_taken_up_again(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    dead = [nobody() for _ in range(5)]
    far = fast_backend("far")
    mesh = static({"payments": row(dead, [far.address])}, failover_timeout=5.0)
    seen: list[Any] = []
    mesh.on_event(seen.append)
    client = door.client(mesh)
    assert who(client) == "no connection", "the first call is the one that finds out"
    began = time.monotonic()
    eventually(lambda: len([each for each in seen if isinstance(each, EndpointUnreachable)]) == 5, "all are lost")
    assert time.monotonic() - began < 2.0, "refused at once: the timer is for those who say nothing"
    assert {who(client) for _ in range(20)} == {"far"}

    near = listen_at(dead[2], fast_backend, "near")
    eventually(lambda: who(client) == "near", "the priority is back with its first endpoint")
    assert {who(client) for _ in range(20)} == {"near"}, "those still out of reach are not missed"
    assert [each.endpoint for each in seen if isinstance(each, EndpointReachable)] == [near.address]


def test_a_priority_that_says_nothing_is_left_when_the_timer_is_over(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    far = fast_backend("far")
    with black_hole() as one, black_hole() as other:
        mesh = static({"payments": row([one, other], [far.address])}, failover_timeout=0.5)
        client, began = door.client(mesh), time.monotonic()
        assert who(client) == "no connection", "a cluster's connect_timeout is 5 s, but no longer than the timer"
        assert time.monotonic() - began < 1.0
        eventually(lambda: who(client) == "far", "a timer later at most", 2.0)
        assert {who(client) for _ in range(20)} == {"far"}


def test_calls_in_a_hurry_find_out_as_well(door: Door, static: Static, fast_backend: Fast) -> None:
    """Their own timeout ends before anything is known of the connection."""
    far = fast_backend("far")
    with black_hole() as silent:
        mesh = static({"payments": row([silent], [far.address])}, failover_timeout=0.4, timeout=0.05)
        client = door.client(mesh)
        assert who(client) == "late"
        eventually(lambda: who(client) == "far", "the priority is left", 3.0)


def test_by_default_health_decides(door: Door, static: Static, fast_backend: Fast) -> None:
    far = fast_backend("far")
    mesh = static({"payments": row([nobody()], [far.address])})
    client = door.client(mesh)
    assert {who(client) for _ in range(10)} == {"no connection"}


def test_one_that_can_be_connected_to_keeps_the_load(door: Door, static: Static, fast_backend: Fast) -> None:
    """And no call goes to the others once they are known."""
    near, far = fast_backend("near"), fast_backend("far")
    mesh = static({"payments": row([nobody(), near.address, nobody()], [far.address])}, failover_timeout=5.0)
    client = door.client(mesh)
    eventually(lambda: [who(client) for _ in range(10)] == ["near"] * 10, "only who is there is asked")
    assert far.count == 0


def test_the_clusters_of_an_aggregate_cluster(door: Door, static: Static, fast_backend: Fast) -> None:
    far = fast_backend("far")
    clusters = {
        "payments": Cluster("payments", type="AGGREGATE", clusters=("first", "second")),
        "first": static_cluster("first", [nobody(), nobody()]),
        "second": static_cluster("second", [far.address]),
    }
    client = door.client(static(clusters, failover_timeout=5.0))
    eventually(lambda: [who(client) for _ in range(10)] == ["far"] * 10, "the second cluster has the load")


def test_where_nothing_can_be_connected_to_everything_is_tried(door: Door, static: Static, fast_backend: Fast) -> None:
    """As in a panic: and who answers there is taken back at once, not when it is tried again."""
    dead, far = nobody(), nobody()
    mesh = static({"payments": row([dead], [far])}, failover_timeout=5.0)
    client = door.client(mesh)
    state = mesh.runtime.state.cluster("payments")
    eventually(lambda: who(client) and all(cell.out_of_reach for cell in state.endpoints.values()), "both are lost")
    listen_at(dead, fast_backend, "near")
    eventually(lambda: who(client) == "near", "found by a call")
    eventually(lambda: [who(client) for _ in range(5)] == ["near"] * 5, "and it stays")


def test_a_closed_mesh_holds_nothing_against_anybody(static: Static, door: Door, fast_backend: Fast) -> None:
    dead, far = nobody(), fast_backend("far")
    mesh = static({"payments": row([dead], [far.address])}, failover_timeout=5.0)
    client = door.client(mesh)
    eventually(lambda: who(client) == "far", "left")
    mesh.close()
    cells = mesh.runtime.state.cluster("payments").endpoints.values()
    assert not any(cell.out_of_reach for cell in cells)
    eventually(lambda: who(client) == "far", "started again by a call, it finds out again")


def test_an_endpoint_that_leaves_is_no_longer_asked_for(static: Static, fast_backend: Fast) -> None:
    far = fast_backend("far")
    mesh = static({"payments": row([nobody()], [far.address])}, failover_timeout=5.0)
    with mesh.http.client("payments") as client:
        eventually(lambda: who(client) == "far", "left")
        reach = mesh._reach
        assert reach is not None
        snapshot = mesh.runtime.plan.snapshot
        mesh.publish(replace(snapshot, clusters={"payments": row([far.address])}))
        eventually(lambda: not reach._lost, "its checks have ended")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_finds_out_for_itself(static: Static, fast_backend: Fast) -> None:
    dead, far = nobody(), fast_backend("far")
    mesh = static({"payments": row([dead], [far.address])}, failover_timeout=5.0)
    with mesh.http.client("payments") as client:
        eventually(lambda: who(client) == "far", "left")
        child = os.fork()
        if not child:
            try:
                eventually(lambda: who(client) == "far", "left in the child")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        listen_at(dead, fast_backend, "near")
        eventually(lambda: who(client) == "near", "the parent's checks go on")


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timer_is_a_time(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="failover_timeout"):
        Mesh.static({"payments": [str(Address("10.0.0.1", 1))]}, failover_timeout=timeout)
