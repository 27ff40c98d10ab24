"""The workloads of the bookshop as real servers: each speaks HTTP and gRPC, answers with its name, and counts."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from parts.fast_backend import FastBackend
from parts.istio_bookinfo import WORKLOADS, services

WHO = "/shop.Workload/Who"


class Workload:
    """One of them; its HTTP half is `http`, its gRPC half counts in `calls`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.http = FastBackend(name)
        self.calls: list[dict[str, str]] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.grpc_port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self.http.stop()
        self._server.stop(None).wait(5)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self._answer) if details.method == WHO else None

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._workload.calls.append({key: str(value) for key, value in context.invocation_metadata()})
        return self._workload.name.encode()


class Shop:
    """All of them, and the ServiceEntries that name them."""

    def __init__(self) -> None:
        self.workloads = {name: Workload(name) for name in WORKLOADS}
        self.entries = services({name: (w.http.port, w.grpc_port) for name, w in self.workloads.items()})

    def __getitem__(self, name: str) -> Workload:
        return self.workloads[name]

    def reset(self) -> None:
        """Everybody is good again and has counted nothing."""
        for workload in self.workloads.values():
            workload.http.behave()
            workload.http.requests.clear()
            workload.calls.clear()

    def counted(self) -> dict[str, int]:
        """How many requests and calls each got; who got none is left out."""
        counts = {name: w.http.count + len(w.calls) for name, w in self.workloads.items()}
        return {name: count for name, count in counts.items() if count}

    def stop(self) -> None:
        for workload in self.workloads.values():
            workload.stop()


def who(channel: Any, metadata: Iterable[tuple[str, str]] = (), timeout: float = 5.0) -> str:
    """Who answers a gRPC call."""
    answer: bytes = channel.unary_unary(WHO)(b"", timeout=timeout, metadata=tuple(metadata))
    return answer.decode()


def tally(names: Iterable[str]) -> dict[str, int]:
    """How often each name is there."""
    return dict(Counter(names))
