"""Sticky sessions of gRPC calls (gRFC A55): the cookie is metadata, and every kind of call goes by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from differential.calls_twin import EXTENSIONS, bootstrap, cluster, virtual_host
from meshlib import Mesh
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

COOKIE = "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
SESSION = {
    "name": "session",
    "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.stateful_session.v3.StatefulSession",
        "session_state": {
            "name": "envoy.http.stateful_session.cookie",
            "typed_config": {"@type": COOKIE, "cookie": {"name": "cart", "path": "/meshlib.test.Echo", "ttl": "60s"}},
        },
    },
}


async def begun(stub: Any, api: str, ask: Any, metadata: Any = None) -> tuple[str, dict[str, str]]:
    """(Who answered a unary call, its initial metadata)."""
    if api == "aio":
        call = stub.Unary(ask, metadata=metadata)
        return (await call).backend, dict(await call.initial_metadata())
    answer, call = await asyncio.to_thread(stub.Unary.with_call, ask, metadata=metadata)
    return answer.backend, dict(call.initial_metadata())


async def streamed(stub: Any, api: str, ask: Any, metadata: Any) -> tuple[set[str], dict[str, str]]:
    call = stub.ServerStream(ask, metadata=metadata)
    if api == "aio":
        return {answer.backend async for answer in call}, dict(await call.initial_metadata())
    answers = await asyncio.to_thread(list, call)
    return {answer.backend for answer in answers}, dict(call.initial_metadata())


@pytest.mark.parametrize("api", ["sync", "aio"])
async def test_calls_come_back_by_their_cookie(
    api: str, echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs, tmp_path: Path
) -> None:
    backends = echo_backends(2)
    host = virtual_host([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}])
    made = bootstrap([host], [cluster("up", [backend.port for backend in backends])], filters=[SESSION])
    (tmp_path / "mesh.json").write_text(json.dumps(made))
    mesh = Mesh.from_file(tmp_path / "mesh.json", unknown_hosts="reject", seed=1)
    mesh.start().wait_ready()
    channel = mesh.grpc.channel("shop") if api == "sync" else mesh.grpc.aio_channel("shop")
    stub, ask = grpc_stubs.echo(channel), grpc_stubs.ask("hi")
    seen = set()
    for _ in range(2):
        where, metadata = await begun(stub, api, ask)
        seen.add(where)
        cookie = (("cookie", metadata["set-cookie"].partition(";")[0]),)
        for _ in range(4):
            again, metadata = await begun(stub, api, ask, cookie)
            assert again == where
            assert "set-cookie" not in metadata
        found, metadata = await streamed(stub, api, grpc_stubs.ask("hi", answers=3), cookie)
        assert found == {where}
        assert "set-cookie" not in metadata
    assert len(seen) == 2, "others are balanced"
    closing = channel.close()
    if closing is not None:
        await closing
    mesh.close()
