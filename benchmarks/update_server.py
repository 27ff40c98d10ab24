"""Two gRPC servers and a control plane of 10 000 endpoints, which turn from one of the servers to the other on command.

    python -m benchmarks.update_server CORE

Prints the control plane's address; for every line it reads, all endpoints turn to the other server. They are addresses
of this machine (127.0.0.0/8), so that each of them can be called.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from benchmarks.cores import pin
from benchmarks.grpc_calls import NAME, resources
from benchmarks.grpc_server import METHOD, SERVICE

ENDPOINTS = 10_000
_INSIDE = (
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.http.router.v3.Router",
)


def echo(answer: bytes) -> tuple[grpc.Server, int]:
    """A server that always answers the same, and its port on every address."""
    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    return server, port


def endpoints(port: int) -> dict[str, Any]:
    """The assignment: one locality of 10 000 addresses."""
    hosts = [f"127.{1 + number // 50_000}.{number // 250 % 200}.{1 + number % 250}" for number in range(ENDPOINTS)]
    found = [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host in hosts]
    group = {"locality": {"zone": "a"}, "load_balancing_weight": 1, "lb_endpoints": found}
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    return {"@type": kind, "cluster_name": NAME, "endpoints": [group]}


def main() -> None:
    """Until the input ends."""
    pin(int(sys.argv[1]))
    from google.protobuf import json_format
    from google.protobuf.any_pb2 import Any as AnyMessage

    from meshlib.control.ads_server import AdsServer
    from meshlib.control.resource_store import Resource, ResourceStore
    from meshlib.sources.files.type_registry import message_class

    first, second = echo(b"a"), echo(b"b")
    listener, cluster, _ = resources(0)
    cluster["lb_policy"] = "RING_HASH"  # grpcio connects to all endpoints for round robin: 10 000 connections

    for kind in _INSIDE:  # JSON is read by types that are known
        message_class(kind)

    def resource(values: dict[str, Any]) -> Resource:
        message_class(values["@type"].rpartition("/")[2])
        packed = json_format.ParseDict(values, AnyMessage())
        return Resource.of_bytes(packed.type_url, packed.value)

    fixed = [resource(listener), resource(cluster)]
    turns = [[*fixed, resource(endpoints(port))] for _, port in (first, second)]
    store = ResourceStore(turns[0])
    with AdsServer(store) as server:
        print(f"127.0.0.1:{server.port}", flush=True)
        for number, _ in enumerate(sys.stdin, 1):
            store.replace(turns[number % 2])


if __name__ == "__main__":
    main()
