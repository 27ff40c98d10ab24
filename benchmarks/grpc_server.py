"""The gRPC upstream: one unary method that sends back what it got, on a core of its own.

    python -m benchmarks.grpc_server CORE

Prints its port.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from grpc import aio

from benchmarks.cores import pin

SERVICE, METHOD = "benchmark.Echo", "Say"


async def say(request: bytes, context: object) -> bytes:
    """Answer at once."""
    return request


async def serve() -> None:
    """Until killed."""
    server = aio.server()
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    pin(int(sys.argv[1]))
    asyncio.run(serve())
