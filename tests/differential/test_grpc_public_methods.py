"""Every public method that grpcio's own channels, multi-callables and calls have, ours have, and the ones that are
nowhere else in the tests do the same.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from meshlib import Mesh
from meshlib.control.ads_server import AdsServer, ResourceStore
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import api_listener, cluster, endpoints, eventually, resources, routes

KINDS = ("Unary", "ServerStream", "ClientStream", "Both")
# Of the classes that grpcio's calls happen to be made of, and in none of its documented interfaces.
NOT_PUBLIC = {"with_traceback", "add_note", "args", "next"}


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")} - NOT_PUBLIC


@pytest.fixture
def backend(echo_backends: Callable[[int], list[GrpcBackend]]) -> GrpcBackend:
    return echo_backends(1)[0]


@pytest.fixture
def mesh(backend: GrpcBackend) -> Iterator[Mesh]:
    with Mesh.static({"payments": [backend.address]}) as made:
        yield made


def request_of(kind: str, stubs: Stubs, **script: Any) -> Any:
    ask = stubs.ask(**script)
    return iter([ask]) if kind in ("ClientStream", "Both") else ask


@pytest.mark.parametrize("kind", KINDS)
def test_blocking(mesh: Mesh, backend: GrpcBackend, grpc_stubs: Stubs, kind: str) -> None:
    with grpc.insecure_channel(backend.address) as theirs, mesh.grpc.channel("payments") as ours:
        assert public(grpc.Channel) <= public(ours)
        methods = [getattr(grpc_stubs.echo(channel), kind) for channel in (theirs, ours)]
        assert public(methods[0]) <= public(methods[1])
        single = kind in ("Unary", "ClientStream")
        calls = [(method.future if single else method)(request_of(kind, grpc_stubs), timeout=10) for method in methods]
        assert public(calls[0]) <= public(calls[1])
        for call in calls:
            call.result() if single else list(call)


@pytest.mark.parametrize("kind", KINDS)
async def test_asyncio(mesh: Mesh, backend: GrpcBackend, grpc_stubs: Stubs, kind: str) -> None:
    async with grpc.aio.insecure_channel(backend.address) as theirs, mesh.grpc.aio_channel("payments") as ours:
        assert public(grpc.aio.Channel) <= public(ours)
        calls = [
            getattr(grpc_stubs.echo(one), kind)(request_of(kind, grpc_stubs), timeout=10) for one in (theirs, ours)
        ]
        assert public(calls[0]) <= public(calls[1])
        for call in calls:
            if kind in ("Unary", "ClientStream"):
                await call
            else:
                assert [answer async for answer in call]


def test_who_unsubscribes_hears_no_more(backend: GrpcBackend) -> None:
    """Two wait for a target that no control plane knows yet; one of them gives up."""
    store, states = ResourceStore([]), grpc.ChannelConnectivity
    gone: list[Any] = []
    stays: list[Any] = []
    with (
        AdsServer(store) as server,
        Mesh.from_xds(f"127.0.0.1:{server.port}") as mesh,
        mesh.grpc.channel("payments") as channel,
    ):
        channel.subscribe(gone.append, try_to_connect=True)
        channel.subscribe(stays.append, try_to_connect=True)
        eventually(lambda: gone == stays == [states.CONNECTING], "both are told of the state")
        channel.unsubscribe(gone.append)
        channel.unsubscribe(print)  # nobody knows it, which grpcio does not mind either
        where = endpoints("all", (backend.host, backend.port))
        store.replace(resources(api_listener("payments", "routes"), routes("routes", "all"), cluster("all"), where))
        eventually(lambda: stays == [states.CONNECTING, states.READY], "the one that stayed is told")
    assert gone == [states.CONNECTING]


async def test_a_change_of_state_is_waited_for(mesh: Mesh) -> None:
    channel = mesh.grpc.aio_channel("payments")
    await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE), 10)
    await asyncio.wait_for(channel.channel_ready(), 10)
    assert channel.get_state() is grpc.ChannelConnectivity.READY
    closed = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
    await asyncio.sleep(0)
    assert not closed.done()
    await channel.close()
    await asyncio.wait_for(closed, 10)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


def test_generated_stubs_need_nothing_that_is_not_there() -> None:
    """What the generated code passes to a channel's methods."""
    for made in (grpc.Channel, grpc.aio.Channel):
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            assert "_registered_method" in inspect.signature(getattr(made, kind)).parameters


@pytest.mark.parametrize("kind", ["Unary", "ClientStream"])
def test_a_failed_future_tells_its_traceback(mesh: Mesh, backend: GrpcBackend, grpc_stubs: Stubs, kind: str) -> None:
    with grpc.insecure_channel(backend.address) as theirs, mesh.grpc.channel("payments") as ours:
        for channel in (theirs, ours):
            method = getattr(grpc_stubs.echo(channel), kind)
            failed = method.future(request_of(kind, grpc_stubs, statuses=[5]), timeout=10)
            assert traceback.extract_tb(failed.traceback(10))
            assert method.future(request_of(kind, grpc_stubs), timeout=10).traceback(10) is None
            with pytest.raises(grpc.FutureTimeoutError):
                method.future(request_of(kind, grpc_stubs, hang=True), timeout=5).traceback(0.05)
