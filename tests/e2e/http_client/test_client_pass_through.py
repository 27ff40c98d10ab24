"""Hosts the mesh does not know: the library's own transport, one per event loop, one for all threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from e2e.http_client.doors import LIBRARIES
from meshlib import Mesh
from meshlib.context import CallContext, serving
from meshlib.http.httpx import AsyncMeshTransport, MeshTransport
from meshlib.http.library import LibraryName
from parts.fast_backend import FastBackend, Reply

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def test_one_asyncio_transport_passes_through_on_several_loops(static: Static, fast_backend: Fast) -> None:
    stranger = fast_backend("stranger")
    transport = AsyncMeshTransport(static({"payments": [fast_backend("b").address]}))
    client = httpx.AsyncClient(transport=transport)

    async def call(*, last: bool = False) -> int:
        response = await client.get(f"http://{stranger.address}/")
        if last:
            await transport.aclose()
        return response.status_code

    with asyncio.Runner() as one, asyncio.Runner() as other:
        assert [one.run(call()), other.run(call()), one.run(call()), other.run(call())] == [200] * 4
        assert stranger.connections_made == 2, "each loop keeps a connection of its own"
        assert other.run(call(last=True)) == 200
        other.close()
        assert one.run(call(last=True)) == 200
    assert stranger.connections_made == 2, "a loop that closes its connections leaves the others theirs"


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("kept, connections", [(1, 1), (0, 3)])
def test_a_ready_clients_options_of_transports_hold_for_hosts_the_mesh_does_not_know(
    static: Static, fast_backend: Fast, library: LibraryName, kept: int, connections: int
) -> None:
    stranger, meshed = fast_backend("stranger"), fast_backend("b")
    mesh = static({"payments": [meshed.address]})
    limits = LIBRARIES[library].Limits(max_keepalive_connections=kept)

    def block() -> None:
        with mesh.http.client(library=library, limits=limits) as client:
            for host in (stranger.address, "payments") * 3:
                client.get(f"http://{host}/")

    async def wait() -> None:
        async with mesh.http.async_client(library=library, limits=limits) as client:
            for host in (stranger.address, "payments") * 3:
                await client.get(f"http://{host}/")

    block()
    assert (stranger.connections_made, meshed.connections_made) == (connections, 1)
    asyncio.run(wait())
    assert (stranger.connections_made, meshed.connections_made) == (2 * connections, 2)


def test_a_ready_client_takes_no_transport(static: Static) -> None:
    with pytest.raises(TypeError, match=r"mesh\.http\.transport\(fallback=\.\.\.\)"):
        static({}).http.client(transport=httpx.HTTPTransport())


def test_threads_that_are_first_at_once_share_one_fallback(
    static: Static, fast_backend: Fast, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, made, closed = 4, [], []
    together = threading.Barrier(threads)

    class Counted(httpx.HTTPTransport):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)
            together.wait(10)  # nobody has stored one before all have made one

        def close(self) -> None:
            closed.append(self)
            super().close()

    stranger = fast_backend("stranger")
    mesh = static({"payments": [fast_backend("b").address]})
    client = httpx.Client(transport=MeshTransport(mesh))
    monkeypatch.setattr(httpx, "HTTPTransport", Counted)
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(lambda _: client.get(f"http://{stranger.address}/").status_code, range(threads)))
    assert answers == [200] * threads
    assert (len(made), len(closed)) == (threads, threads - 1)
    client.close()
    assert set(closed) == set(made)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_host_the_mesh_does_not_know_is_not_waited_for_without_end(
    static: Static, fast_backend: Fast, library: LibraryName
) -> None:
    """No route bounds such a call: the deadline of the request being served does, and else the library's default."""
    silent = fast_backend("silent", Reply(fault="hang"))
    mesh = static({"payments": [fast_backend("b").address]})
    module = LIBRARIES[library]

    def block() -> None:
        with mesh.http.client(library=library) as client, pytest.raises(module.ReadTimeout):
            client.get(f"http://{silent.address}/")

    async def wait() -> None:
        async with mesh.http.async_client(library=library) as client:
            with pytest.raises(module.ReadTimeout):
                await client.get(f"http://{silent.address}/")

    for run in (block, lambda: asyncio.run(wait())):
        with serving(CallContext(deadline=time.monotonic() + 0.2)):
            began = time.monotonic()
            run()
            assert time.monotonic() - began < 4

    def bound(**options: Any) -> Any:
        with mesh.http.client(library=library, **options) as client:
            request = client.build_request("GET", f"http://{silent.address}/")
            return client._transport._core._bound(request).extensions["timeout"]["read"]

    assert bound() == 5.0
    assert bound(timeout=7.0) == 7.0
    assert bound(timeout=None) is None, "who asks for it may wait"
