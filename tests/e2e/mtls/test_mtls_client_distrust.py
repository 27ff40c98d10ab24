"""A client whose bundle lost an authority: no call reaches a server that still shows a certificate of it, not even over
a connection that was made while the authority was trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import httpx
import pytest

from e2e.mtls.test_mtls_grpc import METHOD, grpc_server
from e2e.mtls.workloads import Pair, mesh_to, pair_of_workloads, served
from meshlib import Mesh
from meshlib.identity.dev_ca import DevCA


def distrust(pair: Pair) -> None:
    """The client moves to another authority and trusts that alone; the server takes both and shows the old one's."""
    old, new = pair.authority, DevCA.new()
    pair.server.trusts = (old, new)
    pair.client.trusts, pair.client.authority = (new,), new
    for workload in (pair.server, pair.client):
        workload.renew()
    pair.until_taken()


def outcome(call: Callable[[], object], failures: type[Exception]) -> bool:
    try:
        call()
    except failures:
        return False
    return True


def test_blocking_httpx() -> None:
    with (
        pair_of_workloads() as pair,
        served(pair.server.identity) as port,
        mesh_to(port, pair.client.identity) as mesh,
        mesh.http.client("payments") as client,
    ):
        assert [outcome(lambda: client.get("/"), httpx.ConnectError) for _ in range(2)] == [True] * 2
        distrust(pair)
        assert [outcome(lambda: client.get("/"), httpx.ConnectError) for _ in range(3)] == [False] * 3


async def test_asyncio_httpx() -> None:
    async def reaches(client: httpx.AsyncClient) -> bool:
        try:
            await client.get("/")
        except httpx.ConnectError:
            return False
        return True

    with pair_of_workloads() as pair, served(pair.server.identity) as port:
        async with mesh_to(port, pair.client.identity) as mesh, mesh.http.async_client("payments") as client:
            assert [await reaches(client) for _ in range(2)] == [True] * 2
            await asyncio.to_thread(distrust, pair)
            assert [await reaches(client) for _ in range(3)] == [False] * 3


def blocking_grpc(mesh: Mesh, between: Callable[[], None]) -> list[bool]:
    with mesh.grpc.channel("payments") as channel:
        who = channel.unary_unary(METHOD)
        before = outcome(lambda: who(b"", timeout=10), grpc.RpcError)
        between()
        return [before, *(outcome(lambda: who(b"", timeout=2), grpc.RpcError) for _ in range(3))]


def asyncio_grpc(mesh: Mesh, between: Callable[[], None]) -> list[bool]:
    async def calls() -> list[bool]:
        async with mesh.grpc.aio_channel("payments") as channel:
            who, ends = channel.unary_unary(METHOD), []
            for timeout in (10, 2, 2, 2):
                try:
                    await who(b"", timeout=timeout)
                    ends.append(True)
                except grpc.RpcError:
                    ends.append(False)
                if len(ends) == 1:
                    await asyncio.to_thread(between)
            return ends

    return asyncio.run(calls())


@pytest.mark.parametrize("calls", [blocking_grpc, asyncio_grpc])
def test_grpc(calls: Callable[[Mesh, Callable[[], None]], list[bool]]) -> None:
    with (
        pair_of_workloads() as pair,
        grpc_server(pair.server.identity) as port,
        mesh_to(port, pair.client.identity) as mesh,
    ):
        assert calls(mesh, lambda: distrust(pair)) == [True, False, False, False]
