"""A gRPC server that drains, as a program: `draining_app.py KIND STUBS DRAIN_SECONDS GRACE`.

Prints `port N`; each call sleeps for as long as its text says. What happens on the way out is printed in order.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from meshlib import Mesh
from meshlib.drain import Draining
from parts.grpc_stubs import Stubs


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  the test reads it


class Source:
    """A source that says when it is closed."""

    def start(self, mesh: Mesh) -> None:
        say("mesh started")

    def close(self) -> None:
        say("mesh closed")

    def request(self, authority: str) -> None:
        """Nothing to fetch."""

    def forget(self) -> None:
        """Nothing kept."""


class Slow:
    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        time.sleep(float(ask.text))
        return self._messages.Answer(text=ask.text)


class AioSlow(Slow):
    async def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        await asyncio.sleep(float(ask.text))
        return self._messages.Answer(text=ask.text)


def servicer(kind: type[Slow], stubs: Stubs) -> Any:
    """The service, its other methods unimplemented, as generated code has them."""
    return type("Servicer", (kind, stubs.services.EchoServicer), {})(stubs.messages)


def blocking(mesh: Mesh, stubs: Stubs, drain: Draining, grace: float) -> None:
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[mesh.grpc.server_interceptor()])
    checks = health.HealthServicer()
    stubs.services.add_EchoServicer_to_server(servicer(Slow, stubs), server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"port {port}")
    mesh.grpc.wait_for_termination(server, drain=drain, grace=grace, health=checks)


async def on_a_loop(mesh: Mesh, stubs: Stubs, drain: Draining, grace: float) -> None:
    server = grpc.aio.server(interceptors=[mesh.grpc.aio_server_interceptor()])
    checks = health.aio.HealthServicer()
    stubs.services.add_EchoServicer_to_server(servicer(AioSlow, stubs), server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(f"port {port}")
    await mesh.grpc.aio_wait_for_termination(server, drain=drain, grace=grace, health=checks)


def main() -> None:
    kind, folder, seconds, grace = sys.argv[1:]
    stubs, drain = Stubs(Path(folder)), Draining(float(seconds))
    drain.on_drain(lambda: say("deregistered"))
    mesh = Mesh(Source())
    if kind == "sync":
        blocking(mesh, stubs, drain, float(grace))
    else:
        asyncio.run(on_a_loop(mesh, stubs, drain, float(grace)))
    say("ended")


if __name__ == "__main__":
    main()
