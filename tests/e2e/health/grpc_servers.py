"""A gRPC server with a health service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2_grpc


class Server:
    """A gRPC server with a health service, and what it was asked."""

    def __init__(self, *, healthy: bool = True) -> None:
        self.servicer = grpc_health.HealthServicer()
        self.asked: list[dict[str, str]] = []
        self.server = grpc.server(ThreadPoolExecutor(4), interceptors=[self])  # type: ignore[list-item]
        if healthy:
            health_pb2_grpc.add_HealthServicer_to_server(self.servicer, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def intercept_service(self, following: Any, details: Any) -> Any:
        self.asked.append(dict(details.invocation_metadata))
        return following(details)

    def stop(self) -> None:
        self.server.stop(None).wait()
