"""The gRPC service: receipts, one at a time or as a stream. Served by grpc.aio, over mutual TLS, with the mesh's
interceptor in front.

Messages are JSON, so that there is no code to generate; the stub below is what protoc would make of a .proto file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from meshlib import Mesh
from meshlib.context import peer
from meshlib.grpc.secure import add_mtls_port
from meshlib.identity import Identity

Json = dict[str, Any]
SERVICE = "shop.Receipts"
LINES = 10  # of a statement
LINE_SECONDS = 0.03  # between two of them


def encode(message: Json) -> bytes:
    """A message's bytes."""
    return json.dumps(message).encode()


def decode(data: bytes) -> Json:
    """A message of its bytes."""
    message: Json = json.loads(data)
    return message


class ReceiptsStub:
    """The service's methods over any channel of grpc.aio; the mesh's are such channels."""

    def __init__(self, channel: aio.Channel) -> None:
        self.Issue = channel.unary_unary(f"/{SERVICE}/Issue", encode, decode)
        self.Statement = channel.unary_stream(f"/{SERVICE}/Statement", encode, decode)


class Receipts:
    """One instance of the service."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._numbers = itertools.count(1)

    async def issue(self, request: Json, context: aio.ServicerContext) -> Json:
        """A receipt, and what arrived with the call, for the trace that the demo prints."""
        metadata = dict(context.invocation_metadata())
        hop = {
            "instance": self._instance,
            "protocol": "gRPC",
            "traceparent": metadata.get("traceparent", ""),
            "x-request-id": metadata.get("x-request-id", ""),
            "ms_left": int(1000 * (context.time_remaining() or 0.0)),
            "caller": peer(),  # verified by mutual TLS
        }
        return {"receipt": f"{self._instance}/{next(self._numbers)}", "hop": hop}

    async def statement(self, request: Json, context: aio.ServicerContext) -> AsyncIterator[Json]:
        """The lines of a statement, from `first` on."""
        for number in range(request.get("first", 1), LINES + 1):
            await asyncio.sleep(LINE_SECONDS)
            yield {"line": number, "instance": self._instance}

    def handler(self) -> grpc.GenericRpcHandler:
        """For `server.add_generic_rpc_handlers`; protoc's `add_ReceiptsServicer_to_server` does the same."""
        methods = {
            "Issue": grpc.unary_unary_rpc_method_handler(self.issue, decode, encode),
            "Statement": grpc.unary_stream_rpc_method_handler(self.statement, decode, encode),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


async def serve(name: str, port: int, mesh: Mesh, identity: Identity) -> None:
    """Serve one instance until a signal ends it, and say on which port."""
    server = aio.server(interceptors=[mesh.grpc.aio_server_interceptor()])
    server.add_generic_rpc_handlers((Receipts(name).handler(),))
    port = add_mtls_port(server, f"127.0.0.1:{port}", identity)
    await server.start()
    print(f"{name} listens on {port}", flush=True)
    await mesh.grpc.aio_wait_for_termination(server, grace=1.0)
