"""Servers behind a rate limit service: every door, the service found in the mesh or by its address."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from e2e.rate_limits.limited import limit
from meshlib import Mesh
from meshlib.http import server, wsgi
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.grpc_service import GrpcService
from meshlib.model.rate_limits import GenericKey, HitsAddend, RateLimit, RemoteAddress, RequestHeader
from parts.grpc_stubs import Stubs
from parts.ratelimit_server import RateLimitServer

Limits = Callable[..., RateLimitServer]
USER = RateLimit((RequestHeader("x-user", "user"),))
FROM = RateLimit((RemoteAddress(),))


def limited(service: GrpcService, *limits: RateLimit, **options: Any) -> GlobalRateLimit:
    return GlobalRateLimit("shop", service, limits or (USER,), timeout=5.0, x_ratelimit_headers=True, **options)


def mesh_of(server: RateLimitServer) -> Mesh:
    return Mesh.static({"limits": [server.address]})


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"served"]


async def over_asgi(app: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://me") as client:
        return await client.get("/", headers=headers)


def over_wsgi(app: Any, **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://me") as client:
        return client.get("/", headers=headers)


@pytest.mark.parametrize("by", ["cluster", "target"])
async def test_asgi_and_wsgi_share_a_quota(ratelimit_server: Limits, by: str) -> None:
    limits = ratelimit_server({"shop": [limit("user", 3)]})
    service = GrpcService(cluster="limits") if by == "cluster" else GrpcService(target=limits.address)
    mesh = mesh_of(limits)
    asynchronous = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=["1000/second", limited(service)])
    blocking = wsgi.MeshMiddleware(wsgi_app, mesh=mesh, rate_limits=[limited(service, response_headers=())])
    told = [await over_asgi(asynchronous, **{"x-user": "ada"}) for _ in range(2)]
    told += [await asyncio.to_thread(over_wsgi, blocking, **{"x-user": "ada"}) for _ in range(2)]
    assert [response.status_code for response in told] == [200, 200, 200, 429]
    assert [response.headers["x-ratelimit-remaining"] for response in told] == ["2", "1", "0", "0"]
    assert "x-envoy-ratelimited" not in told[2].headers
    assert told[3].headers["x-envoy-ratelimited"] == "true"
    assert (await over_asgi(asynchronous)).status_code == 200  # without descriptors nobody is asked
    stats = {name: value for name, value in mesh.stats().items() if name.startswith("server.")}
    assert stats == {"server.ratelimit.ok": 3, "server.ratelimit.over_limit": 1}
    mesh.close()


async def test_by_the_address_of_the_caller(ratelimit_server: Limits) -> None:
    limits = ratelimit_server({"shop": [limit("remote_address", 2)]})
    mesh = mesh_of(limits)
    app = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=[limited(GrpcService(cluster="limits"), FROM)])
    assert [(await over_asgi(app)).status_code for _ in range(3)] == [200, 200, 429]
    mesh.close()


async def test_what_counts_at_the_end_counts_for_a_server_too(ratelimit_server: Limits) -> None:
    limits = ratelimit_server({"shop": [limit("generic_key", 100)]})
    mesh, service = mesh_of(limits), GrpcService(cluster="limits")
    later = RateLimit((GenericKey("k"),), apply_on_stream_done=True)
    look = RateLimit((GenericKey("k"),), hits_addend=HitsAddend(0))
    app = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=[limited(service, later)])
    looking = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=[limited(service, look)])
    for _ in range(4):
        assert (await over_asgi(app)).status_code == 200
    async with asyncio.timeout(10):  # nobody waits for what ends a request
        while (await over_asgi(looking)).headers["x-ratelimit-remaining"] != "96":
            pass
    mesh.close()


@pytest.mark.parametrize("deny", [False, True])
async def test_without_the_service(ratelimit_server: Limits, deny: bool) -> None:
    limits = ratelimit_server({"shop": [limit("user", 3)]})
    limits.kill()
    mesh = mesh_of(limits)
    config = limited(GrpcService(cluster="limits"), failure_mode_deny=deny, status_on_error=503)
    app = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=[config])
    assert (await over_asgi(app, **{"x-user": "ada"})).status_code == (503 if deny else 200)
    missing = limited(GrpcService(cluster="nowhere"), failure_mode_deny=deny)
    app = server.MeshMiddleware(asgi_app, mesh=mesh, rate_limits=[missing])
    assert (await over_asgi(app, **{"x-user": "ada"})).status_code == (500 if deny else 200)
    mesh.close()


def test_a_limit_without_limits_is_refused() -> None:
    with pytest.raises(ValueError, match="'shop' has no rate_limits"):
        server.MeshMiddleware(
            asgi_app, mesh=Mesh.static({}), rate_limits=[GlobalRateLimit("shop", GrpcService(cluster="limits"))]
        )


@asynccontextmanager
async def serving(kind: str, mesh: Mesh, config: GlobalRateLimit, stubs: Stubs) -> AsyncIterator[int]:
    """A server of this kind with the Echo service behind the limit, on some port."""

    class Blocking(stubs.services.EchoServicer):  # type: ignore[name-defined,misc]
        def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802
            return stubs.messages.Answer()

    class Asynchronous(stubs.services.EchoServicer):  # type: ignore[name-defined,misc]
        async def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802
            return stubs.messages.Answer()

    if kind == "sync":
        blocking = grpc.server(ThreadPoolExecutor(4), interceptors=[mesh.grpc.server_interceptor(rate_limits=[config])])
        stubs.services.add_EchoServicer_to_server(Blocking(), blocking)
        port = blocking.add_insecure_port("127.0.0.1:0")
        blocking.start()
        yield port
        await asyncio.to_thread(blocking.stop(None).wait)
    else:
        own = grpc.aio.server(interceptors=[mesh.grpc.aio_server_interceptor(rate_limits=[config])])
        stubs.services.add_EchoServicer_to_server(Asynchronous(), own)
        port = own.add_insecure_port("127.0.0.1:0")
        await own.start()
        yield port
        await own.stop(None)


@pytest.mark.parametrize("kind", ["sync", "aio"])
async def test_grpc_servers(ratelimit_server: Limits, grpc_stubs: Stubs, kind: str) -> None:
    limits = ratelimit_server({"shop": [limit("user", 2)]})
    mesh = mesh_of(limits)
    config = limited(GrpcService(cluster="limits"), rate_limited_as_resource_exhausted=True)
    metadata = (("x-user", "ada"),)
    async with (
        serving(kind, mesh, config, grpc_stubs) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        unary = grpc_stubs.echo(channel).Unary
        left = []
        for _ in range(2):
            call = unary(grpc_stubs.ask("a"), metadata=metadata)
            await call
            left.append(dict(await call.initial_metadata())["x-ratelimit-remaining"])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(grpc_stubs.ask("a"), metadata=metadata)
        assert left == ["1", "0"]
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata() or ())["x-envoy-ratelimited"] == "true"
    mesh.close()
