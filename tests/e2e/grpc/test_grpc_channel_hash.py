"""`io.grpc.channel_id` (gRFC A42): the calls of a channel go to one endpoint, those of many channels to all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from differential.calls_twin import bootstrap, cluster, virtual_host
from meshlib import Mesh, call_metadata
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

CHANNELS = 24
POLICY = {"filter_state": {"key": "io.grpc.channel_id"}}


async def asked(stub: Any, api: str, ask: Any, metadata: Any = None) -> str:
    """Who answered."""
    if api == "aio":
        return str((await stub.Unary(ask, metadata=metadata)).backend)
    return str((await asyncio.to_thread(stub.Unary, ask, metadata=metadata)).backend)


@pytest.mark.parametrize("api", ["sync", "aio"])
async def test_a_channel_stays_with_one_endpoint(
    api: str, echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs, tmp_path: Path
) -> None:
    backends = echo_backends(2)
    # A route that changes headers makes the request anew: it is of the same channel all the same.
    added = {"request_headers_to_add": [{"header": {"key": "x-added", "value": "1"}}]}
    host = virtual_host([{"match": {"prefix": "/"}, "route": {"cluster": "up", "hash_policy": [POLICY]}, **added}])
    up = cluster("up", [backend.port for backend in backends], lb_policy="RING_HASH")
    (tmp_path / "mesh.json").write_text(json.dumps(bootstrap([host], [up])))
    mesh = Mesh.from_file(tmp_path / "mesh.json", unknown_hosts="reject")
    mesh.start().wait_ready()
    make = mesh.grpc.channel if api == "sync" else mesh.grpc.aio_channel
    channels = [make("shop") for _ in range(CHANNELS)]
    seen, ask = set(), grpc_stubs.ask("hi")
    for channel in channels:
        stub = grpc_stubs.echo(channel)
        (where,) = {await asked(stub, api, ask, metadata) for metadata in (None, (("a", "b"),)) for _ in range(3)}
        seen.add(where)
    assert len(seen) == 2
    with call_metadata(filter_state={"io.grpc.channel_id": "the same"}):
        assert len({await asked(grpc_stubs.echo(channel), api, ask) for channel in channels}) == 1
    for channel in channels:
        closing = channel.close()
        if closing is not None:
            await closing
    mesh.close()
